"""The Transformer decoder."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from .backbone import (
    Cache,
    CausalBackbone,
    Tensor,
    built,
    normal_initializer,
    require,
    token_inputs,
)

_ROTARY_BASE = 10000.0
_EPSILON = 1e-6
# Added to the scores of positions that must not be seen; finite in half precision.
_MASKED = -3e4


class DecoderBlock(keras.layers.Layer):
    """One pre-norm block: rotary multi-head attention, then a SwiGLU network.

    Args:
        num_heads: int. Attention heads.
        intermediate_dim: int. Width of the feed-forward network.
        dropout: float. Dropout on the attention weights and on both branches.
        residual_scale: float. Factor on the standard deviation of the weights that
            write into the residual stream.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.
        angles: rotary angles of the positions, `(sequence_length, head_dim / 2)`.
        mask: additive mask, `(sequence_length, sequence_length)`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864) (rotary positions)
        - [Shazeer, 2020](https://arxiv.org/abs/2002.05202) (SwiGLU)
    """

    def __init__(
        self,
        num_heads: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        residual_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        self.residual_scale = residual_scale

    def build(self, input_shape: Any, *_: Any) -> None:
        dim = input_shape[-1]
        self.head_dim = dim // self.num_heads
        self.attention_norm = self._norm("attention_norm", dim)
        self.query_key_value = self._dense("query_key_value", dim, 3 * dim)
        self.attention_output = self._dense(
            "attention_output", dim, dim, self.residual_scale
        )
        self.feedforward_norm = self._norm("feedforward_norm", dim)
        self.gate_and_value = self._dense(
            "gate_and_value", dim, 2 * self.intermediate_dim
        )
        self.feedforward_output = self._dense(
            "feedforward_output", self.intermediate_dim, dim, self.residual_scale
        )
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.built = True

    def _dense(self, name: str, inputs: int, outputs: int, scale: float = 1.0) -> Any:
        layer = keras.layers.Dense(
            outputs,
            use_bias=False,
            kernel_initializer=normal_initializer(0.02 * scale),
            dtype=self.dtype_policy,
            name=name,
        )
        return built(layer, inputs)

    def _norm(self, name: str, dim: int) -> Any:
        layer = keras.layers.RMSNormalization(
            epsilon=_EPSILON, dtype=self.dtype_policy, name=name
        )
        return built(layer, dim)

    def call(
        self, x: Tensor, angles: Tensor, mask: Tensor, training: bool | None = None
    ) -> Tensor:
        query, key, value = self._project(x, angles)  # (B, H, T, D)
        return self._finish(x, query, key, value, mask, training)

    def project_key_value(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `x`, each `(batch_size, num_heads, length, head_dim)`."""
        _, key, value = self._project(x, angles)
        return key, value

    def call_with_cache(
        self, x: Tensor, angles: Tensor, mask: Tensor, cache: Cache, index: Tensor
    ) -> tuple[Tensor, Cache]:
        """Attends from one position to those in the cache and its own.

        Args:
            x: tensor of shape `(batch_size, 1, hidden_dim)`.
            angles: rotary angles of the position, `(1, head_dim / 2)`.
            mask: additive mask of the cached positions, `(1, max_length)`.
            cache: keys and values, `(batch_size, num_heads, max_length, head_dim)`.
            index: int32 scalar tensor, the position.

        Returns:
            The output `(batch_size, 1, hidden_dim)` and the cache.
        """
        query, key, value = self._project(x, angles)
        key = _put(cache[0], key, index)
        value = _put(cache[1], value, index)
        return self._finish(x, query, key, value, mask, False), (key, value)

    def _project(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = (*ops.shape(x)[:2], 3, self.num_heads, self.head_dim)
        qkv = self.query_key_value(self.attention_norm(x))
        qkv = ops.transpose(ops.reshape(qkv, shape), (2, 0, 3, 1, 4))  # (3, B, H, T, D)
        # Queries and keys are turned together; scaling the query here is cheaper than
        # scaling the scores.
        query_key = _rotate(qkv[:2], angles)
        return query_key[0] * self.head_dim**-0.5, query_key[1], qkv[2]

    def _finish(
        self,
        x: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        training: bool | None,
    ) -> Tensor:
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) + mask  # (B, H, T, S)
        weights = self.dropout_layer(tf.nn.softmax(scores), training=training)
        heads = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))  # (B, T, H, D)
        heads = ops.reshape(heads, ops.shape(x))
        branch = self.attention_output(heads)
        x = x + self.dropout_layer(branch, training=training)

        gate, value = ops.split(self.gate_and_value(self.feedforward_norm(x)), 2, -1)
        branch = self.feedforward_output(ops.silu(gate) * value)
        return x + self.dropout_layer(branch, training=training)

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
            "residual_scale": self.residual_scale,
        }


