"""The blocks of the convolutional encoder-decoder.

In shapes: B sources of S tokens; N targets of T, N a multiple of B, each source's
targets in a row; E `hidden_dim`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...backbone import Tensor, built
from ..convolutional.layers import EPSILON, GatedConvBlock
from ..source_attention import dot_weights, seen


class CentredBlock(GatedConvBlock):
    """A `GatedConvBlock` whose convolutions see as much behind a position as before.

    Call arguments:
        x: tensor of shape `(B, S, E)`.
        padding_mask: bool tensor of shape `(B, S)`, false where there is padding, of
            which a convolution sees zeros.
    """

    def call(  # type: ignore[override]
        self, x: Tensor, padding_mask: Tensor, training: bool | None = None
    ) -> Tensor:
        x = x * ops.cast(padding_mask, x.dtype)[..., None]  # (B, S, E)
        return self._forward(x, lambda conv, inputs: conv.centred(inputs), training)

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape


class SourceAttention(keras.layers.Layer):
    """What a block of the decoder sees of the source: `x + attend(norm(x))`.

    Keys are the encoder's states, and values those with the source's embeddings added;
    the query is a projection with the target's embeddings added.

    Args:
        dropout: float. Dropout on the branch.
        scale: float. Factor on the standard deviation of the weights that write into
            the residual stream.

    Call arguments:
        x: tensor of shape `(N, T, E)`.
        embeddings: tensor of that shape, those of the target.
        keys: tensor of shape `(B, S, E)`.
        values: tensor of that shape.
        padding_mask: bool tensor of shape `(B, S)`, false where there is padding.

    References:
        - [Gehring et al., 2017](https://arxiv.org/abs/1705.03122), section 3.3
    """

    def __init__(self, dropout: float, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = dropout
        self.scale = scale

    def build(self, input_shape: Any, *_: Any) -> None:
        dim, dtype = input_shape[-1], self.dtype_policy
        norm = keras.layers.RMSNormalization(epsilon=EPSILON, dtype=dtype, name="norm")
        self.norm = built(norm, dim)
        self.query = built(keras.layers.Dense(dim, dtype=dtype, name="query"), dim)
        output = keras.layers.Dense(
            dim,
            kernel_initializer=keras.initializers.VarianceScaling(self.scale**2),
            dtype=dtype,
            name="output",
        )
        self.project = built(output, dim)
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=dtype, name="dropout"
        )
        self.built = True

    def call(
        self,
        x: Tensor,
        embeddings: Tensor,
        keys: Tensor,
        values: Tensor,
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        query = self.query(self.norm(x)) + embeddings  # (N, T, E)
        weights = dot_weights(query * x.shape[-1] ** -0.5, keys, padding_mask)
        branch = self.project(seen(weights, values, x))  # (N, T, E)
        return x + self.dropout_layer(branch, training=training)

    def compute_output_shape(self, x_shape: Any, *_: Any) -> Any:
        return x_shape
