"""Documents of any length, read by models that see both ways, in bounded memory.

A document longer than the context is read in windows that overlap, those of `windows`,
and each token is told by the window that it is most in the middle of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from .windows import Chunk, Inputs, Windows, map_windows, overlapping_windows


class Told(NamedTuple):
    """Windows, and the columns of each whose tokens it tells, from first to last."""

    windows: Windows
    first: tf.Tensor
    last: tf.Tensor


def told_windows(documents: tf.RaggedTensor, context: int, stride: int) -> Told:
    """The windows of documents.

    Args:
        documents: int32 `[b, (t)]`, none of them empty.
        context: Tokens of a window at most.
        stride: Distance between windows, from 1 to that.
    """
    ids, starts = documents.flat_values, documents.row_starts()
    lengths = documents.row_lengths()
    windows, of, _ = overlapping_windows(
        ids, starts, lengths, context=context, stride=stride
    )
    offset = windows.begin - tf.gather(starts, of)
    margin = (context - stride) // 2
    is_last = offset + windows.length == tf.gather(lengths, of)
    return Told(
        windows,
        tf.where(offset == 0, tf.zeros_like(offset), margin),
        tf.where(is_last, windows.length, stride + margin),
    )


def map_asked(
    model: Any,
    documents: tf.RaggedTensor,
    is_asked: tf.Tensor,
    function: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]],
    specs: tuple[tf.TensorSpec, ...],
    *,
    stride: int,
) -> tuple[tf.Tensor, ...]:
    """What a function says of some tokens, by what a model says of them.

    Args:
        model: a `MaskedLM`, whose tokens are hidden where they are asked for, or what
            has its `hidden_states` and `logits`.
        documents: int32 `[b, (t)]`, as the model reads them, none of them empty.
        is_asked: bool `[n]`, of which of their flat values.
        function: from float32 logits `[m, v]`, and which of the flat values these are
            of, int64 `[m]`, to tensors `[m, ...]`.
        specs: shapes `[None, ...]` and dtypes of these.
        stride: int in [1, context length]. Distance between windows.

    Returns:
        `[k, ...]` for each tensor of the function: of all that is asked, in order.
    """
    told = told_windows(documents, model.context_length, stride)

    def of_chunk(features: Inputs, chunk: Chunk) -> tuple[tf.Tensor, ...]:
        column = tf.range(tf.shape(chunk.position, tf.int64)[1])
        is_told = chunk.inside_from(told.first)
        is_told &= column < tf.gather(told.last, chunk.rows)[:, tf.newaxis]
        is_told &= tf.gather(is_asked, chunk.position)
        states = model.hidden_states(features)  # [c, w, D]
        position = chunk.position[is_told]
        return position, *function(model.logits(states[is_told]), position)

    specs = (tf.TensorSpec([None], tf.int64), *specs)
    position, *results = map_windows(model, told.windows, of_chunk, specs)
    order = tf.argsort(position)
    return tuple(tf.gather(result, order) for result in results)
