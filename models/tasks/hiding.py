"""Which tokens of a text are hidden, for a model to say what they are.

In shapes: B rows, T positions, M of them hidden at most.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

SHARE = 0.15
"""Of the tokens, where a model is evaluated: each hidden by the mask, one by one.

What training hides has no part in this, so that models of all kinds of training are
measured alike.
"""
_HASHES = 2**53  # As many as a float64 tells apart.


class Hidden(NamedTuple):
    """Places of tokens: `positions` int32 `[B, M]`, `is_there` bool `[B, M]`."""

    positions: tf.Tensor
    is_there: tf.Tensor


def ordinary(tokenizer: Any) -> list[bool]:
    """Whether each id is of a token that may be hidden: of all but the special ones."""
    special = {*tokenizer.special_token_ids, tokenizer.mask_token_id}
    size = max(tokenizer.vocabulary_size(), tokenizer.mask_token_id + 1)
    return [token not in special for token in range(size)]


def fewest(
    numbers: tf.Tensor,
    is_ordinary: tf.Tensor,
    share: float,
    units: tf.Tensor | None = None,
) -> Hidden:
    """The tokens with the lowest numbers, a share of those that may be hidden.

    There is one at least, where one may be. Of a unit, such as a word, all tokens are
    hidden or none, but for the first unit, if it has more than the share.

    Args:
        numbers: float `[B, T]`; alike in a unit.
        is_ordinary: bool `[B, T]`, which tokens may be hidden.
        share: in (0, 1).
        units: int32 `[B, T]`, the unit of each token; by default it is one.
    """
    length: Any = numbers.shape[1] or tf.shape(numbers)[1]
    most: Any = tf.cast(tf.math.ceil(share * tf.cast(length, tf.float64)), tf.int32)
    if numbers.shape[1] is not None:
        most = math.ceil(share * length)
    count = tf.reduce_sum(tf.cast(is_ordinary, tf.int32), axis=1)  # [B]
    wanted = tf.cast(tf.round(share * tf.cast(count, tf.float32)), tf.int32)
    wanted = tf.minimum(tf.maximum(wanted, 1), count)
    last = numbers.dtype.max
    numbers = tf.where(is_ordinary, numbers, last)
    # Of equal ones, those of a unit, the lower position comes first.
    _, positions = tf.math.top_k(-numbers, tf.minimum(most + 1, length))
    rank = tf.range(tf.shape(positions)[1])
    is_there = rank < wanted[:, tf.newaxis]
    if units is not None:
        of = tf.gather(units, positions, batch_dims=1)
        next_one = tf.minimum(wanted, tf.shape(of)[1] - 1)[:, tf.newaxis]
        cut = tf.gather(of, next_one, batch_dims=1)  # [B, 1]
        cut = tf.where(wanted[:, tf.newaxis] < count[:, tf.newaxis], cut, -1)
        is_first = of == of[:, :1]
        is_there &= (of != cut) | is_first
    return Hidden(positions[:, :most], is_there[:, :most])


def of_evaluation(
    rows: tf.RaggedTensor, names: tf.Tensor, is_ordinary: list[bool]
) -> Hidden:
    """What is hidden where a model is evaluated: decided by a hash of each row's name.

    So it is the same whatever else is in the batch.

    Args:
        rows: int32 `[B, (t)]`.
        names: string `[B]`, such as the texts themselves.
        is_ordinary: Of each id, whether it may be hidden.
    """
    row = rows.value_rowids()
    place = tf.range(tf.size(row, tf.int64)) - tf.gather(rows.row_starts(), row)
    seeds = tf.strings.as_string(tf.strings.to_hash_bucket_fast(names, _HASHES))
    both = [tf.gather(seeds, row), tf.strings.as_string(place)]
    hashes = tf.strings.to_hash_bucket_fast(tf.strings.join(both, " "), _HASHES)
    numbers = rows.with_flat_values(tf.cast(hashes, tf.float64)).to_tensor()
    may_be = rows.with_flat_values(tf.gather(is_ordinary, rows.flat_values))
    return fewest(numbers, may_be.to_tensor(), SHARE)


def replaced(token_ids: tf.Tensor, hidden: Hidden, by: Any) -> tf.Tensor:
    """Ids `[B, T]` with others, a scalar or `[B, M]`, in the hidden places."""
    rows, _ = tf.unstack(tf.shape(hidden.positions))
    row = tf.broadcast_to(tf.range(rows)[:, tf.newaxis], tf.shape(hidden.positions))
    at = tf.stack([row, hidden.positions], axis=-1)  # [B, M, 2]
    own = tf.gather(token_ids, hidden.positions, batch_dims=1)
    return tf.tensor_scatter_nd_update(
        token_ids, at, tf.where(hidden.is_there, tf.cast(by, token_ids.dtype), own)
    )
