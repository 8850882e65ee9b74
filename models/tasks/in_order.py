"""Documents read in order, so that what is remembered goes on from token to token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ..backbone import require
from .windows import (
    Chunk,
    Windows,
    arrays_of,
    by_document,
    chunk_of,
    concatenated,
    inputs_of,
    rows_in_chunk,
)


class Reading(NamedTuple):
    """The new columns of a window of some documents, as `map_in_order` reads them.

    `rows` int64 `[c]` are the documents; `following` int32 `[c, n]` the tokens to
    predict; `hidden_states` `[c, n, d]`, or what stands for them where a family has
    none, and float32 `logits` `[c, n, v]` are the model's.
    """

    rows: tf.Tensor
    following: tf.Tensor
    hidden_states: tf.Tensor
    logits: tf.Tensor


def map_in_order(
    model: Any,
    documents: tf.RaggedTensor,
    function: Callable[[Reading, Any], tuple[tuple[tf.Tensor, ...], Any]],
    specs: tuple[tf.TensorSpec, ...],
    *,
    stride: int,
    memory: Callable[[tf.Tensor, tf.Tensor], Any] = lambda rows, longest: (),
) -> tuple[tf.RaggedTensor, ...]:
    """What a function says of every token, which remembers the document so far.

    The windows are those of `map_tokens`; with stride 0 the model's state goes on from
    one to the next.

    Args:
        model: as of `map_tokens`; likewise `documents`, `specs` and `stride`.
        function: from a `Reading` and the memory of its documents to tensors
            `[c, n, ...]` and the next memory.
        memory: the one before any token, a nest of tensors `[c, ...]`, given c and the
            length of the longest of these documents.

    Raises:
        ValueError: if the stride is 0, and the model has no state that goes on.
    """
    require(
        stride > 0 or hasattr(model.backbone, "call_with_state"),
        "A stride of 0 is for recurrent models, whose state goes on.",
        backbone=model.backbone.name,
    )
    reader = _InOrder(model, documents, function, stride, memory)
    count = tf.size(reader.lengths)
    specs = (tf.TensorSpec([None], tf.int64), *specs)

    def body(
        first: tf.Tensor, at: tf.Tensor, step: tf.Tensor, carried: Any, arrays: tuple
    ) -> tuple:
        following, carried, results = reader.read(first, at, carried)
        written = tuple(
            array.write(step, result)
            for array, result in zip(arrays, results, strict=True)
        )
        return *following, step + 1, carried, written

    # Of no document, but with room for those that there are: sizes that are not known.
    empty = reader.fresh(tf.constant(0), tf.reduce_max(reader.lengths))
    arrays = arrays_of(specs)
    rows_unknown = tf.nest.map_structure(
        lambda tensor: tf.TensorShape([None, *tensor.shape[1:]]), empty
    )
    scalars, of_arrays = [tf.TensorShape([])] * 3, [tf.TensorShape(None)] * len(arrays)
    *_, arrays = tf.while_loop(
        lambda first, *_: first < count,
        body,
        (0, tf.constant(0, tf.int64), 0, empty, arrays),
        shape_invariants=(*scalars, rows_unknown, tuple(of_arrays)),
        parallel_iterations=1,
    )
    return by_document(concatenated(arrays, specs), reader.lengths)


class _InOrder:
    """Reads documents chunk after chunk, and a chunk's windows one after the other.

    See `map_in_order` for the arguments. What is carried from window to window is the
    model's state and the memory.
    """

    def __init__(
        self,
        model: Any,
        documents: tf.RaggedTensor,
        function: Callable[[Reading, Any], tuple[tuple[tf.Tensor, ...], Any]],
        stride: int,
        memory: Callable[[tf.Tensor, tf.Tensor], Any],
    ) -> None:
        self._model, self._stride = model, stride
        self._function, self._memory = function, memory
        self._ids, self._starts = documents.flat_values, documents.row_starts()
        self.lengths = documents.row_lengths() - 1
        self._order = tf.argsort(self.lengths, direction="DESCENDING", stable=True)

    def fresh(self, rows: tf.Tensor, longest: tf.Tensor) -> tuple[Any, Any]:
        """What is carried before any token of so many documents."""
        state = () if self._stride else self._model.backbone.empty_cache(rows)
        carried = (state, self._memory(rows, longest))
        return tf.nest.map_structure(tf.convert_to_tensor, carried)

    def read(
        self, first: tf.Tensor, at: tf.Tensor, carried: tuple[Any, Any]
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], tuple[Any, Any], tuple[tf.Tensor, ...]]:
        """Reads the window at token `at` of a chunk, the first in it being `first`.

        Returns:
            The next of both, what is carried there, and of each new token its position
            and the results.
        """
        context, stride = self._model.context_length, self._stride
        longest = self.lengths[self._order[first]]
        number = rows_in_chunk(self._model, tf.minimum(longest, context))
        last = tf.minimum(first + number, tf.size(self._order))
        state, remembered = tf.cond(
            at == 0, lambda: self.fresh(last - first, longest), lambda: carried
        )
        width = tf.minimum(longest - at, context)
        # Of a document that has ended before, its last token is read.
        windows = Windows(self._ids, self._starts + at, self.lengths - at)
        chunk = chunk_of(windows, self._order[first:last], width)
        seen = tf.where(at == 0, 0, context - stride) if stride else 0
        reading, state = self._reading(chunk, state, seen)
        results, remembered = self._function(reading, remembered)
        position, inside = chunk.position[:, seen:], chunk.inside[:, seen:]
        is_read = at + width >= longest
        following = (
            tf.where(is_read, last, first),
            tf.where(is_read, tf.zeros_like(at), at + (stride or width)),
        )
        told = tuple(result[inside] for result in (position, *results))
        return following, (state, remembered), told

    def _reading(
        self, chunk: Chunk, state: Any, seen: tf.Tensor | int
    ) -> tuple[Reading, Any]:
        """What the model says of a chunk but for the first columns, and its state."""
        model, backbone = self._model, self._model.backbone
        features = inputs_of(model, self._ids, chunk)
        if not self._stride:
            tokens = features["token_ids"]
            hidden, state = backbone.call_with_state(tokens, state, training=False)
            logits = backbone.logits(hidden)
        elif has_hidden_states(model):
            hidden = backbone(features, training=False)
            logits = backbone.logits(hidden)
        else:
            hidden = logits = model(features, training=False)
        following = tf.gather(self._ids, chunk.position + 1)
        parts = (following, hidden, tf.cast(logits, tf.float32))
        return Reading(chunk.rows, *(part[:, seen:] for part in parts)), state


def has_hidden_states(model: Any) -> bool:
    """Whether likeness of the backbone's outputs is likeness of contexts."""
    family = getattr(model.backbone, "family", None)
    return family is not None and bool(family.has_hidden_states)
