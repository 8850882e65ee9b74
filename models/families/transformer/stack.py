"""What Transformers have in common, whatever a position may see.

In shapes: B rows, T positions, E `hidden_dim`; K heads of keys and values of width D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub
from keras import ops

from ...backbone import Tensor, normal_initializer
from ..network import NetworkBackbone
from .attention import RotaryPositions, Rotation, SelfAttention, ValueEmbedding
from .block import DecoderBlock, FeedForward
from .family import TransformerSettings


class TransformerStack(NetworkBackbone):
    """Base class of Transformers: embeddings, blocks, norms; the masks are missing."""

    def make_layers(self, settings: TransformerSettings, dtype: Any) -> None:
        self.make_embeddings(
            *(settings, settings.hidden_dim, dtype),
            tie=settings.tie_embeddings,
            stddev=settings.initializer_range,
        )
        self.position_embedding = self._position_embedding(dtype)
        self.embeddings_dropout = keras.layers.Dropout(
            settings.dropout, dtype=dtype, name="embeddings_dropout"
        )
        self.rotary_positions = None
        if settings.positions == "rotary":
            self.rotary_positions = RotaryPositions(
                settings.hidden_dim // settings.num_heads,
                settings.rope_base,
                dtype=dtype,
                name="rotary_positions",
            )
        self.blocks = [
            self._block(f"block_{i}", dtype) for i in range(settings.num_layers)
        ]
        self.make_residual_scales(dtype)
        without = settings.num_layers - settings.value_embeddings
        self.value_embedding_layers = [
            self._value_embedding(f"value_embedding_{i}", dtype)
            for i in range(without, settings.num_layers)
        ]
        self.embeddings_norm = self.final_norm = None
        name = "embeddings_norm" if settings.post_norm else "final_norm"
        setattr(self, name, self._norm(name, dtype))

    def rotation(self, x: Tensor) -> Rotation | None:
        """How far the queries and keys of a whole sequence are turned, if they are."""
        return None if self.rotary_positions is None else self.rotary_positions(x)

    def _everywhere(self, x: Tensor) -> Tensor:
        """What is added to the scores of a sequence without padding, `(T, T)`."""
        raise NotImplementedError

    def _through_blocks(
        self,
        token_ids: Tensor,
        x: Tensor,
        run: Callable[[DecoderBlock, Tensor, Tensor | None], Tensor],
    ) -> Tensor:
        """The hidden states of what all blocks, run in turn, make of embeddings.

        `run` takes a block, the stream that it reads, and what is added to its values.
        """
        first = x  # (B, T, E), as all that follows
        without = len(self.blocks) - len(self.value_embedding_layers)
        for number, block in enumerate(self.blocks):
            added = None  # (B, T, K, D)
            if number >= without:
                added = self.value_embedding_layers[number - without](token_ids)
            x = run(block, self.scaled(number, x, first), added)
        return x if self.final_norm is None else self.final_norm(x)

    @property
    def embedding_layers(self) -> list[keras.layers.Layer]:
        return super().embedding_layers + self.value_embedding_layers

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

    def _value_embedding(self, name: str, dtype: Any) -> ValueEmbedding:
        return ValueEmbedding(
            self.vocabulary_size,
            self.num_key_value_heads,
            self.hidden_dim // self.num_heads,
            stddev=self.initializer_range,
            dtype=dtype,
            name=name,
        )

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
                dropout=(
                    self.dropout
                    if self.attention_dropout is None
                    else self.attention_dropout
                ),
                qk_norm=self.norm_epsilon if self.qk_norm else None,
                name="attention",
                **drawn,
            ),
            feedforward=FeedForward(
                self.intermediate_dim, self.activation, name="feedforward", **drawn
            ),
            attention_norm=self._norm("attention_norm", dtype),
            feedforward_norm=self._norm("feedforward_norm", dtype),
            dropout=self.dropout,
            post_norm=self.post_norm,
            dtype=dtype,
            name=name,
        )

    def _embed(
        self,
        token_ids: Tensor,
        index: Tensor | int = 0,
        recent: Tensor | None = None,
        positions: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        """Embeddings `(B, T, E)` of tokens `(B, T)` from position `index` on.

        Or at positions, int32 `(B, T)`; `recent` are the tokens before.
        """
        x = self.embed(token_ids, recent, positions, training)  # (B, T, E)
        if self.position_embedding is not None:
            x = self._placed(x, index, positions)
        return x if self.embeddings_norm is None else self.embeddings_norm(x)

    def _placed(
        self, x: Tensor, index: Tensor | int, positions: Tensor | None
    ) -> Tensor:
        """Embeddings with those of their positions."""
        assert self.position_embedding is not None
        if self.positions == "sinusoidal":
            x = x * self.hidden_dim**0.5
            if positions is not None:
                positions = ops.cast(positions, "float32")
        # (T, E) or (B, T, E)
        vectors = self.position_embedding(x, start_index=index, positions=positions)
        return x + ops.cast(vectors, x.dtype)

    def attention_weights(self, token_ids: Tensor) -> Tensor:
        """How much each position attends to each other, in every layer and head.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.

        Returns:
            A tensor of shape `(batch_size, num_layers, num_heads, sequence_length,
            sequence_length)`; the last axis, the positions attended to, sums to one.
        """
        x = self._embed(token_ids)  # (B, T, E)
        mask, rotation = self._everywhere(x), self.rotation(x)
        weights = []

        def run(block: DecoderBlock, x: Tensor, added: Tensor | None) -> Tensor:
            attention = block.attention  # of which H heads look, at all T positions
            weights.append(attention.attention_weights(block.read(x), mask, rotation))
            return block(x, mask, rotation, added)

        self._through_blocks(token_ids, x, run)
        return ops.stack(weights, axis=1)  # (B, layers, H, T, T)

    def default_lora_layer_names(self) -> list[str]:
        return ["query_key_value"]
