"""The parts of any Transformer, of its settings: positions, norms, blocks.

In shapes: B rows, T positions, E `hidden_dim`.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
from keras import ops

from ...backbone import Tensor, normal_initializer
from .attention import RotaryPositions, SelfAttention
from .block import DecoderBlock, FeedForward
from .family import BlockSettings


class Positions:
    """Where a token is, as one side of a Transformer takes it: added, or by turning.

    Args:
        settings: resolved.
        max_length: int. Of a sequence.
        side: string. What the names of the layers begin with. Defaults to nothing.
        dtype: string or `keras.DTypePolicy`.

    Attributes:
        embedding: the layer whose vectors are added, or `None`.
        rotary: the `RotaryPositions`, or `None`.
    """

    def __init__(
        self, settings: BlockSettings, max_length: int, dtype: Any, side: str = ""
    ) -> None:
        self._is_scaled = settings.positions == "sinusoidal"
        self.embedding = self.rotary = None
        name = f"{side}position_embedding"
        if settings.positions == "learned":
            self.embedding = keras_hub.layers.PositionEmbedding(
                max_length,
                initializer=normal_initializer(settings.initializer_range),
                dtype=dtype,
                name=name,
            )
        elif settings.positions == "sinusoidal":
            # In half precision, positions from 256 on would fall together.
            self.embedding = keras_hub.layers.SinePositionEncoding(
                dtype="float32", name=name
            )
        else:
            self.rotary = RotaryPositions(
                settings.hidden_dim // settings.num_heads,
                settings.rope_base,
                dtype=dtype,
                name=f"{side}rotary_positions",
            )

    def added(
        self, x: Tensor, index: Tensor | int = 0, positions: Tensor | None = None
    ) -> Tensor:
        """Embeddings `(B, T, E)` with those of their positions, from `index` on.

        Or of int32 `positions` `(B, T)`.
        """
        if self.embedding is None:
            return x
        if self._is_scaled:
            x = x * x.shape[-1] ** 0.5
            if positions is not None:
                positions = ops.cast(positions, "float32")
        # (T, E) or (B, T, E)
        vectors = self.embedding(x, start_index=index, positions=positions)
        return x + ops.cast(vectors, x.dtype)


def make_norm(settings: BlockSettings, name: str, dtype: Any) -> keras.layers.Layer:
    """A normalization."""
    if settings.normalization == "rms_norm":
        return keras.layers.RMSNormalization(
            epsilon=settings.norm_epsilon, dtype=dtype, name=name
        )
    return keras.layers.LayerNormalization(
        epsilon=settings.norm_epsilon, center=settings.use_bias, dtype=dtype, name=name
    )


def make_block(
    settings: BlockSettings, name: str, dtype: Any, num_branches: int
) -> DecoderBlock:
    """A block.

    Args:
        settings: resolved.
        name: string.
        dtype: string or `keras.DTypePolicy`.
        num_branches: int. How many write into the residual stream, all blocks together.
    """
    return DecoderBlock(**block_parts(settings, dtype, num_branches), name=name)


def block_parts(
    settings: BlockSettings, dtype: Any, num_branches: int
) -> dict[str, Any]:
    """The arguments of a `DecoderBlock`; see `make_block`."""
    drawn = drawn_as(settings, dtype, num_branches)
    width: Any = settings.intermediate_dim
    return {
        "attention": SelfAttention(
            settings.num_heads,
            settings.num_key_value_heads or settings.num_heads,
            dropout=attention_dropout(settings),
            qk_norm=settings.norm_epsilon if settings.qk_norm else None,
            name="attention",
            **drawn,
        ),
        "feedforward": FeedForward(
            width, settings.activation, name="feedforward", **drawn
        ),
        "attention_norm": make_norm(settings, "attention_norm", dtype),
        "feedforward_norm": make_norm(settings, "feedforward_norm", dtype),
        "dropout": settings.dropout,
        "post_norm": settings.post_norm,
        "dtype": dtype,
    }


def drawn_as(settings: BlockSettings, dtype: Any, num_branches: int) -> dict[str, Any]:
    """How the weights of a branch are drawn, and whether they have biases."""
    return {
        "use_bias": settings.use_bias,
        "stddev": settings.initializer_range,
        "residual_scale": num_branches**-0.5,
        "dtype": dtype,
    }


def attention_dropout(settings: BlockSettings) -> float:
    """That of the weights of attention."""
    own = settings.attention_dropout
    return settings.dropout if own is None else own
