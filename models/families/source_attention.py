"""Attention of one head to a source, and what it sees: weights and their sums.

In shapes: B sources of S tokens; N targets of T, N a multiple of B, each source's
targets in a row; A width of queries and keys, U of values.
"""

from __future__ import annotations

from keras import ops

from ..backbone import Tensor
from ..encoder_decoder import by_source, by_target

MASKED = -3e4
"""The score of padding; finite in half precision."""


def dot_weights(query: Tensor, keys: Tensor, padding_mask: Tensor) -> Tensor:
    """How much each position attends to each of its source, by products.

    Args:
        query: tensor of shape `(N, T, A)`.
        keys: tensor of shape `(B, S, A)`.
        padding_mask: bool tensor of shape `(B, S)`, false where there is padding.

    Returns:
        A tensor of shape `(B, N / B * T, S)`; the last axis sums to one.
    """
    query = by_source(query, keys)  # (B, N / B * T, A)
    return weights_of(ops.matmul(query, ops.swapaxes(keys, 1, 2)), padding_mask)


def weights_of(scores: Tensor, padding_mask: Tensor) -> Tensor:
    """The weights of scores `(B, R, S)`; see `dot_weights`."""
    hidden = ops.cast(ops.logical_not(padding_mask), scores.dtype)
    return ops.softmax(scores + hidden[:, None] * MASKED, axis=-1)


def seen(weights: Tensor, values: Tensor, like: Tensor) -> Tensor:
    """The weighted sums of values.

    Args:
        weights: tensor of shape `(B, N / B * T, S)`.
        values: tensor of shape `(B, S, U)`.
        like: tensor of shape `(N, T, ...)`.

    Returns:
        A tensor of shape `(N, T, U)`.
    """
    return by_target(ops.matmul(weights, values), like)
