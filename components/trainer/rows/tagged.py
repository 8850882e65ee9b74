"""Rows of a document each whose words have tags, for taggers of words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ....models.families.family import Family
from ....models.tasks.tagging import TaggerSettings
from ....models.tokenizers.base import TextTokenizer
from ...text_example_gen.records import Labels
from ...text_example_gen.settings import TAG, WORD_TOKENS
from .packing import PackedWindows, ranges
from .windows import in_steps, read_features, read_lengths, write_token_ids

_NONE = -1  # no tag: of tokens that are not the last of a word


def write_documents(
    path: str,
    file_patterns: Sequence[str],
    transform_graph_path: str,
    tokenizer: TextTokenizer,
) -> None:
    """Writes the documents of transformed examples, and the tags beside them.

    A word whose tag the training split has not is as one without.
    """
    names = Labels.read(transform_graph_path).names
    number = {name.encode(): index for index, name in enumerate(names)}
    features = read_features(
        file_patterns, transform_graph_path, "token_ids", WORD_TOKENS, TAG
    )
    with open(_tags_path(path), "wb") as file:

        def documents() -> Iterator[np.ndarray]:
            for token_ids, sizes, tags in features:
                of_tokens = np.full(len(token_ids) + 2, _NONE, np.int32)
                # `<s>` is before them.
                of_tokens[np.cumsum(sizes)] = [number.get(tag, _NONE) for tag in tags]
                file.write(of_tokens.tobytes())
                yield token_ids

        write_token_ids(path, documents(), tokenizer)


def read_rows(
    path: str,
    context_length: int,
    packing: str,
    tokenizer: TextTokenizer,
    own: TaggerSettings,
) -> TaggedRows:
    """The rows of `token_classifier`, see `Rows.read`."""
    del packing, tokenizer, own
    return TaggedRows(path, context_length)


def of_model(
    transform_graph_path: str, family: Family, own: TaggerSettings
) -> dict[str, Any]:
    """What a `TokenClassifier` takes besides its backbone, see `Rows.of_model`."""
    del family
    return {"labels": Labels.read(transform_graph_path).names, "dropout": own.dropout}


class TaggedRows(PackedWindows):
    """Rows of a document each: `<s>`, its tokens, `</s>`; several of a longer one.

    A row is an eighth, a quarter, half or the whole of the context long, as of
    `PackedWindows` with `lines`. The targets of a batch, int32 `[b, t]`, are the
    numbers of tags at the last token of each word, where the weights are 1.

    Args:
        path: File that `write_documents` has written.
        context_length: Tokens that the longest row has room for.
    """

    def __init__(self, path: str | os.PathLike[str], context_length: int) -> None:
        self._tags = np.memmap(_tags_path(path), np.int32, "r")
        super().__init__(path, context_length, "lines")

    @property
    def labels(self) -> Sequence[np.ndarray]:  # type: ignore[override]
        """The tags' numbers at all tokens of each document, -1 where there is none."""
        ends = np.cumsum(read_lengths(self._path) + 2)
        return [tags[1:-1] for tags in np.split(self._tags, ends[:-1])]

    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        framed = read_lengths(self._path) + 2
        number = -(-framed // self.context_length)
        offset = ranges(np.zeros_like(number), number) * self.context_length
        begin = np.repeat(np.cumsum(framed) - framed, number) + offset
        sizes = np.minimum(np.repeat(framed, number) - offset, self.context_length)
        return begin, sizes.astype(np.int32)

    def _batches(
        self,
        place: Callable[[int], np.ndarray],
        first: int,
        last: int,
        shape: tuple[int, int | None],
    ) -> tf.data.Dataset:
        def load(step: np.int64) -> np.ndarray:
            places = place(int(step))
            inside = places < self.num_tokens
            tags = np.where(inside, self._tags[np.where(inside, places, 0)], _NONE)
            pairs = np.stack([self._read(places), tags])
            self._let_go()
            return pairs

        def read(step: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            pairs = tf.numpy_function(load, [step], tf.int32, stateful=False)
            ids, tags = tf.unstack(tf.ensure_shape(pairs, (2, *shape)))
            weights = tf.cast(tags != _NONE, tf.float32)
            return self._features(ids), tf.maximum(tags, 0), weights

        return in_steps(read, first, last)


def _tags_path(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.tags"
