"""The convolutional encoder-decoder.

In shapes: B sources of S tokens; N targets of T, N a multiple of B; E `hidden_dim`.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
from keras import ops

from ...backbone import Cache, Tensor, normal_initializer, prompt_of
from ...encoder_decoder import EncoderDecoderBackbone, Memory
from ..convolutional.layers import EPSILON, GatedConvBlock
from .family import CONVOLUTIONAL_ENCODER_DECODER, ConvolutionalEncoderDecoderSettings
from .layers import CentredBlock, SourceAttention


@keras.saving.register_keras_serializable(package="langzoo")
class ConvolutionalEncoderDecoder(EncoderDecoderBackbone):
    """Gated convolutions that read a source, and others that write and attend to it.

    As Gehring et al. describe it, with learned positions on both sides and attention in
    each block of the decoder. It departs from them as `GatedConvBackbone` does, in
    RMSNorm before each branch and at the end in place of weight normalization and of
    scaled sums; and the products of attention are scaled, as Vaswani et al. do.

    Args:
        vocabulary_size: int. Number of token ids of the target.
        **settings: see `ConvolutionalEncoderDecoderSettings`.

    Call arguments:
        inputs: see `EncoderDecoderBackbone`.

    Example:
    ```python
    backbone = ConvolutionalEncoderDecoder(vocabulary_size=260, num_layers=2)
    ```

    References:
        - [Gehring et al., 2017](https://arxiv.org/abs/1705.03122)
        - [Dauphin et al., 2017](https://arxiv.org/abs/1612.08083) (gates)
    """

    family = CONVOLUTIONAL_ENCODER_DECODER

    def make_layers(
        self, settings: ConvolutionalEncoderDecoderSettings, dtype: Any
    ) -> None:
        self.make_embeddings(
            settings.hidden_dim, dtype, embeddings_initializer=normal_initializer()
        )
        self.source_positions, self.target_positions = (
            keras_hub.layers.PositionEmbedding(
                length, initializer=normal_initializer(), dtype=dtype, name=name
            )
            for length, name in (
                (self.max_source_length, "source_positions"),
                (self.max_sequence_length, "target_positions"),
            )
        )
        self.source_dropout, self.target_dropout = (
            keras.layers.Dropout(settings.dropout, dtype=dtype, name=name)
            for name in ("source_dropout", "target_dropout")
        )
        encoder, decoder = settings.depths
        branch = {"dropout": settings.dropout, "dtype": dtype}
        self.encoder_blocks = [
            CentredBlock(
                settings.kernel_size,
                scale=encoder**-0.5,
                name=f"encoder_block_{i}",
                **branch,
            )
            for i in range(encoder)
        ]
        # Two branches of each write into the stream.
        branch["scale"] = (2 * decoder) ** -0.5
        self.decoder_blocks = [
            GatedConvBlock(settings.kernel_size, name=f"decoder_block_{i}", **branch)
            for i in range(decoder)
        ]
        self.attentions = [
            SourceAttention(name=f"attention_{i}", **branch) for i in range(decoder)
        ]
        self.encoder_norm, self.final_norm = (
            keras.layers.RMSNormalization(epsilon=EPSILON, dtype=dtype, name=name)
            for name in ("encoder_norm", "final_norm")
        )

    def run_encoder(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        x = embeddings = self.source_dropout(self._source(token_ids))  # (B, S, E)
        for block in self.encoder_blocks:
            x = block(x, padding_mask)
        # Keys, and what is added to them for values, side by side.
        return ops.concatenate([self.encoder_norm(x), embeddings], axis=-1)

    def run_decoder(
        self, token_ids: Tensor, states: Tensor, padding_mask: Tensor
    ) -> Tensor:
        x = embeddings = self.target_dropout(self._target(token_ids))  # (B, T, E)
        mask, keys, values = self.memory_of(states, padding_mask)
        for block, attention in self._blocks():
            x = attention(block(x), embeddings, keys, values, mask)
        return self.final_norm(x)  # (B, T, E)

    def memory_of(self, states: Tensor, padding_mask: Tensor) -> Memory:
        """Which tokens are no padding, keys and values, the same for all blocks.

        Returns:
            A bool tensor `(B, S)`, and two tensors `(B, S, hidden_dim)`.
        """
        keys, embeddings = ops.split(states, 2, axis=-1)
        return padding_mask, keys, keys + embeddings

    def empty_cache(
        self, batch_size: Tensor, max_length: Tensor, memory: Memory
    ) -> Cache:
        """For each block of the decoder, the last inputs of its convolution: zeros.

        Returns:
            A tuple of tuples of a tensor `(N, kernel_size - 1, hidden_dim)`.
        """
        return tuple(block.empty_cache(batch_size) for block in self.decoder_blocks)

    def call_with_cache(
        self,
        token_ids: Tensor,
        cache: Cache,
        cache_update_index: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Cache]:
        index = ops.cast(cache_update_index, "int32")
        return self._consume(token_ids, cache, index, 1, memory)

    def prefill(self, token_ids: Tensor, length: Tensor, memory: Memory) -> Cache:
        length = ops.cast(length, "int32")
        rows, columns = ops.shape(token_ids)
        cache = self.empty_cache(rows, columns, memory)
        return self._consume(prompt_of(token_ids, length), cache, 0, length, memory)[1]

    def _consume(
        self,
        token_ids: Tensor,
        cache: Cache,
        index: Tensor | int,
        length: Tensor | int,
        memory: Memory,
    ) -> tuple[Tensor, Cache]:
        """Hidden states of tokens `(N, T)`, and the cache after `length` of them."""
        x = embeddings = self._target(token_ids, index)  # (N, T, E)
        mask, keys, values = memory
        caches = []
        for (block, attention), before in zip(self._blocks(), cache, strict=True):
            x, after = block.call_with_cache(x, before, length)
            x = attention(x, embeddings, keys, values, mask)
            caches.append(after)
        return self.final_norm(x), tuple(caches)

    def _blocks(self) -> Any:
        return zip(self.decoder_blocks, self.attentions, strict=True)

    def _source(self, token_ids: Tensor) -> Tensor:
        x = self.source_embedding(token_ids)  # (B, S, E)
        return x + self.source_positions(x)

    def _target(self, token_ids: Tensor, index: Tensor | int = 0) -> Tensor:
        x = self.token_embedding(token_ids)  # (N, T, E)
        return x + self.target_positions(x, start_index=index)

    def default_lora_layer_names(self) -> list[str]:
        return ["dense", "query", "output"]
