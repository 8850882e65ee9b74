"""Rows of a document each with its label, or labels, for text classifiers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ....models.families.family import Family
from ....models.tasks.classifying import ClassifierSettings
from ....models.tokenizers.base import TextTokenizer
from ...errors import InputError
from ...text_example_gen.records import Labels
from ...text_example_gen.settings import LABEL
from .augmentation import edited
from .packing import PackedWindows
from .windows import in_steps, read_features, read_lengths, write_token_ids


def write_documents(
    path: str,
    file_patterns: Sequence[str],
    transform_graph_path: str,
    tokenizer: TextTokenizer,
) -> None:
    """Writes the documents of transformed examples, and their labels beside them.

    A document without a label that the training split has is left out.
    """
    labels = Labels.read(transform_graph_path)
    number = {name.encode(): index for index, name in enumerate(labels.names)}
    targets: list[Any] = []

    def documents() -> Iterator[np.ndarray]:
        for token_ids, values in read_features(
            file_patterns, transform_graph_path, "token_ids", LABEL
        ):
            known = [number[value] for value in values if value in number]
            if labels.multi_label:
                targets.append(np.isin(np.arange(len(number)), known))
            elif known:
                targets.append(known[0])
            else:
                continue
            yield token_ids

    write_token_ids(path, documents(), tokenizer)
    np.save(_labels_path(path), np.array(targets, np.int32))
    Path(_names_path(path)).write_text(json.dumps(labels.names))


def read_rows(
    path: str,
    context_length: int,
    packing: str,
    tokenizer: TextTokenizer,
    own: ClassifierSettings,
) -> LabelledRows:
    """The rows of `text_classifier`, see `Rows.read`."""
    del packing, tokenizer
    return LabelledRows(path, context_length, own)


def of_model(
    transform_graph_path: str, family: Family, own: ClassifierSettings
) -> dict[str, Any]:
    """What a `TextClassifier` takes besides its backbone, see `Rows.of_model`."""
    labels = Labels.read(transform_graph_path)
    return {
        "labels": labels.names,
        "multi_label": labels.multi_label,
        "pooling": own.pooling or family.pooling,
        "dropout": own.dropout,
    }


def cross_entropy(loss: float, texts: Any) -> float:
    """Of a mean loss of decisions about texts, see `Rows.figure`."""
    return loss * texts.decisions


class LabelledRows(PackedWindows):
    """Rows of a document each: `<s>`, its tokens as far as there is room, `</s>`.

    A row is an eighth, a quarter, half or the whole of the context long, as of
    `PackedWindows` with `lines`. The targets of a batch are the numbers of the labels,
    int32 `[b]`; where a document may have several, zeros and ones, int32 `[b, c]`. The
    weights have their shape.

    Args:
        path: File that `write_documents` has written.
        context_length: Tokens that the longest row has room for.
        settings: How much labels count, and what of texts changes in training.

    Raises:
        InputError: Where they name a label that there is not.
    """

    labels: np.ndarray

    def __init__(
        self,
        path: str | os.PathLike[str],
        context_length: int,
        settings: ClassifierSettings,
    ) -> None:
        self.labels = np.load(_labels_path(path))
        self.names = json.loads(Path(_names_path(path)).read_text())
        framed = read_lengths(path) + 2
        self._ends = np.cumsum(framed)
        self._is_cut = framed > context_length
        self._settings = settings
        super().__init__(path, context_length, "lines")

    @property
    def decisions(self) -> int:
        """Targets of a row."""
        return self.labels.shape[1] if self.labels.ndim > 1 else 1

    def training_batches(
        self, batch_size: int, *, seed: int, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        batches = super().training_batches(
            batch_size, seed=seed, first_step=first_step, last_step=last_step
        )
        batches = edited(
            batches, self, self._settings, seed=seed, first_step=first_step
        )
        if self._settings.class_weights is None:
            return batches
        of_label = tf.constant(self._class_weights(), tf.float32)

        def weigh(features: Any, targets: tf.Tensor, weights: tf.Tensor) -> Any:
            if self.labels.ndim > 1:
                own = tf.where(targets > 0, of_label, 1.0)
            else:
                own = tf.gather(of_label, targets)
            return features, targets, weights * own

        return batches.map(weigh)

    def _pieces(self) -> tuple[np.ndarray, np.ndarray]:
        framed = np.diff(self._ends, prepend=0)
        sizes = np.minimum(framed, self.context_length).astype(np.int32)
        return self._ends - framed, sizes

    def _batches(
        self,
        place: Callable[[int], np.ndarray],
        first: int,
        last: int,
        shape: tuple[int, int | None],
    ) -> tf.data.Dataset:
        rows = shape[0]

        def load(step: np.int64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            places = place(int(step))
            is_row = places[:, 0] < self.num_tokens
            number = np.searchsorted(self._ends, places[:, 0], side="right")
            number = np.where(is_row, number, 0)
            # A text is cut before its end, not after.
            cut = is_row & self._is_cut[number]
            places[cut, -1] = self._ends[number[cut]] - 1
            ids = self._read(places)
            self._let_go()
            return ids, self.labels[number], is_row

        def read(step: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            kinds = (tf.int32, tf.int32, tf.bool)
            ids, targets, is_row = tf.numpy_function(
                load, [step], kinds, stateful=False
            )
            ids = tf.ensure_shape(ids, shape)
            targets = tf.ensure_shape(targets, (rows, *self.labels.shape[1:]))
            is_row = tf.reshape(is_row, (rows, *[1] * (self.labels.ndim - 1)))
            features = self._features(ids)
            weights = tf.cast(is_row, tf.float32)
            return features, targets, tf.broadcast_to(weights, tf.shape(targets))

        return in_steps(read, first, last)

    def _class_weights(self) -> np.ndarray:
        """How much each label's examples count, `[c]`."""
        names, given = self.names, self._settings.class_weights
        if isinstance(given, dict):
            for name in given:
                if name not in names:
                    raise InputError(
                        f"trainer.classifier.class_weights: no document of train has "
                        f"the label {name!r}: there are {', '.join(names)}"
                    )
            return np.array([given.get(name, 1.0) for name in names])
        return balanced(self.labels)


def balanced(labels: np.ndarray) -> np.ndarray:
    """Weights by which all labels count alike in sum, and documents 1 on average.

    Args:
        labels: The numbers of the labels, `[n]`; or zeros and ones `[n, c]`: then a
            label's documents count as much in sum as those without it.
    """
    if labels.ndim > 1:
        has = labels.sum(axis=0)
        return (len(labels) - has) / np.maximum(has, 1)
    counts = np.bincount(labels)
    return len(labels) / (len(counts) * np.maximum(counts, 1))


def _labels_path(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.labels.npy"


def _names_path(path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}.labels.json"
