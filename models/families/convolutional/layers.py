"""Causal convolutions, and the blocks of both convolutional families.

In shapes: B rows, T positions, P of the past, E `hidden_dim`, I inputs and F filters of
a convolution.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...backbone import (
    Cache,
    Tensor,
    built,
    holds_matrices,
)
from ..fusion import fused

EPSILON = 1e-6


def _glu(x: Tensor) -> Tensor:
    """`(..., 2 D)`, value and gate, to `(..., D)`."""
    value, gate = ops.split(x, 2, axis=-1)  # (..., D) each
    return value * ops.sigmoid(gate)


_fused_glu = fused(_glu)


class WeightNormDense(keras.layers.Layer):
    """A dense layer with weight normalization: `x (gain v / |v|) + bias`.

    Each column of the kernel `v` is divided by its length, so that its direction and
    its `gain` are learned apart. At first the gain is the length of `v`.

    Args:
        units: int. Width of the output.
        kernel_initializer: initializer of `v`.

    Call arguments:
        x: tensor of shape `(..., input_dim)`; the output is `(..., units)`.

    References:
        - [Salimans and Kingma, 2016](https://arxiv.org/abs/1602.07868)
    """

    def __init__(
        self, units: int, kernel_initializer: Any = "he_normal", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: Any) -> None:
        self.direction = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            name="direction",
        )
        self.gain = self.add_weight(
            shape=(self.units,), initializer="ones", name="gain"
        )
        self.gain.assign(self._lengths())
        self.bias = self.add_weight(
            shape=(self.units,), initializer="zeros", name="bias"
        )
        self.built = True

    def _lengths(self) -> Tensor:
        return ops.sqrt(ops.sum(ops.square(self.direction), axis=0))

    @property
    def kernel(self) -> Tensor:
        """The effective kernel, `(input_dim, units)`."""
        return self.direction * (self.gain / self._lengths())

    def call(self, x: Tensor) -> Tensor:
        return ops.matmul(x, self.kernel) + self.bias  # (..., F)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


class CausalConv(keras.layers.Layer):
    """A causal convolution, perhaps dilated, as one dense layer.

    The output at position t is the dense layer's for the inputs at positions
    `t - (kernel_size - 1) * dilation_rate, ..., t - dilation_rate, t` one after the
    other: the same sums as a convolution, and one large matrix product.

    Args:
        dense: a `keras.layers.Dense` or `WeightNormDense`, not built yet.
        kernel_size: int. Positions that an output sees, its own included.
        dilation_rate: int. Distance between them. Defaults to 1.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, input_dim)`; the output is
            `(batch_size, sequence_length, units)`.
        positions: int32 tensor of shape `(batch_size, sequence_length)`, each place's
            distance from the beginning of its document, before which nothing is seen;
            or `None`, if a row is one document.
    """

    def __init__(
        self,
        dense: keras.layers.Layer,
        kernel_size: int,
        dilation_rate: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dense = dense
        self.kernel_size = kernel_size
        self.dilation_rate = dilation_rate
        self.past = (kernel_size - 1) * dilation_rate

    def build(self, input_shape: Any) -> None:
        self.input_dim = input_shape[-1]
        built(self.dense, self.kernel_size * self.input_dim)
        self.built = True

    def call(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        padded = ops.pad(x, ((0, 0), (self.past, 0), (0, 0)))  # (B, P + T, I)
        return self._convolve(padded, positions)  # (B, T, F)

    def centred(self, x: Tensor) -> Tensor:
        """As a call, with an output in the middle of what it sees, of an odd kernel."""
        half = self.past // 2
        return self._convolve(ops.pad(x, ((0, 0), (half, half), (0, 0))))  # (B, T, F)

    def empty_cache(self, batch_size: Tensor) -> Tensor:
        """The inputs before the text: zeros `(batch_size, past, input_dim)`."""
        return ops.zeros((batch_size, self.past, self.input_dim), self.compute_dtype)

    def call_with_cache(
        self, x: Tensor, cache: Tensor, length: Tensor | int
    ) -> tuple[Tensor, Tensor]:
        """Goes on from the inputs in the cache.

        Args:
            x: tensor of shape `(batch_size, sequence_length, input_dim)`.
            cache: the `past` inputs before it, `(batch_size, past, input_dim)`, where
                `past` is `(kernel_size - 1) * dilation_rate`.
            length: int or int32 scalar tensor. How many columns of `x` the new cache
                is to include.

        Returns:
            The output `(batch_size, sequence_length, units)` and the cache.
        """
        padded = ops.concatenate([cache, x], axis=1)  # (B, P + T, I)
        shape = (ops.shape(x)[0], self.past, self.input_dim)
        cache = ops.slice(padded, (0, length, 0), shape)  # (B, P, I)
        return self._convolve(padded), cache

    def _convolve(self, padded: Tensor, positions: Tensor | None = None) -> Tensor:
        length = ops.shape(padded)[1] - self.past
        starts = range(0, self.past + 1, self.dilation_rate)
        windows = [padded[:, start : start + length] for start in starts]  # (B, T, I)
        if positions is not None:
            windows = [
                window
                * ops.cast(positions >= self.past - start, window.dtype)[..., None]
                for start, window in zip(starts, windows, strict=True)
            ]
        inputs = ops.concatenate(windows, axis=-1)  # (B, T, kernel_size * I)
        return self.dense(inputs)  # (B, T, F)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.dense.units)


class ConvBlock(keras.layers.Layer):
    """What the blocks of both families share: convolutions one after the other.

    A block implements `call()` by `_forward()`, and there calls each convolution by
    the function that it is given: over a whole sequence, or going on from a cache.

    Args:
        dropout: float. Dropout of the block.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, input_dim)`.
    """

    convs: list[CausalConv]

    def __init__(self, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = dropout

    def _forward(self, x: Tensor, convolve: Any, training: bool | None) -> Tensor:
        """The block's output, with `convolve(conv, x)` for each convolution's."""
        raise NotImplementedError

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return self._forward(x, lambda conv, inputs: conv(inputs), training)

    def call_packed(
        self, x: Tensor, positions: Tensor, training: bool | None = None
    ) -> Tensor:
        """As a call, for rows of several documents; see `CausalConv`."""
        return self._forward(x, lambda conv, inputs: conv(inputs, positions), training)

    def empty_cache(self, batch_size: Tensor) -> Cache:
        """A cache for each convolution that sees more than one position."""
        return tuple(conv.empty_cache(batch_size) for conv in self.convs if conv.past)

    def call_with_cache(
        self, x: Tensor, cache: Cache, length: Tensor | int
    ) -> tuple[Tensor, Cache]:
        """Goes on from a cache; see `CausalConv.call_with_cache`."""
        before, after = iter(cache), []

        def convolve(conv: CausalConv, inputs: Tensor) -> Tensor:
            if not conv.past:
                return conv(inputs)
            outputs, conv_cache = conv.call_with_cache(inputs, next(before), length)
            after.append(conv_cache)
            return outputs

        return self._forward(x, convolve, False), tuple(after)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dropout": self.dropout}


class GatedConvBlock(ConvBlock):
    """A pre-norm residual block of gated convolutions.

    A gated convolution is `a * sigmoid(b)` with `[a, b] = conv(x)`. The block is
    `x + gated(norm(x))`, and with a bottleneck three of them, of kernel sizes 1,
    `kernel_size` and 1.

    Args:
        kernel_size: int. Positions that an output sees, its own included.
        bottleneck_dim: int or `None`. Width of the convolution, if not `hidden_dim`.
        dropout: float. Dropout on the branch.
        scale: float. Factor on the standard deviation of the weights that write into
            the residual stream, so that it does not grow with the number of blocks.

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
        super().__init__(dropout, **kwargs)
        self.kernel_size = kernel_size
        self.bottleneck_dim = bottleneck_dim
        self.scale = scale

    def build(self, input_shape: Any) -> None:
        dim, width = input_shape[-1], self.bottleneck_dim
        norm = keras.layers.RMSNormalization(
            epsilon=EPSILON, dtype=self.dtype_policy, name="norm"
        )
        self.norm = built(norm, dim)
        conv = self._conv
        if width is None:
            self.convs = [conv("conv", self.kernel_size, dim, dim, self.scale)]
        else:
            self.convs = [
                conv("project_in", 1, dim, width),
                conv("conv", self.kernel_size, width, width),
                conv("project_out", 1, width, dim, self.scale),
            ]
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.built = True

    def _conv(
        self, name: str, kernel_size: int, inputs: int, outputs: int, scale: float = 1.0
    ) -> keras.layers.Layer:
        dense = keras.layers.Dense(
            2 * outputs,
            kernel_initializer=keras.initializers.VarianceScaling(scale**2),
            dtype=self.dtype_policy,
            name="dense",
        )
        conv = CausalConv(dense, kernel_size, dtype=self.dtype_policy, name=name)
        built(conv, inputs)
        holds_matrices(dense.kernel, [outputs] * 2)
        return conv

    def _forward(self, x: Tensor, convolve: Any, training: bool | None) -> Tensor:
        glu = _fused_glu if training else _glu
        branch = self.norm(x)  # (B, T, E)
        for conv in self.convs:
            branch = glu(convolve(conv, branch))  # (B, T, F), from (B, T, 2 F)
        return x + self.dropout_layer(branch, training=training)  # (B, T, E)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "bottleneck_dim": self.bottleneck_dim,
            "scale": self.scale,
        }


