"""Causal attention in blocks: exact, in memory that grows with the length alone.

A block of queries looks at one block of keys after another, and keeps of each row the
largest score, the sum of the powers and the weighted sum of the values so far. The way
back computes the weights of each pair of blocks anew, from the logarithm of that sum.

In shapes: B rows of T positions; H query heads, G for each of K heads of keys and
values, all of width D. N blocks of L positions; a block's queries are G * L.

References:
    - [Rabe and Staats, 2021](https://arxiv.org/abs/2112.05682)
    - [Dao et al., 2022](https://arxiv.org/abs/2205.14135)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...backbone import Tensor

_LENGTH = 256
"""Positions of a block, at most."""
MASKED = -3e4
"""The score of a position that must not be seen; finite in half precision."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    first: Tensor,
    *,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """What the heads see where each position sees those from a first one to itself.

    Args:
        query: tensor of shape `(batch_size, num_heads, length, head_dim)`, scaled.
        key: tensor of shape `(batch_size, num_key_value_heads, length, head_dim)`.
        value: tensor of that shape.
        first: int32 tensor of shape `(batch_size, length)` or `(1, length)`.
        dropout: float. Dropout on the attention weights. Defaults to 0.
        seed: int32 tensor of shape `(2,)`, of the dropout.

    Returns:
        A tensor of the shape of `query`.
    """

    @tf.custom_gradient
    def of(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Any]:
        blocks = _Blocks(query, key, value, first, dropout, seed)
        heads, log_sums = blocks.forward()  # (N, B, K, G * L, D), (N, B, K, G * L, 1)

        def backward(d_heads: Tensor) -> tuple[Tensor, ...]:
            return blocks.backward(heads, log_sums, d_heads)

        return blocks.joined(heads, blocks.group), backward

    return of(query, key, value)


