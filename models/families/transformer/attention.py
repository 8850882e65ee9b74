"""Self-attention: heads, masks, positions, caches.

In shapes: B rows, T positions that look at S, E `hidden_dim`; H query heads and K heads
of keys and values, each of width D; M positions of a cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from ...backbone import (
    Cache,
    Tensor,
    built,
    holds_matrices,
    is_served,
    normal_initializer,
)
from .blocks import MASKED, attend

Rotation = tuple[Tensor, Tensor]
WHOLE = 512
"""The longest sequence whose scores are worked out at once."""


class Place:
    """Where some positions are in the caches of all blocks.

    Args:
        cache: one of the caches, `(batch_size, kv_heads, max_length, head_dim)`.
        index: int32 scalar tensor, the first position.
        length: how many.
    """

    def __init__(self, cache: Tensor, index: Tensor, length: Tensor | int) -> None:
        batch, heads, self._max_length, _ = ops.shape(cache)
        self._index = index
        self._length = length
        # Worked out once for all blocks.
        self._rows = ops.arange(batch * heads) * self._max_length + index

    def put(self, cache: Tensor, update: Tensor) -> Tensor:
        """The cache with `(batch_size, kv_heads, length, head_dim)` written there.

        Not by `ops.slice_update`, whose XLA op a model server may not have.
        """
        if isinstance(self._length, int) and self._length == 1:
            return self._put_one(cache, update)
        places = ops.arange(self._max_length) - self._index  # (M,)
        here = ops.logical_and(places >= 0, places < self._length)[:, None]  # (M, 1)
        places = ops.clip(places, 0, self._length - 1)
        update = ops.take(update, places, axis=2)  # (B, K, M, D)
        return ops.where(here, update, cache)

    def _put_one(self, cache: Tensor, update: Tensor) -> Tensor:
        width = cache.shape[3]
        flat = ops.reshape(cache, (-1, width))  # (B * K * M, D)
        update = ops.reshape(ops.cast(update, cache.dtype), (-1, width))  # (B * K, D)
        if is_served():
            flat = tf.raw_ops.InplaceUpdate(x=flat, i=self._rows, v=update)
        else:
            flat = tf.tensor_scatter_nd_update(flat, self._rows[:, None], update)
        return tf.reshape(flat, tf.shape(cache))


class Attention(keras.layers.Layer):
    """What attention to one's own sequence and to another one have in common.

    Args:
        num_heads: int. Query heads.
        num_key_value_heads: int. Key and value heads; each serves
            `num_heads / num_key_value_heads` query heads in a row.
        stddev: float. Standard deviation of the weights when they are drawn.
        dropout: float. Dropout on the attention weights.
        use_bias: bool. Whether the projections have biases.
        residual_scale: float. Factor on it for the output projection.
    """

    def __init__(
        self,
        num_heads: int,
        num_key_value_heads: int,
        *,
        stddev: float,
        dropout: float = 0.0,
        use_bias: bool = False,
        residual_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_key_value_heads = num_key_value_heads
        self.dropout = dropout
        self.use_bias = use_bias
        self.stddev = stddev
        self.residual_scale = residual_scale

    def _build_output(self, dim: int) -> None:
        """The layers behind the heads, of width `head_dim`."""
        self.attention_output = dense(
            self, "attention_output", dim, dim, self.residual_scale
        )
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )

    def _weights(
        self, query: Tensor, key: Tensor, mask: Tensor, is_small: bool = False
    ) -> Tensor:
        """How much each position attends to each other, `(B, H, T, S)`."""
        matmul = _small_matmul if is_small else _matmul
        softmax = _small_softmax if is_small else tf.nn.softmax
        # (B, K, H / K * T, S)
        scores = matmul(self._by_keys(query), key, transpose=True)
        scores = self._by_queries(scores, ops.shape(query)[2])  # (B, H, T, S)
        return softmax(scores + mask)

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        training: bool | None,
        is_small: bool = False,
    ) -> Tensor:
        """What the heads see, side by side: `(B, T, H * D)`."""
        length = ops.shape(query)[2]
        # (B, H, T, D)
        heads = self._heads(query, key, value, mask, training, is_small)
        heads = ops.transpose(heads, (0, 2, 1, 3))  # (B, T, H, D)
        return ops.reshape(heads, (-1, length, self.num_heads * self.head_dim))

    def _heads(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        training: bool | None,
        is_small: bool,
    ) -> Tensor:
        """What each head sees, `(B, H, T, D)`."""
        weights = self._weights(query, key, mask, is_small)  # (B, H, T, S)
        weights = self.dropout_layer(weights, training=training)
        matmul = _small_matmul if is_small else _matmul
        heads = matmul(self._by_keys(weights), value)  # (B, K, H / K * T, D)
        return self._by_queries(heads, ops.shape(query)[2])

    def _by_keys(self, x: Tensor) -> Tensor:
        """`(B, H, T, N)` as `(B, K, H / K * T, N)`.

        The query heads that share keys lie in a row: one matrix for all of them.
        """
        group = self.num_heads // self.num_key_value_heads
        if group == 1:
            return x
        _, _, length, last = ops.shape(x)
        return ops.reshape(x, (-1, self.num_key_value_heads, group * length, last))

    def _by_queries(self, x: Tensor, length: Tensor) -> Tensor:
        """The inverse of `_by_keys`."""
        if self.num_heads == self.num_key_value_heads:
            return x
        return ops.reshape(x, (-1, self.num_heads, length, ops.shape(x)[3]))

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "stddev": self.stddev,
            "residual_scale": self.residual_scale,
        }


class SelfAttention(Attention):
    """Self-attention, multi-head or grouped-query, with or without rotation.

    Args:
        num_heads: int. As of `Attention`, whose others are `**kwargs`.
        num_key_value_heads: int. Likewise.
        qk_norm: float or `None`. What an RMSNorm of each query and key, before they are
            turned, adds to the variance; `None` for no such norm.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.
        mask: additive mask, `(sequence_length, sequence_length)`, perhaps with
            leading dimensions `(batch_size, 1)`, or one row for all positions; or for
            attention in blocks int32 `(1, sequence_length)` or
            `(batch_size, sequence_length)`, the first place that each one sees.
        rotation: cosines and sines of the positions, a pair of
            `(sequence_length, head_dim / 2)`, or `None` for no rotation.
        added: what is added to the values, of shape `(batch_size, sequence_length,
            num_key_value_heads, head_dim)`, or `None`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Henry et al., 2020](https://arxiv.org/abs/2010.04245) (with norms)
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864) (rotary positions)
        - [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245) (grouped queries)
    """

    def __init__(
        self,
        num_heads: int,
        num_key_value_heads: int,
        *,
        qk_norm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_heads, num_key_value_heads, **kwargs)
        self.qk_norm = qk_norm

    def build(self, input_shape: Any, *_: Any) -> None:
        dim = input_shape[-1]
        self.head_dim = dim // self.num_heads
        heads = (self.num_heads, *[self.num_key_value_heads] * 2)
        widths = [number * self.head_dim for number in heads]
        self.query_key_value = dense(self, "query_key_value", dim, sum(widths))
        holds_matrices(self.query_key_value.kernel, widths)
        self._build_output(dim)
        self.query_key_norm = None
        if self.qk_norm is not None:
            norm = keras.layers.RMSNormalization(
                epsilon=self.qk_norm, dtype=self.dtype_policy, name="query_key_norm"
            )
            self.query_key_norm = built(norm, self.head_dim)
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None = None,
        added: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        query, key, value = self._project(x, rotation, added)  # (B, H or K, T, D)
        heads = self._attend(query, key, value, mask, training)  # (B, T, H * D)
        return self.attention_output(heads)  # (B, T, E)

    def attention_weights(
        self, x: Tensor, mask: Tensor, rotation: Rotation | None = None
    ) -> Tensor:
        """How much each position attends to each other, in a call without dropout.

        Returns:
            A tensor of shape
            `(batch_size, num_heads, sequence_length, sequence_length)`; the last axis,
            the positions attended to, sums to one.
        """
        query, key, _ = self._project(x, rotation)  # (B, H, T, D), (B, K, T, D)
        return self._weights(query, key, mask)  # (B, H, T, T)

    def prefill(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None,
        added: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """As a call, with keys and values: `(batch_size, kv_heads, length, head_dim)`.

        `kv_heads` is `num_key_value_heads`.
        """
        query, key, value = self._project(x, rotation, added)  # (B, H or K, T, D)
        heads = self._attend(query, key, value, mask, False)  # (B, T, H * D)
        return self.attention_output(heads), (key, value)

    def call_with_cache(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None,
        added: Tensor | None,
        cache: Cache,
        place: Place,
    ) -> tuple[Tensor, Cache]:
        """Attends from `length` positions to those in the cache and their own.

        Args:
            x: tensor of shape `(batch_size * length, hidden_dim)`: a dense layer of a
                matrix is a single op.
            mask: additive mask of the cached positions, `(length, max_length)`.
            rotation: cosines and sines of the positions, a pair of
                `(length, head_dim / 2)`, or `None`.
            added: what is added to the values, `(batch_size, length, kv_heads,
                head_dim)`, or `None`.
            cache: keys and values, `(batch_size, kv_heads, max_length, head_dim)`.
            place: where the positions are in the cache.

        Returns:
            The output, of the shape of `x`, and the cache.
        """
        rows = (-1, ops.shape(mask)[0])
        query, key, value = self._project(x, rotation, added, rows)  # (B, H or K, T, D)
        # (B, K, M, D)
        key, value = place.put(cache[0], key), place.put(cache[1], value)
        heads = self._attend(query, key, value, mask, False, is_small=True)
        # (B * T, H * D)
        heads = ops.reshape(heads, (-1, self.num_heads * self.head_dim))
        return self.attention_output(heads), (key, value)  # (B * T, E)

    def _project(
        self,
        x: Tensor,
        rotation: Rotation | None,
        added: Tensor | None = None,
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; `rows` is `(B, T)`, B or -1, where x is flat."""
        query_heads, heads = self.num_heads, self.num_key_value_heads
        rows = rows or ops.shape(x)[:2]
        shape = (*rows, query_heads + 2 * heads, self.head_dim)
        qkv = ops.reshape(self.query_key_value(x), shape)  # (B, T, H + 2 K, D)
        qkv = ops.transpose(qkv, (0, 2, 1, 3))  # (B, H + 2 K, T, D)
        # (B, H + K, T, D), (B, K, T, D)
        query_key, value = ops.split(qkv, [query_heads + heads], axis=1)
        if added is not None:
            value = value + ops.transpose(added, (0, 2, 1, 3))
        if self.query_key_norm is not None:
            query_key = self.query_key_norm(query_key)
        if rotation is not None:
            query_key = _rotate(query_key, *rotation)
        query, key = ops.split(query_key, [query_heads], axis=1)  # H and K heads
        # Scaling the queries is cheaper than scaling the scores.
        return query * self.head_dim**-0.5, key, value

    def _heads(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        training: bool | None,
        is_small: bool,
    ) -> Tensor:
        if keras.backend.standardize_dtype(mask.dtype) == "int32":
            return self._attend_in_blocks(query, key, value, mask, training)
        return super()._heads(query, key, value, mask, training, is_small)

    def _attend_in_blocks(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        first: Tensor,
        training: bool | None,
    ) -> Tensor:
        """What each head sees, `(B, H, T, D)`."""
        if keras.backend.is_keras_tensor(query):
            return query  # Of its shape and type.
        if not (training and self.dropout):
            return attend(query, key, value, first)
        seed = ops.cast(self.dropout_layer.seed_generator.next(), "int32")
        return attend(query, key, value, first, dropout=self.dropout, seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "qk_norm": self.qk_norm}


