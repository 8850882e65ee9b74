"""What Transformers have in common, whatever a position may see.

In shapes: B rows, T positions, E `hidden_dim`; K heads of keys and values of width D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from ...backbone import Tensor
from ..network import NetworkBackbone
from .attention import Rotation, ValueEmbedding
from .block import DecoderBlock
from .family import TransformerSettings
from .parts import Positions, make_block, make_norm


class TransformerStack(NetworkBackbone):
    """Base class of Transformers: embeddings, blocks, norms; the masks are missing."""

    def make_layers(self, settings: TransformerSettings, dtype: Any) -> None:
        self.make_embeddings(
            *(settings, settings.hidden_dim, dtype),
            tie=settings.tie_embeddings,
            stddev=settings.initializer_range,
        )
        self.places = Positions(settings, self.max_sequence_length, dtype)
        self.position_embedding = self.places.embedding
        self.rotary_positions = self.places.rotary
        self.embeddings_dropout = keras.layers.Dropout(
            settings.dropout, dtype=dtype, name="embeddings_dropout"
        )
        self.blocks = [
            make_block(settings, f"block_{i}", dtype, 2 * settings.num_layers)
            for i in range(settings.num_layers)
        ]
        self.make_residual_scales(dtype)
        without = settings.num_layers - settings.value_embeddings
        self.value_embedding_layers = [
            self._value_embedding(f"value_embedding_{i}", dtype)
            for i in range(without, settings.num_layers)
        ]
        self.embeddings_norm = self.final_norm = None
        name = "embeddings_norm" if settings.post_norm else "final_norm"
        setattr(self, name, make_norm(settings, name, dtype))

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

    def _value_embedding(self, name: str, dtype: Any) -> ValueEmbedding:
        return ValueEmbedding(
            self.vocabulary_size,
            self.num_key_value_heads,
            self.hidden_dim // self.num_heads,
            stddev=self.initializer_range,
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
        x = self.places.added(x, index, positions)
        return x if self.embeddings_norm is None else self.embeddings_norm(x)

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