class PositionTables(keras.layers.Layer):
    """The rotary angles and the causal mask of a sequence, once for all blocks.

    Args:
        head_dim: int. Width of an attention head.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.

    Returns:
        Angles `(sequence_length, head_dim / 2)` in radians and the additive mask
        `(sequence_length, sequence_length)`.
    """

    def __init__(self, head_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head_dim = head_dim

    def call(self, x: Tensor) -> tuple[Tensor, Tensor]:
        positions = ops.arange(ops.shape(x)[1])
        return self.angles(positions), self.mask(positions[:, None], positions)

    def angles(self, positions: Tensor) -> Tensor:
        """Angles of int32 positions `(length,)`: `(length, head_dim / 2)`, float32."""
        exponents = ops.arange(0, self.head_dim, 2, dtype="float32") / self.head_dim
        positions = ops.cast(positions, "float32")
        return positions[:, None] * ops.power(_ROTARY_BASE, -exponents)

    def mask(self, positions: Tensor, others: Tensor) -> Tensor:
        """What to add to the scores so that no position sees a later one."""
        return ops.cast(others > positions, self.compute_dtype) * _MASKED

    def compute_output_spec(self, x: Tensor) -> tuple[Tensor, Tensor]:
        length = x.shape[1]
        return (
            keras.KerasTensor((length, self.head_dim // 2), "float32"),
            keras.KerasTensor((length, length), self.compute_dtype),
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "head_dim": self.head_dim}


@keras.saving.register_keras_serializable(package="langzoo")
class TransformerBackbone(CausalBackbone):
    """A Transformer decoder in today's small recipe.

    Pre-norm blocks with RMSNorm, rotary positions, SwiGLU, no biases, tied
    embeddings; weights are drawn with standard deviation 0.02, and those that write
    into the residual stream with 0.02 / sqrt(2 num_layers), as in GPT-2.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Blocks. Defaults to 4.
        num_heads: int. Attention heads. Defaults to 4.
        hidden_dim: int. Width of the residual stream; a multiple of
            `2 * num_heads`. Defaults to 128.
        intermediate_dim: int. Width of the feed-forward networks. Defaults to the
            multiple of 8 next above `8 / 3 * hidden_dim`.
        dropout: float. Dropout on embeddings, attention weights and branches.
            Defaults to 0.
        max_sequence_length: int. Longest input that the model is made for; no weight
            depends on it. Defaults to 128.
        dtype: string or `keras.DTypePolicy`. Of computations and weights.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, hidden_dim)`.

    Example:
    ```python
    backbone = TransformerBackbone(vocabulary_size=260, num_layers=2)
    hidden_states = backbone(
        {
            "token_ids": np.ones((1, 12), "int32"),
            "padding_mask": np.ones((1, 12), "bool"),
        }
    )
    ```

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Radford et al., 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)
        - [Touvron et al., 2023](https://arxiv.org/abs/2302.13971)
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 4,
        num_heads: int = 4,
        hidden_dim: int = 128,
        intermediate_dim: int | None = None,
        dropout: float = 0.0,
        max_sequence_length: int = 128,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        require(
            hidden_dim % (2 * num_heads) == 0,
            "`hidden_dim` must be a multiple of twice `num_heads`.",
            hidden_dim=hidden_dim,
            num_heads=num_heads,
        )
        if intermediate_dim is None:
            intermediate_dim = -(-8 * hidden_dim // 24) * 8

        # === Layers ===
        self.token_embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer=normal_initializer(),
            dtype=dtype,
            name="token_embedding",
        )
        self.embeddings_dropout = keras.layers.Dropout(
            dropout, dtype=dtype, name="embeddings_dropout"
        )
        self.position_tables = PositionTables(
            hidden_dim // num_heads, dtype=dtype, name="position_tables"
        )
        self.blocks = [
            DecoderBlock(
                num_heads,
                intermediate_dim,
                dropout=dropout,
                residual_scale=(2 * num_layers) ** -0.5,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        self.final_norm = keras.layers.RMSNormalization(
            epsilon=_EPSILON, dtype=dtype, name="final_norm"
        )

        # === Functional Model ===
        inputs = token_inputs()
        x = self.embeddings_dropout(self.token_embedding(inputs["token_ids"]))
        angles, mask = self.position_tables(x)
        for block in self.blocks:
            x = block(x, angles, mask)
        super().__init__(
            inputs=inputs, outputs=self.final_norm(x), dtype=dtype, **kwargs
        )

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """For each block, keys and values of every position.

        Returns:
            A tuple of pairs of tensors, each of shape
            `(batch_size, num_heads, max_length, head_dim)`.
        """
        shape = (
            batch_size,
            self.num_heads,
            max_length,
            self.hidden_dim // self.num_heads,
        )
        zeros = ops.zeros(shape, self.compute_dtype)
        return tuple((zeros, zeros) for _ in self.blocks)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        index = ops.cast(cache_update_index, "int32")
        x = self.token_embedding(token_ids)
        angles = self.position_tables.angles(index[None])
        others = ops.arange(ops.shape(cache[0][0])[2])
        mask = self.position_tables.mask(index, others)[None]
        caches = []
        for block, block_cache in zip(self.blocks, cache, strict=True):
            x, block_cache = block.call_with_cache(x, angles, mask, block_cache, index)
            caches.append(block_cache)
        return self.final_norm(x), tuple(caches)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        # All columns at once; what came from column `length` on is wiped, so that it
        # has no influence.
        x = self.token_embedding(token_ids)
        angles, mask = self.position_tables(x)
        kept = ops.arange(ops.shape(token_ids)[1]) < ops.cast(length, "int32")
        kept = ops.cast(kept, self.compute_dtype)[:, None]  # (T, 1)
        caches = []
        for block in self.blocks:
            key, value = block.project_key_value(x, angles)
            caches.append((key * kept, value * kept))
            x = block(x, angles, mask, training=False)
        return tuple(caches)

    def default_lora_layer_names(self) -> list[str]:
        return ["query_key_value"]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
            "max_sequence_length": self.max_sequence_length,
        }


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turns pairs `(x[i], x[i + D / 2])` of the last axis by angles `(T, D / 2)`."""
    cosine = ops.cast(ops.cos(angles), x.dtype)
    sine = ops.cast(ops.sin(angles), x.dtype)
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate(
        [first * cosine - second * sine, first * sine + second * cosine], axis=-1
    )


def _put(cache: Tensor, update: Tensor, index: Tensor) -> Tensor:
    """Writes `(B, H, 1, D)` at position `index` of `(B, H, T, D)`.

    A select and not `ops.slice_update`, whose XLA op a model server may not have.
    """
    here = ops.arange(ops.shape(cache)[2]) == index
    return ops.where(here[:, None], update, cache)