class ValueEmbedding(keras.layers.Layer):
    """What tokens add to the values of attention: embeddings, a factor for each head.

    Args:
        vocabulary_size: int. Number of token ids.
        num_heads: int. Heads of values.
        head_dim: int. Width of each.
        stddev: float. Standard deviation of the embeddings when they are drawn; the
            factors are 1 at first.

    Call arguments:
        token_ids: int32 tensor of shape `(batch_size, sequence_length)`; the output is
            `(batch_size, sequence_length, num_heads, head_dim)`.

    References:
        - [Zhou et al., 2024](https://arxiv.org/abs/2410.17897) (value residuals)
        - [Jordan et al., 2024](https://github.com/KellerJordan/modded-nanogpt)
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_heads: int,
        head_dim: int,
        *,
        stddev: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.stddev = stddev
        self.table = keras.layers.Embedding(
            vocabulary_size,
            num_heads * head_dim,
            embeddings_initializer=normal_initializer(stddev),
            dtype=self.dtype_policy,
            name="table",
        )

    def build(self, *_: Any) -> None:
        self.table.build()
        # By this name no optimizer lets it decay.
        self.scale = self.add_weight(
            shape=(self.num_heads, 1), initializer="ones", name="scale"
        )
        self.built = True

    def call(self, token_ids: Tensor) -> Tensor:
        shape = (*ops.shape(token_ids), self.num_heads, self.head_dim)
        return self.scale * ops.reshape(self.table(token_ids), shape)  # (B, T, K, D)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape, self.num_heads, self.head_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "stddev": self.stddev,
        }


class CausalMask(keras.layers.Layer):
    """The mask of `SelfAttention` with which no position sees a later one.

    Args:
        max_length: int. Length of a sequence where a graph is made for any. Defaults
            to 0, a short one.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.

    Returns:
        A tensor of shape `(sequence_length, sequence_length)`, or where that is long
        of shape `(1, sequence_length)`.
    """

    def __init__(self, max_length: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_length = max_length

    def call(self, x: Tensor) -> Tensor:
        if self._is_long(x):
            return ops.zeros((1, ops.shape(x)[1]), "int32")
        return self.dense(x)

    def dense(self, x: Tensor) -> Tensor:
        """What a call returns, whatever the length: what to add to all scores."""
        positions = ops.arange(ops.shape(x)[1])  # (T,)
        return self.between(positions[:, None], positions)  # (T, T)

    def between(self, positions: Tensor, others: Tensor) -> Tensor:
        """The mask for int32 positions that look at others; their shapes broadcast."""
        return ops.cast(others > positions, self.compute_dtype) * MASKED

    def within_documents(self, positions: Tensor) -> Tensor:
        """The mask where a row holds several documents, which do not see each other.

        Args:
            positions: int32 tensor of shape `(batch_size, sequence_length)`, each
                place's distance from the beginning of its document.

        Returns:
            A tensor of shape `(batch_size, 1, sequence_length, sequence_length)`, or
            where that is long of shape `(batch_size, sequence_length)`.
        """
        places = ops.arange(ops.shape(positions)[1])  # (T,)
        if self._is_long(positions):
            return ops.cast(places - positions, "int32")
        begins = (places - positions)[:, None, :, None]  # (B, 1, T, 1)
        # (B, 1, T, T)
        hidden = ops.logical_or(places < begins, places > places[:, None])
        return ops.cast(hidden, self.compute_dtype) * MASKED

    def _is_long(self, x: Tensor) -> bool:
        return (x.shape[1] or self.max_length) > WHOLE

    def compute_output_spec(self, x: Tensor) -> Tensor:
        if self._is_long(x):
            return keras.KerasTensor((1, x.shape[1]), "int32")
        return keras.KerasTensor((x.shape[1], x.shape[1]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_length": self.max_length}


class PaddingMask(keras.layers.Layer):
    """The mask of `SelfAttention` with which no position sees padding.

    Call arguments:
        padding_mask: bool tensor of shape `(batch_size, sequence_length)`, false where
            there is padding.

    Returns:
        A tensor of shape `(batch_size, 1, 1, sequence_length)`.
    """

    def call(self, padding_mask: Tensor) -> Tensor:
        hidden = ops.logical_not(ops.cast(padding_mask, "bool"))
        return ops.cast(hidden[:, None, None, :], self.compute_dtype) * MASKED

    def compute_output_spec(self, padding_mask: Tensor) -> Tensor:
        batch, length = padding_mask.shape
        return keras.KerasTensor((batch, 1, 1, length), self.compute_dtype)


class CachedTables(NamedTuple):
    """What all blocks read of some positions, whose keys and values go into a cache.

    Attributes:
        mask: additive mask of the cached positions, `(length, max_length)`.
        rotation: cosines and sines, a pair of `(length, head_dim / 2)`, or `None`.
        place: where the positions are in the cache.
    """

    mask: Tensor
    rotation: Rotation | None
    place: Place

    @classmethod
    def of(
        cls,
        cache: Tensor,
        index: Tensor,
        length: Tensor,
        causal_mask: CausalMask,
        rotary: RotaryPositions | None,
    ) -> CachedTables:
        """Of `length` positions from int32 `index` on, in caches like one of them."""
        positions = index + ops.arange(length)  # (T,)
        others = ops.arange(ops.shape(cache)[2])  # (M,)
        return cls(
            causal_mask.between(positions[:, None], others),
            None if rotary is None else rotary.rotation(positions),
            Place(cache, index, length),
        )


class Filled(NamedTuple):
    """How the keys and values of a prompt become a cache.

    Attributes:
        kept: `(length, 1)`, 0 where a column is none of the prompt's, else 1.
        room: int or int32 scalar tensor. Positions behind them.
    """

    kept: Tensor
    room: Tensor

    def cache(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Of keys and values `(batch_size, kv_heads, length, head_dim)`."""
        room = [[0, 0], [0, 0], [0, self.room], [0, 0]]
        return tuple(tf.pad(tensor * self.kept, room) for tensor in tensors)


