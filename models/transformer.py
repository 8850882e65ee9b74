"""The Transformer decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from .backbone import (
    Cache,
    CausalBackbone,
    Tensor,
    built,
    is_served,
    normal_initializer,
    prompt_of,
    require,
    token_inputs,
)
from .fusion import fused
from .sizes import default_intermediate_dim

Rotation = tuple[Tensor, Tensor]

POSITIONS = ("rotary", "learned", "sinusoidal")
NORMALIZATIONS = ("rms_norm", "layer_norm")
# Added to the scores of positions that must not be seen; finite in half precision.
_MASKED = -3e4


def _swiglu(x: Tensor) -> Tensor:
    """`(..., 2 D)`, gate and value, to `(..., D)`."""
    gate, value = ops.split(x, 2, axis=-1)
    return ops.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": _swiglu,
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
    "gelu_approximate": lambda x: keras.activations.gelu(x, approximate=True),
}


_FUSED = {name: fused(function) for name, function in ACTIVATIONS.items()}


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
        places = ops.arange(self._max_length) - self._index
        here = ops.logical_and(places >= 0, places < self._length)[:, None]
        update = ops.take(update, ops.clip(places, 0, self._length - 1), axis=2)
        return ops.where(here, update, cache)

    def _put_one(self, cache: Tensor, update: Tensor) -> Tensor:
        flat = ops.reshape(cache, (-1, cache.shape[3]))
        update = ops.reshape(ops.cast(update, cache.dtype), (-1, cache.shape[3]))
        if is_served():
            flat = tf.raw_ops.InplaceUpdate(x=flat, i=self._rows, v=update)
        else:
            flat = tf.tensor_scatter_nd_update(flat, self._rows[:, None], update)
        return tf.reshape(flat, tf.shape(cache))


class SelfAttention(keras.layers.Layer):
    """Causal self-attention, multi-head or grouped-query, with or without rotation.

    Args:
        num_heads: int. Query heads.
        num_key_value_heads: int. Key and value heads; each serves
            `num_heads / num_key_value_heads` query heads in a row.
        dropout: float. Dropout on the attention weights.
        use_bias: bool. Whether the projections have biases.
        stddev: float. Standard deviation of the weights when they are drawn.
        residual_scale: float. Factor on it for the output projection.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.
        mask: additive mask, `(sequence_length, sequence_length)`, perhaps with
            leading dimensions `(batch_size, 1)`.
        rotation: cosines and sines of the positions, a pair of
            `(sequence_length, head_dim / 2)`, or `None` for no rotation.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864) (rotary positions)
        - [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245) (grouped queries)
    """

    def __init__(
        self,
        num_heads: int,
        num_key_value_heads: int,
        dropout: float = 0.0,
        use_bias: bool = False,
        stddev: float = 0.02,
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

    def build(self, input_shape: Any, *_: Any) -> None:
        dim = input_shape[-1]
        self.head_dim = dim // self.num_heads
        heads = self.num_heads + 2 * self.num_key_value_heads
        self.query_key_value = _dense(
            self, "query_key_value", dim, heads * self.head_dim
        )
        self.attention_output = _dense(
            self, "attention_output", dim, dim, self.residual_scale
        )
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None = None,
        training: bool | None = None,
    ) -> Tensor:
        query, key, value = self._project(x, rotation)
        return self.attention_output(self._attend(query, key, value, mask, training))

    def attention_weights(
        self, x: Tensor, mask: Tensor, rotation: Rotation | None = None
    ) -> Tensor:
        """How much each position attends to each other, in a call without dropout.

        Returns:
            A tensor of shape
            `(batch_size, num_heads, sequence_length, sequence_length)`; the last axis,
            the positions attended to, sums to one.
        """
        query, key, _ = self._project(x, rotation)
        return self._weights(query, key, mask)

    def prefill(
        self, x: Tensor, mask: Tensor, rotation: Rotation | None
    ) -> tuple[Tensor, Cache]:
        """As a call, with keys and values: `(batch_size, kv_heads, length, head_dim)`.

        `kv_heads` is `num_key_value_heads`.
        """
        query, key, value = self._project(x, rotation)
        heads = self._attend(query, key, value, mask, False)
        return self.attention_output(heads), (key, value)

    def call_with_cache(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None,
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
            cache: keys and values, `(batch_size, kv_heads, max_length, head_dim)`.
            place: where the positions are in the cache.

        Returns:
            The output, of the shape of `x`, and the cache.
        """
        query, key, value = self._project(x, rotation, (-1, ops.shape(mask)[0]))
        key, value = place.put(cache[0], key), place.put(cache[1], value)
        heads = self._attend(query, key, value, mask, False, is_small=True)
        heads = ops.reshape(heads, (-1, self.num_heads * self.head_dim))
        return self.attention_output(heads), (key, value)

    def _project(
        self,
        x: Tensor,
        rotation: Rotation | None,
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `(B, heads, T, D)`; `rows` is `(B, T)`, B or -1."""
        query_heads, heads = self.num_heads, self.num_key_value_heads
        rows = rows or ops.shape(x)[:2]
        shape = (*rows, query_heads + 2 * heads, self.head_dim)
        qkv = ops.reshape(self.query_key_value(x), shape)
        qkv = ops.transpose(qkv, (0, 2, 1, 3))  # (B, H + 2 K, T, D)
        query_key, value = ops.split(qkv, [query_heads + heads], axis=1)
        if rotation is not None:
            query_key = _rotate(query_key, *rotation)
        query, key = ops.split(query_key, [query_heads], axis=1)
        # Scaling the queries is cheaper than scaling the scores.
        return query * self.head_dim**-0.5, key, value

    def _weights(
        self, query: Tensor, key: Tensor, mask: Tensor, is_small: bool = False
    ) -> Tensor:
        """How much each position attends to each other, `(B, H, T, S)`."""
        matmul = _small_matmul if is_small else _matmul
        softmax = _small_softmax if is_small else tf.nn.softmax
        scores = matmul(self._by_keys(query), key, transpose=True)
        return softmax(self._by_queries(scores, ops.shape(query)[2]) + mask)

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
        weights = self._weights(query, key, mask, is_small)
        weights = self.dropout_layer(weights, training=training)
        matmul = _small_matmul if is_small else _matmul
        length = ops.shape(query)[2]
        heads = self._by_queries(matmul(self._by_keys(weights), value), length)
        heads = ops.transpose(heads, (0, 2, 1, 3))  # (B, T, H, D)
        return ops.reshape(heads, (-1, length, self.num_heads * self.head_dim))

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


class FeedForward(keras.layers.Layer):
    """A position's own network: a dense layer, an activation, a dense layer.

    Args:
        intermediate_dim: int. Width between the layers.
        activation: string, a key of `ACTIVATIONS`.
        use_bias: bool. Whether the layers have biases.
        stddev: float. Standard deviation of the weights when they are drawn.
        residual_scale: float. Factor on it for the second layer.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Hendrycks and Gimpel, 2016](https://arxiv.org/abs/1606.08415) (GELU)
        - [Shazeer, 2020](https://arxiv.org/abs/2002.05202) (SwiGLU)
    """

    def __init__(
        self,
        intermediate_dim: int,
        activation: str = "swiglu",
        use_bias: bool = False,
        stddev: float = 0.02,
        residual_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.activation = activation
        self.use_bias = use_bias
        self.stddev = stddev
        self.residual_scale = residual_scale

    def build(self, input_shape: Any) -> None:
        dim = input_shape[-1]
        width = self.intermediate_dim
        gated = 2 if self.activation == "swiglu" else 1
        self.intermediate = _dense(self, "intermediate", dim, gated * width)
        self.feedforward_output = _dense(
            self, "feedforward_output", width, dim, self.residual_scale
        )
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        activations = _FUSED if training else ACTIVATIONS
        x = activations[self.activation](self.intermediate(x))
        return self.feedforward_output(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "stddev": self.stddev,
            "residual_scale": self.residual_scale,
        }


class DecoderBlock(keras.layers.Layer):
    """One pre-norm block: `x + attention(norm(x))`, then `x + feedforward(norm(x))`.

    Args:
        attention: a `SelfAttention`.
        feedforward: a `FeedForward`.
        attention_norm: a normalization layer.
        feedforward_norm: a normalization layer.
        dropout: float. Dropout on both branches.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.
        mask: see `SelfAttention`.
        rotation: see `SelfAttention`.

    References:
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745) (pre-norm)
    """

    def __init__(
        self,
        attention: SelfAttention,
        feedforward: FeedForward,
        attention_norm: keras.layers.Layer,
        feedforward_norm: keras.layers.Layer,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.attention = attention
        self.feedforward = feedforward
        self.attention_norm = attention_norm
        self.feedforward_norm = feedforward_norm
        self.dropout = dropout
        self.dropout_layer = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, input_shape: Any, *_: Any) -> None:
        dim = input_shape[-1]
        built(self.attention_norm, dim)
        built(self.attention, dim)
        built(self.feedforward_norm, dim)
        built(self.feedforward, dim)
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None = None,
        training: bool | None = None,
    ) -> Tensor:
        branch = self.attention(
            self.attention_norm(x), mask, rotation, training=training
        )
        return self._finish(x, branch, training)

    def prefill(
        self, x: Tensor, mask: Tensor, rotation: Rotation | None
    ) -> tuple[Tensor, Cache]:
        """As a call, with the keys and values of `SelfAttention.prefill`."""
        branch, cache = self.attention.prefill(self.attention_norm(x), mask, rotation)
        return self._finish(x, branch, False), cache

    def call_with_cache(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None,
        cache: Cache,
        place: Place,
    ) -> tuple[Tensor, Cache]:
        """Some positions; see `SelfAttention.call_with_cache`."""
        branch, cache = self.attention.call_with_cache(
            self.attention_norm(x), mask, rotation, cache, place
        )
        return self._finish(x, branch, False), cache

    def _finish(self, x: Tensor, branch: Tensor, training: bool | None) -> Tensor:
        x = x + self.dropout_layer(branch, training=training)
        branch = self.feedforward(self.feedforward_norm(x), training=training)
        return x + self.dropout_layer(branch, training=training)

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape


class CausalMask(keras.layers.Layer):
    """What to add to attention scores so that no position sees a later one.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.

    Returns:
        A tensor of shape `(sequence_length, sequence_length)`.
    """

    def call(self, x: Tensor) -> Tensor:
        positions = ops.arange(ops.shape(x)[1])
        return self.between(positions[:, None], positions)

    def between(self, positions: Tensor, others: Tensor) -> Tensor:
        """The mask for int32 positions that look at others; their shapes broadcast."""
        return ops.cast(others > positions, self.compute_dtype) * _MASKED

    def within_documents(self, positions: Tensor) -> Tensor:
        """The mask where a row holds several documents, which do not see each other.

        Args:
            positions: int32 tensor of shape `(batch_size, sequence_length)`, each
                place's distance from the beginning of its document.

        Returns:
            A tensor of shape `(batch_size, 1, sequence_length, sequence_length)`.
        """
        places = ops.arange(ops.shape(positions)[1])
        begins = (places - positions)[:, None, :, None]
        hidden = ops.logical_or(places < begins, places > places[:, None])
        return ops.cast(hidden, self.compute_dtype) * _MASKED

    def compute_output_spec(self, x: Tensor) -> Tensor:
        return keras.KerasTensor((x.shape[1], x.shape[1]), self.compute_dtype)


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

    def __init__(self, head_dim: int, base: float = 10000.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.head_dim = head_dim
        self.base = base

    def call(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.rotation(ops.arange(ops.shape(x)[1]))

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What a call returns, for int32 positions `(length,)`."""
        exponents = ops.arange(0, self.head_dim, 2, dtype="float32") / self.head_dim
        positions = ops.cast(positions, "float32")
        # In half precision the angles of late positions would be far off.
        angles = positions[:, None] * ops.power(self.base, -exponents)
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


@keras.saving.register_keras_serializable(package="langzoo")
class TransformerBackbone(CausalBackbone):
    """A Transformer decoder: pre-norm blocks, by default in today's small recipe.

    The defaults are RMSNorm, rotary positions, SwiGLU, no biases and tied embeddings;
    `presets.ARCHITECTURES` holds the options that make it GPT-2 or Llama. Weights are
    drawn from a normal distribution; those that write into the residual stream are
    drawn smaller by `sqrt(2 num_layers)`, as in GPT-2.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Blocks. Defaults to 4.
        num_heads: int. Attention heads. Defaults to 4.
        num_key_value_heads: int or `None`. Heads of keys and values, each shared by
            `num_heads / num_key_value_heads` query heads (grouped-query attention).
            Defaults to `None`, which is `num_heads` (multi-head attention).
        hidden_dim: int. Width of the residual stream; a multiple of `num_heads`, and
            of `2 * num_heads` for rotary positions. Defaults to 128.
        intermediate_dim: int or `None`. Width of the feed-forward networks. Defaults
            to `None`: for SwiGLU the multiple of 8 next above `8 / 3 * hidden_dim`,
            else `4 * hidden_dim`.
        activation: string. `"swiglu"`, `"gelu"`, or `"gelu_approximate"` (by tanh, as
            GPT-2). Defaults to `"swiglu"`.
        positions: string. `"rotary"`; `"learned"`, one vector a position, added to the
            embeddings; or `"sinusoidal"`, added to the embeddings times
            `sqrt(hidden_dim)`, as Vaswani et al. do. Defaults to `"rotary"`.
        rope_base: float. Base of the rotary angles. Defaults to 10000.
        normalization: string. `"rms_norm"` or `"layer_norm"`. Defaults to
            `"rms_norm"`.
        norm_epsilon: float. What the normalizations add to the variance. Defaults to
            1e-6.
        use_bias: bool. Whether dense layers and LayerNorms have biases. Defaults to
            `False`.
        tie_embeddings: bool. Whether the output weights are the token embeddings.
            Defaults to `True`.
        initializer_range: float. Standard deviation of the weights when they are
            drawn. Defaults to 0.02.
        dropout: float. Dropout on embeddings, attention weights and branches.
            Defaults to 0.
        max_sequence_length: int. Longest input that the model is made for; only
            learned positions depend on it. Defaults to 128.
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
        - GPT-2: [Radford et al., 2019](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)
        - Llama: [Touvron et al., 2023](https://arxiv.org/abs/2302.13971)
        - RMSNorm: [Zhang and Sennrich, 2019](https://arxiv.org/abs/1910.07467)
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 4,
        num_heads: int = 4,
        num_key_value_heads: int | None = None,
        hidden_dim: int = 128,
        intermediate_dim: int | None = None,
        activation: str = "swiglu",
        positions: str = "rotary",
        rope_base: float = 10000.0,
        normalization: str = "rms_norm",
        norm_epsilon: float = 1e-6,
        use_bias: bool = False,
        tie_embeddings: bool = True,
        initializer_range: float = 0.02,
        dropout: float = 0.0,
        max_sequence_length: int = 128,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if num_key_value_heads is None:
            num_key_value_heads = num_heads
        _require_known("activation", activation, ACTIVATIONS)
        _require_known("positions", positions, POSITIONS)
        _require_known("normalization", normalization, NORMALIZATIONS)
        require(
            hidden_dim % (num_heads * (2 if positions == "rotary" else 1)) == 0,
            "`hidden_dim` must be a multiple of `num_heads`, and of twice `num_heads` "
            "for rotary positions.",
            hidden_dim=hidden_dim,
            num_heads=num_heads,
        )
        require(
            num_heads % num_key_value_heads == 0,
            "`num_heads` must be a multiple of `num_key_value_heads`.",
            num_heads=num_heads,
            num_key_value_heads=num_key_value_heads,
        )
        if intermediate_dim is None:
            intermediate_dim = default_intermediate_dim(hidden_dim, activation)

        # === Config ===
        # First, as building the layers reads it.
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.num_key_value_heads = num_key_value_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.activation = activation
        self.positions = positions
        self.rope_base = rope_base
        self.normalization = normalization
        self.norm_epsilon = norm_epsilon
        self.use_bias = use_bias
        self.tie_embeddings = tie_embeddings
        self.initializer_range = initializer_range
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length

        # === Layers ===
        self.token_embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size,
            hidden_dim,
            tie_weights=tie_embeddings,
            embeddings_initializer=normal_initializer(initializer_range),
            dtype=dtype,
            name="token_embedding",
        )
        self.position_embedding = self._position_embedding(dtype)
        self.embeddings_dropout = keras.layers.Dropout(
            dropout, dtype=dtype, name="embeddings_dropout"
        )
        self.causal_mask = CausalMask(dtype=dtype, name="causal_mask")
        self.rotary_positions = None
        if positions == "rotary":
            self.rotary_positions = RotaryPositions(
                hidden_dim // num_heads, rope_base, dtype=dtype, name="rotary_positions"
            )
        self.blocks = [self._block(f"block_{i}", dtype) for i in range(num_layers)]
        self.final_norm = self._norm("final_norm", dtype)

        # === Functional Model ===
        inputs = token_inputs()
        x = self.embeddings_dropout(self._embed(inputs["token_ids"]))
        mask, rotation = self._tables(x)
        for block in self.blocks:
            x = block(x, mask, rotation)
        super().__init__(
            inputs=inputs, outputs=self.final_norm(x), dtype=dtype, **kwargs
        )

    def _position_embedding(self, dtype: Any) -> keras.layers.Layer | None:
        if self.positions == "learned":
            return keras_hub.layers.PositionEmbedding(
                self.max_sequence_length,
                initializer=normal_initializer(self.initializer_range),
                dtype=dtype,
                name="position_embedding",
            )
        if self.positions == "sinusoidal":
            # In half precision, positions from 256 on would fall together.
            return keras_hub.layers.SinePositionEncoding(
                dtype="float32", name="position_embedding"
            )
        return None

    def _norm(self, name: str, dtype: Any) -> keras.layers.Layer:
        if self.normalization == "rms_norm":
            return keras.layers.RMSNormalization(
                epsilon=self.norm_epsilon, dtype=dtype, name=name
            )
        return keras.layers.LayerNormalization(
            epsilon=self.norm_epsilon, center=self.use_bias, dtype=dtype, name=name
        )

    def _block(self, name: str, dtype: Any) -> DecoderBlock:
        drawn: dict[str, Any] = {
            "use_bias": self.use_bias,
            "stddev": self.initializer_range,
            "residual_scale": (2 * self.num_layers) ** -0.5,
            "dtype": dtype,
        }
        return DecoderBlock(
            attention=SelfAttention(
                self.num_heads,
                self.num_key_value_heads,
                dropout=self.dropout,
                name="attention",
                **drawn,
            ),
            feedforward=FeedForward(
                self.intermediate_dim, self.activation, name="feedforward", **drawn
            ),
            attention_norm=self._norm("attention_norm", dtype),
            feedforward_norm=self._norm("feedforward_norm", dtype),
            dropout=self.dropout,
            dtype=dtype,
            name=name,
        )

    def _embed(
        self,
        token_ids: Tensor,
        index: Tensor | int = 0,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Embeddings `(B, T, D)` of tokens `(B, T)` from position `index` on.

        Or at positions, int32 `(B, T)`.
        """
        x = self.token_embedding(token_ids)
        if self.position_embedding is None:
            return x
        if self.positions == "sinusoidal":
            x = x * self.hidden_dim**0.5
            if positions is not None:
                positions = ops.cast(positions, "float32")
        vectors = self.position_embedding(x, start_index=index, positions=positions)
        return x + ops.cast(vectors, x.dtype)

    def _tables(self, x: Tensor) -> tuple[Tensor, Rotation | None]:
        """Mask and rotation of a whole sequence, once for all blocks."""
        if self.rotary_positions is None:
            return self.causal_mask(x), None
        return self.causal_mask(x), self.rotary_positions(x)

    def attention_weights(self, token_ids: Tensor) -> Tensor:
        """How much each position attends to each other, in every layer and head.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.

        Returns:
            A tensor of shape `(batch_size, num_layers, num_heads, sequence_length,
            sequence_length)`; the last axis, the positions attended to, sums to one.
        """
        x = self._embed(token_ids)
        mask, rotation = self._tables(x)
        weights = []
        for block in self.blocks:
            normed = block.attention_norm(x)
            weights.append(block.attention.attention_weights(normed, mask, rotation))
            x = block(x, mask, rotation)
        return ops.stack(weights, axis=1)

    def call_packed(
        self, token_ids: Tensor, positions: Tensor, training: bool | None = None
    ) -> Tensor:
        """See `langzoo.models.packed`."""
        x = self._embed(token_ids, positions=positions)
        x = self.embeddings_dropout(x, training=training)
        # Rotary positions are relative: counting on from document to document is no
        # difference to them.
        _, rotation = self._tables(x)
        mask = self.causal_mask.within_documents(positions)
        for block in self.blocks:
            x = block(x, mask, rotation, training=training)
        return self.final_norm(x)

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """For each block, keys and values of every position.

        Returns:
            A tuple of pairs of tensors, each of shape
            `(batch_size, num_key_value_heads, max_length, head_dim)`.
        """
        shape = (
            batch_size,
            self.num_key_value_heads,
            max_length,
            self.hidden_dim // self.num_heads,
        )
        zeros = ops.zeros(shape, self.compute_dtype)
        return tuple((zeros, zeros) for _ in self.blocks)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        # Unlike those of other families, this cache can take several tokens at once,
        # and again those at positions that it has.
        index = ops.cast(cache_update_index, "int32")
        length = ops.shape(token_ids)[1]
        x = ops.reshape(self._embed(token_ids, index), (-1, self.hidden_dim))
        positions = index + ops.arange(length)
        others = ops.arange(ops.shape(cache[0][0])[2])
        mask = self.causal_mask.between(positions[:, None], others)
        rotation = None
        if self.rotary_positions is not None:
            rotation = self.rotary_positions.rotation(positions)
        place = Place(cache[0][0], index, length)
        caches = []
        for block, block_cache in zip(self.blocks, cache, strict=True):
            x, block_cache = block.call_with_cache(
                x, mask, rotation, block_cache, place
            )
            caches.append(block_cache)
        x = ops.reshape(self.final_norm(x), (-1, length, self.hidden_dim))
        return x, tuple(caches)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        # All columns at once; what came from column `length` on is wiped, so that it
        # has no influence.
        length = ops.cast(length, "int32")
        prompt = prompt_of(token_ids, length)
        x = self._embed(prompt)
        mask, rotation = self._tables(x)
        columns = ops.shape(prompt)[1]
        kept = ops.cast(ops.arange(columns) < length, self.compute_dtype)[:, None]
        room = [[0, 0], [0, 0], [0, ops.shape(token_ids)[1] - columns], [0, 0]]
        caches = []
        for block in self.blocks:
            x, cache = block.prefill(x, mask, rotation)
            caches.append(tuple(tf.pad(tensor * kept, room) for tensor in cache))
        return tuple(caches)

    def default_lora_layer_names(self) -> list[str]:
        return ["query_key_value"]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "activation": self.activation,
            "positions": self.positions,
            "rope_base": self.rope_base,
            "normalization": self.normalization,
            "norm_epsilon": self.norm_epsilon,
            "use_bias": self.use_bias,
            "tie_embeddings": self.tie_embeddings,
            "initializer_range": self.initializer_range,
            "dropout": self.dropout,
            "max_sequence_length": self.max_sequence_length,
        }


def _require_known(name: str, value: str, known: Any) -> None:
    require(value in known, f"`{name}` must be one of {tuple(known)}.", **{name: value})


def _dense(
    layer: SelfAttention | FeedForward,
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
    first, second = ops.split(x, 2, axis=-1)
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
