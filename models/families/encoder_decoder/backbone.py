"""The Transformer encoder-decoder.

In shapes: B sources of S tokens; N targets of T, N a multiple of B; E `hidden_dim`; K
heads of keys and values of width D; M positions of a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ...backbone import Cache, Tensor, normal_initializer, prompt_of
from ...encoder_decoder import SOURCE, TARGET, EncoderDecoderBackbone, Memory
from ..transformer.attention import CachedTables, CausalMask, Filled, PaddingMask
from ..transformer.cross import CrossAttention, CrossBlock
from ..transformer.parts import (
    Positions,
    attention_dropout,
    block_parts,
    drawn_as,
    make_block,
    make_norm,
)
from .family import ENCODER_DECODER, EncoderDecoderSettings


@keras.saving.register_keras_serializable(package="langzoo")
class TransformerEncoderDecoder(EncoderDecoderBackbone):
    """A Transformer encoder and a decoder that attends to it.

    The defaults are those of today, as of `TransformerBackbone`: RMSNorm before each
    branch, rotary positions, SwiGLU, no biases. `family.ARCHITECTURES` holds the
    options that make it the Transformer of 2017 or BART. Output weights are the
    target's embeddings.

    Args:
        vocabulary_size: int. Number of token ids of the target.
        **settings: see `EncoderDecoderSettings`.

    Call arguments:
        inputs: see `EncoderDecoderBackbone`.

    Example:
    ```python
    backbone = TransformerEncoderDecoder(vocabulary_size=260, num_layers=2)
    ```

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Lewis et al., 2019](https://arxiv.org/abs/1910.13461) (BART)
        - [Press and Wolf, 2016](https://arxiv.org/abs/1608.05859) (shared embeddings)
    """

    family = ENCODER_DECODER

    def make_layers(self, settings: EncoderDecoderSettings, dtype: Any) -> None:
        self.make_embeddings(
            settings.hidden_dim,
            dtype,
            tie_weights=settings.tie_embeddings,
            embeddings_initializer=normal_initializer(settings.initializer_range),
        )
        reading, writing = settings.depths
        self.encoder = _Side(settings, SOURCE, self.max_source_length, dtype)
        self.encoder.blocks = [
            make_block(settings, f"encoder_block_{i}", dtype, 2 * reading)
            for i in range(reading)
        ]
        self.decoder = _Side(settings, TARGET, self.max_sequence_length, dtype)
        self.decoder.blocks = [
            _cross_block(settings, f"decoder_block_{i}", dtype, 3 * writing)
            for i in range(writing)
        ]
        self.hide_padding = PaddingMask(dtype=dtype, name="hide_padding")
        self.causal_mask = CausalMask(
            self.max_sequence_length, dtype=dtype, name="causal_mask"
        )

    def run_encoder(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        side = self.encoder
        x = side.dropout(side.read(self.source_embedding(token_ids)))  # (B, S, E)
        mask = self.hide_padding(padding_mask)  # (B, 1, 1, S)
        rotation = side.rotation(x)  # two of (S, D / 2)
        for block in side.blocks:
            x = block(x, mask, rotation)
        return side.finish(x)  # (B, S, E)

    def run_decoder(
        self, token_ids: Tensor, states: Tensor, padding_mask: Tensor
    ) -> Tensor:
        side = self.decoder
        x = side.dropout(side.read(self.token_embedding(token_ids)))  # (B, T, E)
        source_mask = self.hide_padding(padding_mask)  # (B, 1, 1, S)
        mask, rotation = self.causal_mask(x), side.rotation(x)  # (T, T)
        for block in side.blocks:
            x = block(x, mask, states, source_mask, rotation)
        return side.finish(x)  # (B, T, E)

    def memory_of(self, states: Tensor, padding_mask: Tensor) -> Memory:
        """Which tokens are no padding, and keys and values for every decoder block.

        Returns:
            A bool tensor `(B, S)`, and a tuple of pairs of `(B, num_key_value_heads, S,
            head_dim)`.
        """
        return padding_mask, tuple(
            block.cross_attention.keys_and_values(states)
            for block in self.decoder.blocks
        )

    def empty_cache(
        self, batch_size: Tensor, max_length: Tensor, memory: Memory
    ) -> Cache:
        """For each block of the decoder, keys and values of every position.

        Returns:
            A tuple of pairs of tensors, each of shape
            `(N, num_key_value_heads, max_length, head_dim)`.
        """
        heads, width = self.num_key_value_heads, self.hidden_dim // self.num_heads
        zeros = ops.zeros((batch_size, heads, max_length, width), self.compute_dtype)
        return tuple((zeros, zeros) for _ in self.decoder.blocks)

    def call_with_cache(
        self,
        token_ids: Tensor,
        cache: Cache,
        cache_update_index: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Cache]:
        # Like that of the decoder alone, this cache can take several tokens at once.
        side, index = self.decoder, ops.cast(cache_update_index, "int32")
        length = ops.shape(token_ids)[1]
        x = side.read(self.token_embedding(token_ids), index)  # (N, T, E)
        x = ops.reshape(x, (-1, self.hidden_dim))  # (N * T, E)
        tables = CachedTables.of(
            cache[0][0], index, length, self.causal_mask, side.places.rotary
        )
        padding_mask, seen = memory
        source_mask = self.hide_padding(padding_mask)  # (B, 1, 1, S)
        caches = []
        for block, own, memory_of in zip(side.blocks, cache, seen, strict=True):
            x, own = block.call_with_cache(x, tables, own, memory_of, source_mask)
            caches.append(own)
        x = ops.reshape(side.finish(x), (-1, length, self.hidden_dim))  # (N, T, E)
        return x, tuple(caches)

    def prefill(self, token_ids: Tensor, length: Tensor, memory: Memory) -> Cache:
        # All columns at once; what came from column `length` on is wiped, so that it
        # has no influence.
        side, length = self.decoder, ops.cast(length, "int32")
        prompt = prompt_of(token_ids, length)  # (N, T)
        x = side.read(self.token_embedding(prompt))  # (N, T, E)
        mask, rotation = self.causal_mask(x), side.rotation(x)
        columns = ops.shape(prompt)[1]
        kept = ops.cast(ops.arange(columns)[:, None] < length, self.compute_dtype)
        filled = Filled(kept, ops.shape(token_ids)[1] - columns)
        padding_mask, seen = memory
        source_mask = self.hide_padding(padding_mask)
        caches = []
        for block, memory_of in zip(side.blocks, seen, strict=True):
            x, cache = block.prefill(x, mask, rotation, memory_of, source_mask)
            caches.append(filled.cache(cache))
        return tuple(caches)

    def default_lora_layer_names(self) -> list[str]:
        return ["query_key_value", "query", "key_value"]


class _Side:
    """An encoder or a decoder: what is before its blocks, the blocks, what is behind.

    Args:
        settings: resolved.
        name: string. What the names of the layers begin with.
        max_length: int. Of a sequence.
        dtype: string or `keras.DTypePolicy`.
    """

    blocks: Sequence[Any]

    def __init__(
        self, settings: EncoderDecoderSettings, name: str, max_length: int, dtype: Any
    ) -> None:
        self.places = Positions(settings, max_length, dtype, f"{name}_")
        self.dropout = keras.layers.Dropout(
            settings.dropout, dtype=dtype, name=f"{name}_embeddings_dropout"
        )
        self.embeddings_norm = self._final_norm = None
        if settings.embeddings_norm:
            self.embeddings_norm = make_norm(settings, f"{name}_embeddings_norm", dtype)
        if not settings.post_norm:
            self._final_norm = make_norm(settings, f"{name}_final_norm", dtype)

    def read(self, x: Tensor, index: Tensor | int = 0) -> Tensor:
        """Embeddings of tokens as those of tokens in their places, from `index` on."""
        x = self.places.added(x, index)
        return x if self.embeddings_norm is None else self.embeddings_norm(x)

    def rotation(self, x: Tensor) -> Any:
        """How far the queries and keys of a whole sequence are turned, if they are."""
        return None if self.places.rotary is None else self.places.rotary(x)

    def finish(self, x: Tensor) -> Tensor:
        """The states, of what the last block gives."""
        return x if self._final_norm is None else self._final_norm(x)


def _cross_block(
    settings: EncoderDecoderSettings, name: str, dtype: Any, num_branches: int
) -> CrossBlock:
    cross = CrossAttention(
        settings.num_heads,
        settings.num_key_value_heads or settings.num_heads,
        dropout=attention_dropout(settings),
        name="cross_attention",
        **drawn_as(settings, dtype, num_branches),
    )
    return CrossBlock(
        cross_attention=cross,
        cross_norm=make_norm(settings, "cross_norm", dtype),
        name=name,
        **block_parts(settings, dtype, num_branches),
    )
