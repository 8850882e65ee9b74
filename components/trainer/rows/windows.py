"""Training windows: documents as one stream of token ids, cut into equal pieces."""

from __future__ import annotations

import functools
import json
import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from ....models.tokenizers.base import TextTokenizer
from ... import large_buffers
from ...documents import batched

PADDING = -1  # no token: the padding token can be one of the text, too


class TokenStream:
    """The documents of a split in a file, and batches of what lies in it.

    The stream is `<s> tokens </s>` document after document. A token is predicted from
    those before it; `<s>` never is. A subclass says what lies in which row of which
    batch: see `TokenWindows` and `packing.PackedWindows`.

    The file is mapped into memory, so memory does not grow with the corpus and any
    place can be read at once: the batch of a step is a function of seed and step alone,
    which is what lets a killed run go on where it stopped.

    Args:
        path: File that `write` has written.
        context_length: Tokens that a row has room for.
    """

    def __init__(self, path: str | os.PathLike[str], context_length: int) -> None:
        self._path = path
        layout = _layout(path)
        with open(path, "rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._stream = np.frombuffer(self._mapped, layout["dtype"])
        self.start_id = layout["start_id"]
        self.end_id = layout["end_id"]
        self.unk_id = layout["unk_id"]
        self.pad_id = layout["pad_id"]
        self.context_length = context_length
        self.num_tokens = len(self._stream)

    labels: Sequence[Any] | np.ndarray | None = None
    """What the documents, or their words, are labelled, where that is learned."""

    @property
    def decisions(self) -> int:
        """Targets of a row, where a row is a document and they are of it as a whole."""
        return 1

    @staticmethod
    def write(
        path: str | os.PathLike[str],
        documents: Iterable[np.ndarray],
        *,
        vocabulary_size: int,
        start_id: int,
        end_id: int,
        pad_id: int,
        unk_id: int | None = None,
    ) -> None:
        """Writes the stream of `documents`, each an integer array `[num_tokens]`.

        `unk_id` is for `augmentation.augmented` alone.
        """
        dtype = np.uint16 if vocabulary_size <= 2**16 else np.uint32
        layout = {
            "dtype": np.dtype(dtype).name,
            "start_id": start_id,
            "end_id": end_id,
            "pad_id": pad_id,
            "unk_id": unk_id,
        }
        _write(path, documents, layout)

    def training_batches(
        self, batch_size: int, *, seed: int, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        """Batches of steps `first_step ... last_step - 1`, reshuffled every epoch.

        Yields:
            `(inputs, targets, weights)` as a Keras model takes them: inputs
            `{"token_ids": int32[b, t], "padding_mask": bool[b, t]}`, targets
            int32 `[b, t]`, weights float32 `[b, t]`.
        """
        raise NotImplementedError

    def evaluation_batches(
        self, batch_size: int, most: int | None = None
    ) -> tf.data.Dataset:
        """Every token once as a target, in an order that is always the same.

        Args:
            batch_size: Rows of a batch.
            most: At most so many of the batches, from all over the stream.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def steps_an_epoch(self, batch_size: int) -> int:
        """Batches that hold every token once as a target, some of them padded."""
        raise NotImplementedError

    def targets_a_step(self, batch_size: int) -> float:
        """Places for target tokens in a step of training, on average."""
        raise NotImplementedError

    def _batches(
        self,
        place: Callable[[int], np.ndarray],
        first: int,
        last: int,
        shape: tuple[int, int | None],
    ) -> tf.data.Dataset:
        """Batches of what lies in given places of the stream, and behind them.

        Args:
            place: The places of a step's inputs, int64 of that shape; each one's target
                lies one place on. What is behind the end of the stream is padding.
            first: The first step.
            last: The step before which to stop.
            shape: Rows of a batch, and their length, `None` where it varies.
        """

        def load(step: np.int64) -> np.ndarray:
            places = place(int(step))
            pairs = np.stack([self._read(places), self._read(places + 1)])
            self._let_go()
            return pairs

        def read(step: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            pairs = tf.numpy_function(load, [step], tf.int32, stateful=False)
            pairs = tf.ensure_shape(pairs, (2, *shape))
            inside = pairs != PADDING
            ids = tf.where(inside, pairs, self.pad_id)
            inputs, targets = ids[0], ids[1]
            # Start, end and padding may be one token, as GPT-2's are.
            begins = (targets == self.start_id) & (inputs == self.end_id)
            ignored = begins | ~inside[1]
            features = {"token_ids": inputs, "padding_mask": inside[0]}
            return features, targets, tf.cast(~ignored, tf.float32)

        return in_steps(read, first, last)

    def _read(self, places: np.ndarray) -> np.ndarray:
        inside = places < self.num_tokens
        ids = self._stream[np.where(inside, places, 0)].astype(np.int32)
        return np.where(inside, ids, np.int32(PADDING))

    def _features(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """What a model is given of tokens, as `_read` gives them."""
        inside = ids != PADDING
        tokens = tf.where(inside, ids, self.pad_id)
        return {"token_ids": tokens, "padding_mask": inside}

    def _let_go(self) -> None:
        """All that was read would stay in memory until others want it."""
        self._mapped.madvise(mmap.MADV_DONTNEED)


def in_steps(
    read: Callable[[tf.Tensor], Any], first: int, last: int
) -> tf.data.Dataset:
    """What is read for each step, from the first to before the last, in advance."""
    return (
        tf.data.Dataset.range(first, last)
        .map(read, num_parallel_calls=1)
        .prefetch(tf.data.AUTOTUNE)
    )


class TokenWindows(TokenStream):
    """Windows of one context length over the stream, wherever documents end.

    Window `i` predicts the tokens `i * context_length + 1 ... (i + 1) * context_length`
    of the stream, so every token but the very first is a target exactly once an epoch;
    `<s>` and the padding at the end of the stream have weight zero.

    Two orders of an epoch's windows are on offer: shuffled, and contiguous, where row
    `i` of a batch goes on where row `i` of the batch before ended. For the latter the
    windows are dealt out to the rows in equal runs; the last rows may lack some, and
    have windows of padding in their place.

    Where an epoch is repacked, the windows lie over its documents in an order of its
    own, and with shuffled ones the first is shorter by a number that is drawn, too: a
    window ends elsewhere even in a single document. For that 16 bytes a document are
    kept of an epoch.

    Args:
        path: File that `write` has written.
        context_length: Tokens in a window.
    """

    def __len__(self) -> int:
        return max(0, -(-(self.num_tokens - 1) // self.context_length))

    def steps_an_epoch(self, batch_size: int) -> int:
        """Contiguous batches that hold every window once."""
        return -(-len(self) // batch_size)

    def training_batches(
        self,
        batch_size: int,
        *,
        seed: int,
        first_step: int,
        last_step: int,
        repack: bool = False,
    ) -> tf.data.Dataset:
        """As of `TokenStream`; `repack` puts documents in a new order every epoch."""
        number = len(self) + repack  # A shorter window makes one more.

        # A batch may reach into the next epoch: two orders are alive at a time.
        @functools.lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng((seed, epoch)).permutation(number)

        @functools.lru_cache(maxsize=2)
        def places(epoch: int) -> Callable[[np.ndarray], np.ndarray]:
            if not repack:
                return self._places
            return self._repacked(seed, epoch, shift=True)

        def place(step: int) -> np.ndarray:
            turns = np.arange(step * batch_size, (step + 1) * batch_size)
            epochs = turns // number
            return np.concatenate(
                [
                    places(epoch)(order(epoch)[turns[epochs == epoch] % number])
                    for epoch in range(epochs[0], epochs[-1] + 1)
                ]
            )

        return self._batches(place, first_step, last_step, self._shape(batch_size))

    def evaluation_batches(
        self, batch_size: int, most: int | None = None
    ) -> tf.data.Dataset:
        """All windows once, or the first of each row, in contiguous order."""
        steps = self.steps_an_epoch(batch_size)
        last = steps if most is None else min(most, steps)
        return self.contiguous_batches(batch_size, first_step=0, last_step=last)

    def contiguous_batches(
        self,
        batch_size: int,
        *,
        first_step: int,
        last_step: int,
        repack_seed: int | None = None,
    ) -> tf.data.Dataset:
        """Batches of steps `first_step ... last_step - 1`, alike in every epoch.

        But with a `repack_seed` the documents are in a new order in each.

        Yields:
            What `training_batches` yields. Within an epoch of `steps_an_epoch` steps
            row `i` of a batch goes on where row `i` of the batch before ended.
        """
        steps = self.steps_an_epoch(batch_size)

        @functools.lru_cache(maxsize=1)
        def places(epoch: int) -> Callable[[np.ndarray], np.ndarray]:
            if repack_seed is None:
                return self._places
            return self._repacked(repack_seed, epoch)

        def place(step: int) -> np.ndarray:
            windows = np.arange(batch_size) * steps + step % steps
            return places(step // steps)(windows)

        return self._batches(place, first_step, last_step, self._shape(batch_size))

    def targets_a_step(self, batch_size: int) -> float:
        return batch_size * self.context_length

    def _shape(self, batch_size: int) -> tuple[int, int]:
        return batch_size, self.context_length

    def _places(self, windows: np.ndarray) -> np.ndarray:
        """Where the inputs of windows `[batch]` lie, `[batch, context_length]`."""
        return windows[:, None] * self.context_length + np.arange(self.context_length)

    def _repacked(
        self, seed: int, epoch: int, shift: bool = False
    ) -> Callable[[np.ndarray], np.ndarray]:
        """What `_places` is of an epoch with the documents in an order of its own.

        Args:
            seed: Of all orders.
            epoch: The epoch.
            shift: Whether the first window is shorter.
        """
        generator = np.random.default_rng((seed, epoch, 1))
        sizes = read_lengths(self._path) + 2
        order = generator.permutation(len(sizes))
        # From a place in the epoch to that in the stream, for each document in turn.
        ends = np.cumsum(sizes[order])
        ways = np.cumsum(sizes)[order] - ends
        left_out = generator.integers(self.context_length) if shift else 0

        def places(windows: np.ndarray) -> np.ndarray:
            begins = windows * self.context_length - left_out
            where = np.maximum(begins, 0)[:, None] + np.arange(self.context_length)
            inside = where < np.minimum(begins + self.context_length, ends[-1])[:, None]
            where = np.where(inside, where, 0)
            found = where + ways[np.searchsorted(ends, where, side="right")]
            return np.where(inside, found, self.num_tokens)

        return places


def write_documents(
    path: str | os.PathLike[str],
    file_patterns: Sequence[str],
    transform_graph_path: str,
    tokenizer: TextTokenizer,
) -> None:
    """Writes the stream of transformed examples; both as of `read_features`."""
    write_token_ids(
        path, read_token_ids(file_patterns, transform_graph_path), tokenizer
    )


@large_buffers.returned()
def write_token_ids(
    path: str | os.PathLike[str],
    documents: Iterable[np.ndarray],
    tokenizer: TextTokenizer,
) -> None:
    """Writes the stream of documents, each the ids of a tokenizer."""
    TokenStream.write(
        path,
        documents,
        vocabulary_size=tokenizer.vocabulary_size(),
        start_id=tokenizer.start_token_id,
        end_id=tokenizer.end_token_id,
        pad_id=tokenizer.pad_token_id,
        unk_id=tokenizer.unk_token_id,
    )


def read_token_ids(
    file_patterns: Sequence[str], transform_graph_path: str
) -> Iterator[np.ndarray]:
    """Reads the feature `token_ids`, as of `read_features`."""
    for (ids,) in read_features(file_patterns, transform_graph_path, "token_ids"):
        yield ids


def read_features(
    file_patterns: Sequence[str], transform_graph_path: str, *names: str
) -> Iterator[tuple[np.ndarray, ...]]:
    """Reads features of transformed examples, a document at a time.

    Args:
        file_patterns: Gzipped TFRecord files.
        transform_graph_path: The graph that made them; it says how they are encoded.
        names: Of the features, such as `token_ids`, without start and end tokens.

    Yields:
        The values of each, `[number]`.
    """
    files = sorted(tf.io.gfile.glob(list(file_patterns)))
    transform = tft.TFTransformOutput(transform_graph_path)
    spec = transform.transformed_feature_spec()
    records = tf.data.TFRecordDataset(files, compression_type="GZIP")
    for batch in batched(records.as_numpy_iterator()):
        parsed = tf.io.parse_example(batch, spec)
        yield from zip(*(_rows(parsed[name]) for name in names), strict=True)


def _rows(feature: tf.RaggedTensor) -> list[np.ndarray]:
    return np.split(feature.values.numpy(), feature.row_splits.numpy()[1:-1])


def bits_per_byte(loss: float, texts: Any) -> float:
    """Of a mean loss of the tokens and `</s>` of texts, see `Rows.figure`."""
    nats = loss * texts.targets + texts.spelling_nll
    return nats / (texts.bytes * math.log(2))


def read_documents(path: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """The documents that `TokenStream.write` has written, without start and end."""
    stream = np.memmap(path, _layout(path)["dtype"], "r")
    end = 0
    for length in read_lengths(path):
        begin, end = end, end + int(length) + 2
        yield np.asarray(stream[begin + 1 : end - 1])


def write_like(
    path: str | os.PathLike[str],
    other: str | os.PathLike[str],
    documents: Iterable[np.ndarray],
) -> None:
    """Writes the stream of documents with the ids and the dtype of another one's."""
    _write(path, documents, _layout(other))


def _write(
    path: str | os.PathLike[str],
    documents: Iterable[np.ndarray],
    layout: dict[str, Any],
) -> None:
    start, end = [layout["start_id"]], [layout["end_id"]]
    with open(path, "wb") as file, open(_lengths_path(path), "wb") as lengths:
        for document in documents:
            framed = np.concatenate([start, document, end])
            file.write(framed.astype(layout["dtype"]).tobytes())
            lengths.write(np.int64(len(document)).tobytes())
    _layout_path(path).write_text(json.dumps(layout))


def _layout(path: str | os.PathLike[str]) -> dict[str, Any]:
    return dict(json.loads(_layout_path(path).read_text()))


def read_lengths(path: str | os.PathLike[str]) -> np.ndarray:
    """The lengths of the documents that `TokenStream.write` has written, int64."""
    return np.fromfile(_lengths_path(path), np.int64)


def _layout_path(path: str | os.PathLike[str]) -> Path:
    return Path(f"{path}.json")


def _lengths_path(path: str | os.PathLike[str]) -> Path:
    return Path(f"{path}.lengths")