class RotaryPositions(keras.layers.Layer):
    """How far to turn the queries and keys of each position.

    Args:
        head_dim: int. Width of an attention head; even.
        base: float. The last pair of a head turns about `base` times more slowly than
            the first, which turns one radian a position.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.

    Returns:
        Cosines and sines, a pair of tensors `(sequence_length, head_dim / 2)`.

    References:
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864)
    """

    def __init__(self, head_dim: int, base: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head_dim = head_dim
        self.base = base

    def call(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.rotation(ops.arange(ops.shape(x)[1]))

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What a call returns, for int32 positions `(length,)`."""
        pairs = ops.arange(0, self.head_dim, 2, dtype="float32")  # (D / 2,)
        positions = ops.cast(positions, "float32")
        # In half precision the angles of late positions would be far off.
        angles = positions[:, None] * ops.power(self.base, -pairs / self.head_dim)
        return tuple(
            ops.cast(function(angles), self.compute_dtype)
            for function in (ops.cos, ops.sin)
        )

    def compute_output_spec(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (x.shape[1], self.head_dim // 2)
        return (
            keras.KerasTensor(shape, self.compute_dtype),
            keras.KerasTensor(shape, self.compute_dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head_dim": self.head_dim,
            "base": self.base,
        }


def dense(
    layer: Any,
    name: str,
    inputs: int,
    outputs: int,
    scale: float = 1.0,
) -> keras.layers.Layer:
    """A built dense layer with the settings of the layer that it is part of."""
    dense = keras.layers.Dense(
        outputs,
        use_bias=layer.use_bias,
        kernel_initializer=normal_initializer(layer.stddev * scale),
        dtype=layer.dtype_policy,
        name=name,
    )
    return built(dense, inputs)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns pairs `(x[i], x[i + D / 2])` of the last axis; angles are `(T, D / 2)`."""
    first, second = ops.split(x, 2, axis=-1)  # (..., T, D / 2)
    return ops.concatenate(
        [first * cosine - second * sine, first * sine + second * cosine], axis=-1
    )


def _matmul(x: Tensor, y: Tensor, transpose: bool = False) -> Tensor:
    """Products of matrices, of the second one's transposes if wanted."""
    return ops.matmul(x, ops.swapaxes(y, -1, -2) if transpose else y)


def _small_matmul(x: Tensor, y: Tensor, transpose: bool = False) -> Tensor:
    """`_matmul` by an op that oneDNN leaves alone.

    Its products of many small matrices, as of a single query and the keys of a head,
    wait for threads longer than they compute: some ten times as long at batch size 1.
    In half precision there is only oneDNN's.
    """
    if x.dtype == tf.float16:
        return _matmul(x, y, transpose)
    return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=x.dtype, adj_y=transpose)


def _small_softmax(scores: Tensor) -> Tensor:
    """`tf.nn.softmax` of few scores, without oneDNN for the same reason."""
    powers = tf.exp(scores - tf.reduce_max(scores, axis=-1, keepdims=True))
    return powers / tf.reduce_sum(powers, axis=-1, keepdims=True)
