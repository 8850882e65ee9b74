"""The convolutional language models: gated CNN and temporal convolutional network."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...backbone import (
    Cache,
    Tensor,
    prompt_of,
)
from ..network import NetworkBackbone
from .family import GATED_CONV, TCN, GatedConvSettings, TCNSettings
from .layers import EPSILON, GatedConvBlock, TemporalBlock


class ConvBackbone(NetworkBackbone):
    """What both families share: embeddings, blocks, a last normalization, the caches.

    A family makes the blocks, a list of `ConvBlock`, by `make_blocks()`.
    """

    def make_blocks(self, settings: Any, dtype: Any) -> list[Any]:
        """The blocks, from the embeddings on."""
        raise NotImplementedError

    def make_layers(self, settings: Any, dtype: Any) -> None:
        self.make_embeddings(settings, settings.hidden_dim, dtype)
        self.embeddings_dropout = keras.layers.Dropout(
            settings.dropout, dtype=dtype, name="embeddings_dropout"
        )
        self.blocks = self.make_blocks(settings, dtype)
        self.make_residual_scales(dtype)
        self.final_norm = keras.layers.RMSNormalization(
            epsilon=EPSILON, dtype=dtype, name="final_norm"
        )

    def run_layers(self, token_ids: Tensor) -> Tensor:
        x = first = self.embeddings_dropout(self.embed(token_ids))  # (B, T, E)
        for number, block in enumerate(self.blocks):
            # (B, T, F), of the last block (B, T, E)
            x = block(self.scaled(number, x, first))
        return self.final_norm(x)

    def call_packed(
        self, token_ids: Tensor, positions: Tensor, training: bool | None = None
    ) -> Tensor:
        """See `langzoo.models.tasks.packed`."""
        x = self.embed(token_ids, positions=positions, training=training)  # (B, T, E)
        x = first = self.embeddings_dropout(x, training=training)
        for number, block in enumerate(self.blocks):
            x = self.scaled(number, x, first)
            x = block.call_packed(x, positions, training)  # (B, T, F)
        return self.final_norm(x)  # (B, T, E)

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """For each block, the last inputs of its convolutions; zeros before the text.

        Returns:
            A tuple of tuples of tensors of shape
            `(batch_size, (kernel_size - 1) * dilation_rate, conv_dim)`; with n-grams
            the last tokens behind them.
        """
        caches = [block.empty_cache(batch_size) for block in self.blocks]
        return self.joined(caches, self.no_recent(batch_size))

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        return self._consume(token_ids, cache, 1)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        length = ops.cast(length, "int32")
        cache = self.empty_cache(*ops.shape(token_ids))
        return self._consume(prompt_of(token_ids, length), cache, length)[1]

    def _consume(
        self, token_ids: Tensor, cache: Cache, length: Tensor | int
    ) -> tuple[Tensor, Cache]:
        """Hidden states of tokens `(B, T)`, and the cache after `length` of them."""
        before, recent = self.parted(cache)
        x = first = self.embed(token_ids, recent)  # (B, T, E)
        caches = []
        blocks = enumerate(zip(self.blocks, before, strict=True))
        for number, (block, block_cache) in blocks:
            x = self.scaled(number, x, first)
            x, block_cache = block.call_with_cache(x, block_cache, length)  # (B, T, F)
            caches.append(block_cache)
        recent = self.next_recent(recent, token_ids, length)
        return self.final_norm(x), self.joined(caches, recent)  # (B, T, E)


@keras.saving.register_keras_serializable(package="langzoo")
class GatedConvBackbone(ConvBackbone):
    """A gated convolutional network (GCNN) for language.

    Residual blocks of causal convolutions and gated linear units, with or without
    bottlenecks, as Dauphin et al. describe. It departs from the paper where that
    trains faster or is simpler at small sizes: RMSNorm before each block and at the
    end instead of weight normalization, tied embeddings and a full softmax instead of
    an adaptive one.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `GatedConvSettings`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, hidden_dim)`.

    Example:
    ```python
    backbone = GatedConvBackbone(vocabulary_size=260, num_layers=2)
    hidden_states = backbone(
        {
            "token_ids": np.ones((1, 12), "int32"),
            "padding_mask": np.ones((1, 12), "bool"),
        }
    )
    ```

    References:
        - [Dauphin et al., 2017](https://arxiv.org/abs/1612.08083)
    """

    family = GATED_CONV

    def make_blocks(
        self, settings: GatedConvSettings, dtype: Any
    ) -> list[GatedConvBlock]:
        return [
            GatedConvBlock(
                settings.kernel_size,
                settings.bottleneck_dim,
                dropout=settings.dropout,
                scale=settings.num_layers**-0.5,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(settings.num_layers)
        ]

    @property
    def receptive_field(self) -> int:
        """Positions that an output depends on, its own included."""
        return 1 + self.num_layers * (self.kernel_size - 1)

    def default_lora_layer_names(self) -> list[str]:
        return ["dense"]


@keras.saving.register_keras_serializable(package="langzoo")
class TCNBackbone(ConvBackbone):
    """A temporal convolutional network (TCN) for language.

    Residual blocks of two causal convolutions with weight normalization, ReLU and
    dropout of whole channels; the dilation doubles from block to block, as Bai et al.
    describe, with tied embeddings as in their word-level models. It departs from
    the paper in He's initialization instead of a standard deviation of 0.01, and in an
    RMSNorm at the end: with embeddings that are tied, and so begin small, they make
    the first steps count.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `TCNSettings`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, hidden_dim)`.

    Example:
    ```python
    backbone = TCNBackbone(vocabulary_size=260, num_layers=2)
    hidden_states = backbone(
        {
            "token_ids": np.ones((1, 12), "int32"),
            "padding_mask": np.ones((1, 12), "bool"),
        }
    )
    ```

    References:
        - [Bai et al., 2018](https://arxiv.org/abs/1803.01271)
        - [Salimans and Kingma, 2016](https://arxiv.org/abs/1602.07868)
        - [He et al., 2015](https://arxiv.org/abs/1502.01852)
    """

    family = TCN

    def make_blocks(self, settings: TCNSettings, dtype: Any) -> list[TemporalBlock]:
        return [
            TemporalBlock(
                width,
                settings.kernel_size,
                2**i,
                settings.dropout,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i, width in enumerate(settings.widths)
        ]

    @property
    def receptive_field(self) -> int:
        """Positions that an output depends on, its own included."""
        return 1 + 2 * (self.kernel_size - 1) * (2**self.num_layers - 1)