class TemporalBlock(ConvBlock):
    """A residual block of two dilated causal convolutions.

    `relu(x + f(f(x)))` with `f(x) = dropout(relu(conv(x)))` and weight normalization;
    a 1x1 convolution takes the place of `x` where the widths differ.

    Args:
        filters: int. Width of the output.
        kernel_size: int. Positions that an output of a convolution sees.
        dilation_rate: int. Distance between them.
        dropout: float. Dropout of whole channels after each convolution.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, input_dim)`; the output is
            `(batch_size, sequence_length, filters)`.

    References:
        - [Bai et al., 2018](https://arxiv.org/abs/1803.01271)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        dilation_rate: int = 1,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout, **kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.dilation_rate = dilation_rate

    def build(self, input_shape: Any) -> None:
        dim = input_shape[-1]
        self.convs = [self._conv("conv_0", dim), self._conv("conv_1", self.filters)]
        self.project = None
        if dim != self.filters:
            project = keras.layers.Dense(
                self.filters, dtype=self.dtype_policy, name="project"
            )
            self.project = built(project, dim)
        self.dropout_layer = keras.layers.SpatialDropout1D(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.built = True

    def _conv(self, name: str, inputs: int) -> keras.layers.Layer:
        conv = CausalConv(
            WeightNormDense(self.filters, dtype=self.dtype_policy, name="dense"),
            self.kernel_size,
            self.dilation_rate,
            dtype=self.dtype_policy,
            name=name,
        )
        return built(conv, inputs)

    def _forward(self, x: Tensor, convolve: Any, training: bool | None) -> Tensor:
        branch = x
        for conv in self.convs:
            branch = ops.relu(convolve(conv, branch))  # (B, T, F)
            branch = self.dropout_layer(branch, training=training)
        residual = x if self.project is None else self.project(x)  # (B, T, F)
        return ops.relu(residual + branch)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dilation_rate": self.dilation_rate,
        }