class _Blocks:
    """Queries, keys and values in blocks; the arguments are those of `attend`."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        first: Tensor,
        dropout: float,
        seed: Tensor | None,
    ) -> None:
        length = query.shape[2] or tf.shape(query)[2]
        self._number = -(-length // _LENGTH)
        self._length = -(-length // self._number)
        self._all = length
        self._dtype = query.dtype
        self._heads, self._width = key.shape[1], key.shape[3]
        self.group = query.shape[1] // self._heads
        self._query = self._cut(query)  # (N, B, K, G * L, D)
        self._key, self._value = self._cut(key), self._cut(value)  # (N, B, K, L, D)
        self._last = self._of_rows(tf.range(length)[None])  # (N, 1, 1, G * L, 1)
        self._first = self._of_rows(first)  # (N, B or 1, 1, G * L, 1)
        self._dropout, self._seed = dropout, seed

    def forward(self) -> tuple[Tensor, Tensor]:
        """What the heads see, and the logarithm of each row's sum of powers."""
        empty = tf.zeros_like(self._query[0], tf.float32)  # (B, K, G * L, D)

        def of_queries(i: Tensor, heads: Any, log_sums: Any) -> tuple[Any, ...]:
            def see(j: Tensor, best: Tensor, total: Tensor, seen: Tensor) -> Any:
                scores = self._scores(i, j)  # (B, K, G * L, L)
                highest = tf.reduce_max(scores, axis=-1, keepdims=True)
                highest = tf.maximum(best, highest)
                powers, scale = tf.exp(scores - highest), tf.exp(best - highest)
                total = total * scale + tf.reduce_sum(powers, -1, keepdims=True)
                kept = tf.cast(self._dropped(powers, i, j), self._dtype)
                seen = seen * scale + _product(kept, self._value[j])
                return j + 1, highest, total, seen

            nothing = empty[..., :1]
            start = (self._earliest(i), nothing + MASKED, nothing, empty)
            _, best, total, seen = _loop(lambda j, *_: j <= i, see, start)
            seen = tf.cast(seen / total, self._dtype)
            written = log_sums.write(i, best + tf.math.log(total))
            return i + 1, heads.write(i, seen), written

        sums = self._array(self._query[..., :1])
        start = (0, self._array(self._query, self._dtype), sums)
        _, heads, log_sums = _loop(lambda i, *_: i < self._number, of_queries, start)
        return heads.stack(), log_sums.stack()

    def backward(
        self, heads: Tensor, log_sums: Tensor, d_heads: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of queries, keys and values."""
        d_heads = self._cut(d_heads)  # (N, B, K, G * L, D)
        products = tf.cast(heads, tf.float32) * tf.cast(d_heads, tf.float32)
        means = tf.reduce_sum(products, axis=-1, keepdims=True)  # (N, B, K, G * L, 1)

        def of_keys(j: Tensor, d_query: Any, d_keys: Any, d_values: Any) -> Any:
            def seen_by(i: Tensor, d_query: Any, d_key: Tensor, d_value: Tensor) -> Any:
                weights = tf.exp(self._scores(i, j) - log_sums[i])  # (B, K, G * L, L)
                kept = tf.cast(self._dropped(weights, i, j), self._dtype)
                d_value += _product(kept, d_heads[i], transpose_a=True)
                d_kept = _product(d_heads[i], self._value[j], transpose_b=True)
                d_scores = weights * (self._dropped(d_kept, i, j) - means[i])
                d_scores = tf.cast(d_scores, self._dtype)
                d_key += _product(d_scores, self._query[i], transpose_a=True)
                added = d_query.read(i) + _product(d_scores, self._key[j])
                return i + 1, d_query.write(i, added), d_key, d_value

            nothing = tf.zeros_like(self._key[0], tf.float32)  # (B, K, L, D)
            start = (j, d_query, nothing, nothing)
            _, d_query, d_key, d_value = _loop(
                lambda i, *_: i < self._number, seen_by, start
            )
            return j + 1, d_query, d_keys.write(j, d_key), d_values.write(j, d_value)

        zeros = tf.zeros_like(self._query, tf.float32)
        d_query = self._array(zeros).unstack(zeros)
        start = (0, d_query, self._array(self._key), self._array(self._key))
        _, *arrays = _loop(lambda j, *_: j < self._number, of_keys, start)
        d_query, d_key, d_value = (
            self.joined(tf.cast(array.stack(), self._dtype), group)
            for array, group in zip(arrays, (self.group, 1, 1), strict=True)
        )
        return d_query, d_key, d_value

    def joined(self, x: Tensor, group: int) -> Tensor:
        """`(N, B, K, group * L, D)` as `(B, K * group, T, D)`."""
        width, padded = self._width, self._number * self._length
        shape = (self._number, -1, self._heads, group, self._length, width)
        x = tf.transpose(tf.reshape(x, shape), (1, 2, 3, 0, 4, 5))
        return tf.reshape(x, (-1, self._heads * group, padded, width))[
            :, :, : self._all
        ]

    def _cut(self, x: Tensor) -> Tensor:
        """The inverse of `joined`; places behind the last are zeros."""
        width, group = self._width, x.shape[1] // self._heads
        shape = (-1, self._heads, group, self._number, self._length, width)
        x = tf.transpose(tf.reshape(self._padded(x), shape), (3, 0, 1, 2, 4, 5))
        rows = group * self._length
        return tf.reshape(x, (self._number, -1, self._heads, rows, width))

    def _of_rows(self, x: Tensor) -> Tensor:
        """Of numbers of the places, `(B or 1, T)`, those of each row of queries.

        Returns:
            A tensor of shape `(N, B or 1, 1, G * L, 1)`.
        """
        shape = (-1, self._number, self._length)
        x = tf.reshape(self._padded(x[:, None, :, None]), shape)
        x = tf.tile(tf.transpose(x, (1, 0, 2)), (1, 1, self.group))
        return x[:, :, None, :, None]

    def _padded(self, x: Tensor) -> Tensor:
        """`(B, H, T, D)` with a multiple of L places."""
        behind = self._number * self._length - self._all
        return tf.pad(x, [[0, 0], [0, 0], [0, behind], [0, 0]])

    def _scores(self, i: Tensor, j: Tensor) -> Tensor:
        """Of the queries of block i and the keys of block j: `(B, K, G * L, L)`."""
        places = j * self._length + tf.range(self._length)  # (L,)
        # (B or 1, 1, G * L, L)
        seen = (places >= self._first[i]) & (places <= self._last[i])
        scores = _product(self._query[i], self._key[j], transpose_b=True)
        return tf.where(seen, scores, MASKED)

    def _earliest(self, i: Tensor) -> Tensor:
        """The first block of keys that the queries of block i see anything of."""
        return tf.reduce_min(self._first[i]) // self._length

    def _dropped(self, weights: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Weights, or their gradients, of a pair of blocks: the same are zeros."""
        if not self._dropout:
            return weights
        seed = self._seed + tf.stack([0, i * self._number + j])
        drawn = tf.random.stateless_uniform(tf.shape(weights), seed)
        return tf.where(drawn < self._dropout, 0.0, weights / (1 - self._dropout))

    def _array(self, like: Tensor, dtype: Any = tf.float32) -> tf.TensorArray:
        """For a tensor of each block, of the shape of those in another one."""
        return tf.TensorArray(
            dtype,
            self._number,
            clear_after_read=False,
            element_shape=like.shape[1:],
        )


def _product(x: Tensor, y: Tensor, **transposed: bool) -> Tensor:
    """A product of matrices, in float32."""
    return tf.cast(tf.matmul(x, y, **transposed), tf.float32)


def _loop(goes_on: Callable[..., Any], body: Callable[..., Any], start: Any) -> Any:
    """A loop of which one turn is in memory at a time."""
    return tf.while_loop(goes_on, body, start, parallel_iterations=1)
