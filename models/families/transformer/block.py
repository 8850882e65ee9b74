"""A block of the Transformer: attention, then a network for each position."""

from __future__ import annotations

from collections.abc import Callable
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
from .attention import Place, Rotation, SelfAttention, dense


def _swiglu(x: Tensor) -> Tensor:
    """`(..., 2 D)`, gate and value, to `(..., D)`."""
    gate, value = ops.split(x, 2, axis=-1)
    return ops.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": _swiglu,
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
    "gelu_approximate": lambda x: keras.activations.gelu(x, approximate=True),
    "relu": ops.relu,
}

_FUSED = {name: fused(function) for name, function in ACTIVATIONS.items()}


class FeedForward(keras.layers.Layer):
    """A position's own network: a dense layer, an activation, a dense layer.

    Args:
        intermediate_dim: int. Width between the layers.
        activation: string, a key of `ACTIVATIONS`.
        stddev: float. Standard deviation of the weights when they are drawn.
        use_bias: bool. Whether the layers have biases.
        residual_scale: float. Factor on it for the second layer.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Hendrycks and Gimpel, 2016](https://arxiv.org/abs/1606.08415) (GELU)
        - [Shazeer, 2020](https://arxiv.org/abs/2002.05202) (SwiGLU)
    """

    def __init__(
        self,
        intermediate_dim: int,
        activation: str,
        *,
        stddev: float,
        use_bias: bool = False,
        residual_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.activation = activation
        self.use_bias = use_bias
        self.stddev = stddev
        self.residual_scale = residual_scale

    def build(self, input_shape: Any) -> None:
        dim = input_shape[-1]
        width = self.intermediate_dim
        gated = 2 if self.activation == "swiglu" else 1
        self.intermediate = dense(self, "intermediate", dim, gated * width)
        holds_matrices(self.intermediate.kernel, [width] * gated)
        self.feedforward_output = dense(
            self, "feedforward_output", width, dim, self.residual_scale
        )
        self.built = True

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        activation = (_FUSED if training else ACTIVATIONS)[self.activation]
        x = activation(self.intermediate(x))  # (B, T, I), from (B, T, 2 I) if gated
        return self.feedforward_output(x)  # (B, T, E)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "stddev": self.stddev,
            "residual_scale": self.residual_scale,
        }


class DecoderBlock(keras.layers.Layer):
    """One block: `x + attention(norm(x))`, then `x + feedforward(norm(x))`.

    Or with norms behind: `norm(x + attention(x))`, then `norm(x + feedforward(x))`.

    Args:
        attention: a `SelfAttention`.
        feedforward: a `FeedForward`.
        attention_norm: a normalization layer.
        feedforward_norm: a normalization layer.
        dropout: float. Dropout on both branches.
        post_norm: bool. Whether the norms are behind. Defaults to `False`.

    Call arguments:
        x: tensor of shape `(batch_size, sequence_length, hidden_dim)`.
        mask: see `SelfAttention`.
        rotation: see `SelfAttention`.
        added: see `SelfAttention`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762) (norms behind)
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745) (pre-norm)
    """

    def __init__(
        self,
        attention: SelfAttention,
        feedforward: FeedForward,
        attention_norm: keras.layers.Layer,
        feedforward_norm: keras.layers.Layer,
        dropout: float = 0.0,
        post_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.post_norm = post_norm
        self.attention = attention
        self.feedforward = feedforward
        self.attention_norm = attention_norm
        self.feedforward_norm = feedforward_norm
        self.dropout = dropout
        self.dropout_layer = keras.layers.Dropout(
            dropout, dtype=self.dtype_policy, name="dropout"
        )

    def build(self, input_shape: Any, *_: Any) -> None:
        dim = input_shape[-1]
        built(self.attention_norm, dim)
        built(self.attention, dim)
        built(self.feedforward_norm, dim)
        built(self.feedforward, dim)
        self.built = True

    def call(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None = None,
        added: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        branch = self.read(x)  # (B, T, E), as all that follows
        branch = self.attention(branch, mask, rotation, added, training=training)
        return self._finish(x, branch, training)

    def prefill(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None,
        added: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """As a call, with the keys and values of `SelfAttention.prefill`."""
        branch = self.read(x)
        branch, cache = self.attention.prefill(branch, mask, rotation, added)
        return self._finish(x, branch, False), cache

    def call_with_cache(
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None,
        added: Tensor | None,
        cache: Cache,
        place: Place,
    ) -> tuple[Tensor, Cache]:
        """Some positions; see `SelfAttention.call_with_cache`."""
        branch, cache = self.attention.call_with_cache(
            self.read(x), mask, rotation, added, cache, place
        )
        return self._finish(x, branch, False), cache

    def read(self, x: Tensor) -> Tensor:
        """What attention reads of the stream."""
        return x if self.post_norm else self.attention_norm(x)

    def _finish(self, x: Tensor, branch: Tensor, training: bool | None) -> Tensor:
        x = self._joined(x, branch, self.attention_norm, training)
        return self._fed(x, training)

    def _fed(self, x: Tensor, training: bool | None) -> Tensor:
        """What each position's network makes of the stream."""
        branch = x if self.post_norm else self.feedforward_norm(x)
        branch = self.feedforward(branch, training=training)
        return self._joined(x, branch, self.feedforward_norm, training)

    def _joined(
        self,
        x: Tensor,
        branch: Tensor,
        norm: keras.layers.Layer,
        training: bool | None,
    ) -> Tensor:
        """The stream with what a branch writes into it."""
        x = x + self.dropout_layer(branch, training=training)
        return norm(x) if self.post_norm else x

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape
