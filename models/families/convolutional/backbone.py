"""The convolutional language models: gated CNN and temporal convolutional network."""

from __future__ import annotations

from typing import Any

import keras
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
from .family import GATED_CONV, TCN
from .layers import EPSILON, GatedConvBlock, TemporalBlock


class ConvBackbone(CausalBackbone):
    """What both families share: embeddings, blocks, a last normalization, the caches.

    Args:
        vocabulary_size: int. Number of token ids.
        hidden_dim: int. Width of the embeddings and of the output.
        blocks: list of `ConvBlock`.
        dropout: float. Dropout on the embeddings.
        max_sequence_length: int. Longest input that the model is made for.
        dtype: string or `keras.DTypePolicy`. Of computations and weights.
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        blocks: list[Any],
        dropout: float,
        max_sequence_length: int,
        dtype: Any,
        **kwargs: Any,
    ) -> None:
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
        self.blocks = blocks
        self.final_norm = keras.layers.RMSNormalization(
            epsilon=EPSILON, dtype=dtype, name="final_norm"
        )

        # === Functional Model ===
        inputs = token_inputs()
        x = self.embeddings_dropout(self.token_embedding(inputs["token_ids"]))
        for block in self.blocks:
            x = block(x)
        super().__init__(
            inputs=inputs, outputs=self.final_norm(x), dtype=dtype, **kwargs
        )

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length

    def call_packed(
        self, token_ids: Tensor, positions: Tensor, training: bool | None = None
    ) -> Tensor:
        """See `langzoo.models.tasks.packed`."""
        x = self.token_embedding(token_ids)
        x = self.embeddings_dropout(x, training=training)
        for block in self.blocks:
            x = block.call_packed(x, positions, training)
        return self.final_norm(x)

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """For each block, the last inputs of its convolutions; zeros before the text.

        Returns:
            A tuple of tuples of tensors of shape
            `(batch_size, (kernel_size - 1) * dilation_rate, conv_dim)`.
        """
        return tuple(block.empty_cache(batch_size) for block in self.blocks)

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
        x = self.token_embedding(token_ids)
        caches = []
        for block, block_cache in zip(self.blocks, cache, strict=True):
            x, block_cache = block.call_with_cache(x, block_cache, length)
            caches.append(block_cache)
        return self.final_norm(x), tuple(caches)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout,
            "max_sequence_length": self.max_sequence_length,
        }


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
        num_layers: int. Blocks. Defaults to 6.
        hidden_dim: int. Width of the residual stream. Defaults to 128.
        kernel_size: int. Positions that a convolution sees, so that the network sees
            `num_layers * (kernel_size - 1) + 1`. Defaults to 4.
        bottleneck_dim: int or `None`. Width of the convolutions, between two of kernel
            size 1 that come from and go to `hidden_dim`. Defaults to `None`, no
            bottlenecks.
        dropout: float. Dropout on embeddings and branches. Defaults to 0.
        max_sequence_length: int. Longest input that the model is made for; no weight
            depends on it. Defaults to 128.
        dtype: string or `keras.DTypePolicy`. Of computations and weights.

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

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 6,
        hidden_dim: int = 128,
        kernel_size: int = 4,
        bottleneck_dim: int | None = None,
        dropout: float = 0.0,
        max_sequence_length: int = 128,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        _require_kernel(kernel_size)
        blocks = [
            GatedConvBlock(
                kernel_size,
                bottleneck_dim,
                dropout=dropout,
                scale=num_layers**-0.5,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        super().__init__(
            vocabulary_size,
            hidden_dim,
            blocks,
            dropout,
            max_sequence_length,
            dtype,
            **kwargs,
        )

        # === Config ===
        self.num_layers = num_layers
        self.kernel_size = kernel_size
        self.bottleneck_dim = bottleneck_dim

    @property
    def receptive_field(self) -> int:
        """Positions that an output depends on, its own included."""
        return 1 + self.num_layers * (self.kernel_size - 1)

    def default_lora_layer_names(self) -> list[str]:
        return ["dense"]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "bottleneck_dim": self.bottleneck_dim,
        }


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
        num_layers: int. Blocks, of dilations 1, 2, 4, ... Defaults to 4.
        hidden_dim: int. Width of the embeddings and of the last block. Defaults to
            128.
        filters: int or `None`. Width of the other blocks. Defaults to `None`, which is
            `hidden_dim`.
        kernel_size: int. Positions that a convolution sees, so that the network sees
            `1 + 2 * (kernel_size - 1) * (2**num_layers - 1)`. Defaults to 3.
        dropout: float. Dropout on embeddings and after each convolution. Defaults
            to 0.
        max_sequence_length: int. Longest input that the model is made for; no weight
            depends on it. Defaults to 128.
        dtype: string or `keras.DTypePolicy`. Of computations and weights.

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

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 4,
        hidden_dim: int = 128,
        filters: int | None = None,
        kernel_size: int = 3,
        dropout: float = 0.0,
        max_sequence_length: int = 128,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        _require_kernel(kernel_size)
        if filters is None:
            filters = hidden_dim
        widths = [filters] * (num_layers - 1) + [hidden_dim]
        blocks = [
            TemporalBlock(
                width, kernel_size, 2**i, dropout, dtype=dtype, name=f"block_{i}"
            )
            for i, width in enumerate(widths)
        ]
        super().__init__(
            vocabulary_size,
            hidden_dim,
            blocks,
            dropout,
            max_sequence_length,
            dtype,
            **kwargs,
        )

        # === Config ===
        self.num_layers = num_layers
        self.filters = filters
        self.kernel_size = kernel_size

    @property
    def receptive_field(self) -> int:
        """Positions that an output depends on, its own included."""
        return 1 + 2 * (self.kernel_size - 1) * (2**self.num_layers - 1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
        }


def _require_kernel(kernel_size: int) -> None:
    require(
        kernel_size >= 2, "`kernel_size` must be at least 2.", kernel_size=kernel_size
    )
