"""Attention to another sequence, and the block of a decoder that has it.

In shapes: B sources of S tokens; N targets of T, N a multiple of B, each source's
targets in a row; E `hidden_dim`; H query heads and K heads of keys and values, each of
width D.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ...backbone import Cache, Tensor, built, holds_matrices
from ...encoder_decoder import by_source, by_target
from .attention import Attention, CachedTables, Rotation, dense
from .block import DecoderBlock

KeysAndValues = tuple[Tensor, Tensor]


class CrossAttention(Attention):
    """Attention to another sequence, multi-head or grouped-query, without positions.

    Arguments: see `Attention`.

    Call arguments:
        x: tensor of shape `(B, T, E)`.
        states: tensor of shape `(B, S, E)`, what it attends to.
        mask: additive mask, `(B, 1, 1, S)`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
        - [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245) (grouped queries)
    """

    def build(self, input_shape: Any, *_: Any) -> None:
        dim = input_shape[-1]
        self.head_dim = dim // self.num_heads
        width = self.num_key_value_heads * self.head_dim
        self.query = dense(self, "query", dim, dim)
        self.key_value = dense(self, "key_value", dim, 2 * width)
        holds_matrices(self.key_value.kernel, [width] * 2)
        self._build_output(dim)
        self.built = True

    def call(
        self, x: Tensor, states: Tensor, mask: Tensor, training: bool | None = None
    ) -> Tensor:
        return self.attend(x, self.keys_and_values(states), mask, training)

    def keys_and_values(self, states: Tensor) -> KeysAndValues:
        """What it sees of states `(B, S, E)`: a pair of `(B, K, S, D)`."""
        key_value = self._in_heads(self.key_value(states))  # (B, 2 K, S, D)
        key, value = ops.split(key_value, 2, axis=1)
        return key, value

    def attend(
        self,
        x: Tensor,
        memory: KeysAndValues,
        mask: Tensor,
        training: bool | None = None,
        is_small: bool = False,
    ) -> Tensor:
        """What targets see.

        Args:
            x: tensor of shape `(N, T, E)` or `(N * T, E)`.
            memory: keys and values of the sources, `(B, K, S, D)`.
            mask: additive mask, `(B, 1, 1, S)`.
            training: bool. Whether to drop out.
            is_small: bool. Whether there are a few targets' single positions.

        Returns:
            A tensor of the shape of `x`.
        """
        query = self._query(x, memory[0])  # (B, H, N / B * T, D)
        # (B, N / B * T, H * D)
        heads = self._attend(query, *memory, mask, training, is_small)
        return by_target(self.attention_output(heads), x)

    def _query(self, x: Tensor, like: Tensor) -> Tensor:
        # Of each source all targets together: they do not see each other.
        query = self._in_heads(self.query(by_source(x, like)))
        return query * self.head_dim**-0.5

    def _in_heads(self, x: Tensor) -> Tensor:
        """`(B, T, heads * D)` as `(B, heads, T, D)`."""
        heads = x.shape[-1] // self.head_dim
        x = ops.reshape(x, (*ops.shape(x)[:2], heads, self.head_dim))
        return ops.transpose(x, (0, 2, 1, 3))


class CrossBlock(DecoderBlock):
    """A `DecoderBlock` that attends to another sequence after its own.

    Args:
        cross_attention: a `CrossAttention`.
        cross_norm: a normalization layer.
        **kwargs: arguments of `DecoderBlock`.

    Call arguments:
        x: tensor of shape `(B, T, E)`.
        mask: see `SelfAttention`.
        states: tensor of shape `(B, S, E)`, the other sequence.
        source_mask: see `CrossAttention`.
        rotation: see `SelfAttention`.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
    """

    def __init__(
        self,
        cross_attention: CrossAttention,
        cross_norm: keras.layers.Layer,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cross_attention = cross_attention
        self.cross_norm = cross_norm

    def build(self, input_shape: Any, *_: Any) -> None:
        super().build(input_shape)
        built(self.cross_norm, input_shape[-1])
        built(self.cross_attention, input_shape[-1])

    def call(  # type: ignore[override]
        self,
        x: Tensor,
        mask: Tensor,
        states: Tensor,
        source_mask: Tensor,
        rotation: Rotation | None = None,
        training: bool | None = None,
    ) -> Tensor:
        branch = self.attention(self.read(x), mask, rotation, training=training)
        x = self._joined(x, branch, self.attention_norm, training)  # (B, T, E)
        branch = self.cross_attention(
            self.look(x), states, source_mask, training=training
        )
        x = self._joined(x, branch, self.cross_norm, training)
        return self._fed(x, training)

    def prefill(  # type: ignore[override]
        self,
        x: Tensor,
        mask: Tensor,
        rotation: Rotation | None,
        memory: KeysAndValues,
        source_mask: Tensor,
    ) -> tuple[Tensor, Cache]:
        """As a call, with the keys and values of `SelfAttention.prefill`.

        Args:
            x: tensor of shape `(N, T, E)`.
            mask: see `SelfAttention`.
            rotation: see `SelfAttention`.
            memory: see `CrossAttention.attend`.
            source_mask: see `CrossAttention`.
        """
        branch, cache = self.attention.prefill(self.read(x), mask, rotation)
        return self._seen(x, branch, memory, source_mask), cache

    def call_with_cache(  # type: ignore[override]
        self,
        x: Tensor,
        tables: CachedTables,
        cache: Cache,
        memory: KeysAndValues,
        source_mask: Tensor,
    ) -> tuple[Tensor, Cache]:
        """Some positions; see `SelfAttention.call_with_cache` and `prefill`."""
        branch, cache = self.attention.call_with_cache(
            *(self.read(x), tables.mask, tables.rotation, None, cache, tables.place)
        )
        return self._seen(x, branch, memory, source_mask, is_small=True), cache

    def look(self, x: Tensor) -> Tensor:
        """What attention to the other sequence reads of the stream."""
        return x if self.post_norm else self.cross_norm(x)

    def _seen(
        self,
        x: Tensor,
        branch: Tensor,
        memory: KeysAndValues,
        source_mask: Tensor,
        is_small: bool = False,
    ) -> Tensor:
        x = self._joined(x, branch, self.attention_norm, False)
        branch = self.cross_attention.attend(
            self.look(x), memory, source_mask, is_small=is_small
        )
        return self._fed(self._joined(x, branch, self.cross_norm, False), False)

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return input_shape
