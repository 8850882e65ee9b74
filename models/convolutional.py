"""The gated convolutional language model."""

from __future__ import annotations

from typing import Any

import keras
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

_EPSILON = 1e-6


class GatedConvBlock(keras.layers.Layer):
    """One pre-norm residual block: a causal convolution and a gated linear unit.

    With `[a, b] = conv(norm(x))`, the output is `x + W (a * sigmoid(b))`, where W, and
    a projection before the convolution, are there only if `bottleneck_dim` is given.

    Args:
        kernel_size: int. Positions that an output sees, its own included.
        bottleneck_dim: int or `None`. Width of the convolution, if not `hidden_dim`.
        dropout: float. Dropout on the branch.
        scale: float. Factor on the standard deviation of the first weights, so that
            the sum of many branches does not grow with their number.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.

    References:
        - [Dauphin et al., 2017](https://arxiv.org/abs/1612.08083)
    """

    def __init__(
        self,
        kernel_size: int,
        bottleneck_dim: int | None = None,
        dropout: float = 0.0,
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.bottleneck_dim = bottleneck_dim
        self.dropout = dropout
        self.scale = scale

    def build(self, input_shape: Any) -> None:
        hidden_dim = input_shape[-1]
        width = self.bottleneck_dim or hidden_dim
        norm = keras.layers.RMSNormalization(
            epsilon=_EPSILON, dtype=self.dtype_policy, name="norm"
        )
        self.norm = built(norm, hidden_dim)
        # A dense layer over the last `kernel_size` positions: the same sums as a
        # convolution, and one large matrix product.
        self.conv = self._dense(
            "conv", self.kernel_size * width, 2 * width, use_bias=True
        )
        if self.bottleneck_dim is not None:
            self.project_in = self._dense("project_in", hidden_dim, width)
            self.project_out = self._dense("project_out", width, hidden_dim)
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.built = True

    def _dense(
        self, name: str, inputs: int, outputs: int, use_bias: bool = False
    ) -> Any:
        layer = keras.layers.Dense(
            outputs,
            use_bias=use_bias,
            kernel_initializer=keras.initializers.VarianceScaling(self.scale**2),
            dtype=self.dtype_policy,
            name=name,
        )
        return built(layer, inputs)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        inputs = self.conv_inputs(x)
        padding = ((0, 0), (self.kernel_size - 1, 0), (0, 0))
        return self._finish(x, ops.pad(inputs, padding), training)

    def conv_inputs(self, x: Tensor) -> Tensor:
        """What the convolution reads: `(batch_size, sequence_length, conv_dim)`."""
        x = self.norm(x)
        return x if self.bottleneck_dim is None else self.project_in(x)

    def call_with_cache(self, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Consumes one position.

        Args:
            x: tensor of shape `(batch_size, 1, hidden_dim)`.
            cache: the inputs of the convolution at the `kernel_size - 1` positions
                before, `(batch_size, kernel_size - 1, conv_dim)`.

        Returns:
            The output `(batch_size, 1, hidden_dim)` and the cache.
        """
        window = ops.concatenate([cache, self.conv_inputs(x)], axis=1)
        return self._finish(x, window, False), window[:, 1:]

    def _finish(self, x: Tensor, padded: Tensor, training: bool | None) -> Tensor:
        length = ops.shape(x)[1]
        windows = ops.concatenate(
            [padded[:, i : i + length] for i in range(self.kernel_size)], axis=-1
        )  # (B, T, kernel_size * conv_dim)
        value, gate = ops.split(self.conv(windows), 2, axis=-1)
        branch = value * ops.sigmoid(gate)
        if self.bottleneck_dim is not None:
            branch = self.project_out(branch)
        return x + self.dropout_layer(branch, training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "bottleneck_dim": self.bottleneck_dim,
            "dropout": self.dropout,
            "scale": self.scale,
        }


@keras.saving.register_keras_serializable(package="langzoo")
class GatedConvBackbone(CausalBackbone):
    """A gated convolutional network (GCNN) for language.

    Blocks of a causal convolution and a gated linear unit with residual connections,
    as Dauphin et al. describe. It departs from the paper where that trains faster or
    is simpler at small sizes: RMSNorm before each convolution and at the end instead
    of weight normalization, a residual around every convolution, tied embeddings and
    a full softmax instead of an adaptive one.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. Blocks. Defaults to 6.
        hidden_dim: int. Width of the residual stream. Defaults to 128.
        kernel_size: int. Positions that a convolution sees, so that the network sees
            `num_layers * (kernel_size - 1) + 1`. Defaults to 4.
        bottleneck_dim: int or `None`. Width of the convolutions between projections
            from and to `hidden_dim`. Defaults to `None`, no projections.
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
        require(
            kernel_size >= 2,
            "`kernel_size` must be at least 2.",
            kernel_size=kernel_size,
        )

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
        self.blocks = [
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
        self.final_norm = keras.layers.RMSNormalization(
            epsilon=_EPSILON, dtype=dtype, name="final_norm"
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
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.kernel_size = kernel_size
        self.bottleneck_dim = bottleneck_dim
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """For each block, the last inputs of its convolution; zeros before the text.

        Returns:
            A tuple of tensors of shape `(batch_size, kernel_size - 1, conv_dim)`.
        """
        width = self.bottleneck_dim or self.hidden_dim
        zeros = ops.zeros((batch_size, self.kernel_size - 1, width), self.compute_dtype)
        return tuple(zeros for _ in self.blocks)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        x = self.token_embedding(token_ids)
        caches = []
        for block, block_cache in zip(self.blocks, cache, strict=True):
            x, block_cache = block.call_with_cache(x, block_cache)
            caches.append(block_cache)
        return self.final_norm(x), tuple(caches)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        # With kernel_size - 1 zeros before the text, columns `length` to
        # `length + kernel_size - 2` are the last inputs before position `length`.
        columns = ops.cast(length, "int32") + ops.arange(self.kernel_size - 1)
        padding = ((0, 0), (self.kernel_size - 1, 0), (0, 0))
        x = self.token_embedding(token_ids)
        caches = []
        for block in self.blocks:
            padded = ops.pad(block.conv_inputs(x), padding)
            caches.append(ops.take(padded, columns, axis=1))
            x = block(x, training=False)
        return tuple(caches)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "kernel_size": self.kernel_size,
            "bottleneck_dim": self.bottleneck_dim,
            "dropout": self.dropout,
            "max_sequence_length": self.max_sequence_length,
        }
