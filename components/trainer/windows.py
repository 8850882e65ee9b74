"""Training windows: documents as one stream of token ids, cut into equal pieces."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

_READ_BATCH = 512
_PADDING = -1  # no token: the padding token can be one of the text, too


class TokenWindows:
    """Windows of one context length over the concatenated documents of a split.

    The stream is `<s> tokens </s>` document after document. Window `i` predicts the
    tokens `i * context_length + 1 ... (i + 1) * context_length` of the stream, so every
    token but the very first is a target exactly once an epoch; `<s>` and the padding
    at the end of the stream have weight zero.

    Two orders of an epoch's windows are on offer: shuffled, and contiguous, where row
    `i` of a batch goes on where row `i` of the batch before ended. For the latter the
    windows are dealt out to the rows in equal runs; the last rows may lack some, and
    have windows of padding in their place.

    The stream lies in a file that is mapped into memory, so memory does not grow with
    the corpus and any window can be read at once: the batch of a step is a function
    of seed and step alone, which is what lets a killed run go on where it stopped.

    Args:
        path: File that `write` has written.
        context_length: Tokens in a window.
    """

    def __init__(self, path: str | os.PathLike[str], context_length: int) -> None:
        layout = json.loads(_layout_path(path).read_text())
        self._stream = np.memmap(path, dtype=layout["dtype"], mode="r")
        self._start_id = layout["start_id"]
        self._end_id = layout["end_id"]
        self._pad_id = layout["pad_id"]
        self.context_length = context_length
        self.num_tokens = len(self._stream)

    @staticmethod
    def write(
        path: str | os.PathLike[str],
        documents: Iterable[np.ndarray],
        *,
        vocabulary_size: int,
        start_id: int,
        end_id: int,
        pad_id: int,
    ) -> None:
        """Writes the stream of `documents`, each an integer array `[num_tokens]`."""
        dtype = np.uint16 if vocabulary_size <= 2**16 else np.uint32
        with open(path, "wb") as file:
            for document in documents:
                framed = np.concatenate([[start_id], document, [end_id]])
                file.write(framed.astype(dtype).tobytes())
        layout = {
            "dtype": np.dtype(dtype).name,
            "start_id": start_id,
            "end_id": end_id,
            "pad_id": pad_id,
        }
        _layout_path(path).write_text(json.dumps(layout))

    def __len__(self) -> int:
        return max(0, -(-(self.num_tokens - 1) // self.context_length))

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Reads windows.

        Args:
            indices: Window numbers, int64 `[batch]`.

        Returns:
            Inputs and, one place on, targets: int32 `[batch, context_length + 1]`, -1
            behind the end of the stream.
        """
        offsets = indices[:, None] * self.context_length
        positions = offsets + np.arange(self.context_length + 1)
        inside = positions < self.num_tokens
        ids = self._stream[np.where(inside, positions, 0)].astype(np.int32)
        return np.where(inside, ids, np.int32(_PADDING))

    def steps_an_epoch(self, batch_size: int) -> int:
        """Contiguous batches that hold every window once."""
        return -(-len(self) // batch_size)

    def training_batches(
        self, batch_size: int, *, seed: int, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        """Batches of steps `first_step ... last_step - 1`, reshuffled every epoch.

        Yields:
            `(inputs, targets, weights)` as a Keras model takes them: inputs
            `{"token_ids": int32[b, t], "padding_mask": bool[b, t]}`, targets
            int32 `[b, t]`, weights float32 `[b, t]`.
        """
        number = len(self)

        # A batch may reach into the next epoch: two orders are alive at a time.
        @functools.lru_cache(maxsize=2)
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng((seed, epoch)).permutation(number)

        def load(step: np.int64) -> np.ndarray:
            places = np.arange(step * batch_size, (step + 1) * batch_size)
            indices = [order(int(i // number))[i % number] for i in places]
            return self.rows(np.array(indices))

        return self._batches(load, first_step, last_step, batch_size)

    def evaluation_batches(self, batch_size: int) -> tf.data.Dataset:
        """All windows once, in contiguous order."""
        return self.contiguous_batches(
            batch_size, first_step=0, last_step=self.steps_an_epoch(batch_size)
        )

    def contiguous_batches(
        self, batch_size: int, *, first_step: int, last_step: int
    ) -> tf.data.Dataset:
        """Batches of steps `first_step ... last_step - 1`, alike in every epoch.

        Yields:
            What `training_batches` yields. Within an epoch of `steps_an_epoch` steps
            row `i` of a batch goes on where row `i` of the batch before ended.
        """
        steps = self.steps_an_epoch(batch_size)

        def load(step: np.int64) -> np.ndarray:
            return self.rows(np.arange(batch_size) * steps + step % steps)

        return self._batches(load, first_step, last_step, batch_size)

    def _batches(
        self, load: object, first: int, last: int, batch_size: int
    ) -> tf.data.Dataset:
        shape = (batch_size, self.context_length + 1)

        def read(step: tf.Tensor) -> tf.Tensor:
            rows = tf.numpy_function(load, [step], tf.int32, stateful=False)
            return tf.ensure_shape(rows, shape)

        def split(
            rows: tf.Tensor,
        ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            inside = rows != _PADDING
            ids = tf.where(inside, rows, self._pad_id)
            inputs, targets = ids[:, :-1], ids[:, 1:]
            # Start, end and padding may be one token, as GPT-2's are.
            begins = (targets == self._start_id) & (inputs == self._end_id)
            ignored = begins | ~inside[:, 1:]
            features = {"token_ids": inputs, "padding_mask": inside[:, :-1]}
            return features, targets, tf.cast(~ignored, tf.float32)

        return (
            tf.data.Dataset.range(first, last)
            .map(read, num_parallel_calls=1)
            .map(split)
            .prefetch(tf.data.AUTOTUNE)
        )


def read_token_ids(
    file_patterns: Sequence[str], transform_graph_path: str
) -> Iterator[np.ndarray]:
    """Reads the feature `token_ids` of transformed examples, a document at a time.

    Args:
        file_patterns: Gzipped TFRecord files.
        transform_graph_path: The graph that made them; it says how they are encoded.

    Yields:
        int64 `[num_tokens]`, without start and end tokens.
    """
    files = sorted(tf.io.gfile.glob(list(file_patterns)))
    transform = tft.TFTransformOutput(transform_graph_path)
    spec = transform.transformed_feature_spec()
    dataset = (
        tf.data.TFRecordDataset(files, compression_type="GZIP")
        .batch(_READ_BATCH)
        .map(lambda records: tf.io.parse_example(records, spec)["token_ids"])
    )
    for batch in dataset:
        yield from np.split(batch.values.numpy(), batch.row_splits.numpy()[1:-1])


def _layout_path(path: str | os.PathLike[str]) -> Path:
    return Path(f"{path}.json")
