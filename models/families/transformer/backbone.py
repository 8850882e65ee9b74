"""The Transformer decoder."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from ...backbone import (
    Cache,
    CausalBackbone,
    Tensor,
    normal_initializer,
    prompt_of,
    require,
    token_inputs,
)
from .attention import CausalMask, Place, RotaryPositions, Rotation, SelfAttention
from .block import ACTIVATIONS, DecoderBlock, FeedForward
from .family import TRANSFORMER

POSITIONS = ("rotary", "learned", "sinusoidal")
NORMALIZATIONS = ("rms_norm", "layer_norm")


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

    family = TRANSFORMER

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
            width = 4 * hidden_dim
            intermediate_dim = (
                -(-2 * width // 24) * 8 if activation == "swiglu" else width
            )

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
        """See `langzoo.models.tasks.packed`."""
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
