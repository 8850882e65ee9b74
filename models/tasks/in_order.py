"""Documents read in order, so that what is remembered goes on from token to token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ..backbone import require
from .results import Into, Results, added
from .windows import Chunk, Windows, chunk_of, inputs_of, rows_in_chunk


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
    function: Callable[[Reading, Any], tuple[Results, Any]],
    into: Into,
    *,
    stride: int,
    memory: Callable[[tf.Tensor, tf.Tensor], Any] = lambda rows, longest: (),
) -> Any:
    """What a function says of every token, which remembers the document so far.

    The windows are those of `map_tokens`; with stride 0 the model's state goes on from
    one to the next.

    Args:
        model: as of `map_tokens`; likewise `documents`, `into` and `stride`.
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
    reader = _InOrder(model, documents, function, into, stride, memory)
    count = tf.size(reader.lengths)

    # Of no document, but with room for those that there are: sizes that are not known.
    empty = reader.fresh(tf.constant(0), tf.reduce_max(reader.lengths))
    found = into.start(reader.lengths)
    scalar = tf.TensorShape([])
    rows_unknown, of_found = (
        tf.nest.map_structure(shape, part)
        for shape, part in ((_of_any_rows, empty), (_shape, found))
    )
    *_, found = tf.while_loop(
        lambda first, *_: first < count,
        reader.read,
        (0, tf.constant(0, tf.int64), empty, found),
        shape_invariants=(scalar, scalar, rows_unknown, of_found),
        parallel_iterations=1,
    )
    return into.end(found, reader.lengths)


def _of_any_rows(tensor: tf.Tensor) -> tf.TensorShape:
    return tf.TensorShape([None, *tensor.shape[1:]])


def _shape(found: Any) -> tf.TensorShape:
    return found.shape if tf.is_tensor(found) else tf.TensorShape(None)


class _InOrder:
    """Reads documents chunk after chunk, and a chunk's windows one after the other.

    See `map_in_order` for the arguments. What is carried from window to window is the
    model's state and the memory.
    """

    def __init__(
        self,
        model: Any,
        documents: tf.RaggedTensor,
        function: Callable[[Reading, Any], tuple[Results, Any]],
        into: Into,
        stride: int,
        memory: Callable[[tf.Tensor, tf.Tensor], Any],
    ) -> None:
        self._model, self._stride = model, stride
        self._function, self._into, self._memory = function, into, memory
        self._ids, self._starts = documents.flat_values, documents.row_starts()
        self.lengths = documents.row_lengths() - 1
        self._order = tf.argsort(self.lengths, direction="DESCENDING", stable=True)

    def fresh(self, rows: tf.Tensor, longest: tf.Tensor) -> tuple[Any, Any]:
        """What is carried before any token of so many documents."""
        state = () if self._stride else self._model.backbone.empty_cache(rows)
        carried = (state, self._memory(rows, longest))
        return tf.nest.map_structure(tf.convert_to_tensor, carried)

    def read(
        self, first: tf.Tensor, at: tf.Tensor, carried: tuple[Any, Any], found: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tuple[Any, Any], Any]:
        """Reads the window at token `at` of a chunk, the first in it being `first`.

        Returns:
            The next of both, what is carried there, and what is found with it.
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
        rows = tf.cast(self._order[first:last], tf.int64)
        chunk = chunk_of(windows, rows, width)
        seen = tf.where(at == 0, 0, context - stride) if stride else 0
        reading, state = self._reading(chunk, state, seen)
        results, remembered = self._function(reading, remembered)
        position, inside = chunk.position[:, seen:], chunk.inside[:, seen:]
        found = added(self._into, found, inside, position, rows, results)
        is_read = at + width >= longest
        return (
            tf.where(is_read, last, first),
            tf.where(is_read, tf.zeros_like(at), at + (stride or width)),
            (state, remembered),
            found,
        )

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
