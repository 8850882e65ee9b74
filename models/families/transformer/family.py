"""The Transformer, and what makes it GPT-2 or Llama.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from ...learning.recipe import Recipe
from ..family import Counts, Family, LearnedSettings, Preset, ResidualSettings


class BlockSettings(LearnedSettings):
    """What Transformers have in common: blocks of attention and of networks."""

    num_layers: Annotated[int, Field(ge=1)] = 4
    """Blocks."""
    num_heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads."""
    num_key_value_heads: Annotated[int, Field(ge=1)] | None = None
    """Heads of keys and values, where they are fewer than `num_heads`, each shared by
    as many query heads (grouped-query attention)."""
    hidden_dim: Annotated[int, Field(ge=2)] = 128
    """Width of the residual stream; a multiple of `num_heads`, and of `2 * num_heads`
    for rotary positions."""
    intermediate_dim: Annotated[int, Field(ge=1)] | None = None
    """Width of the feed-forward networks. Without, `4 * hidden_dim`, or with SwiGLU,
    whose first layer is twice as wide, the multiple of 8 next above two thirds of it.
    """
    activation: Literal["swiglu", "gelu", "gelu_approximate", "relu"] = "swiglu"
    """`gelu_approximate` is by tanh, as in GPT-2."""
    positions: Literal["rotary", "learned", "sinusoidal"] = "rotary"
    """`learned` is one vector a position, added to the embeddings; `sinusoidal` is
    added to the embeddings times `sqrt(hidden_dim)`, as Vaswani et al. do."""
    rope_base: Annotated[float, Field(gt=1)] = 10000.0
    """Base of the rotary angles."""
    normalization: Literal["rms_norm", "layer_norm"] = "rms_norm"
    """Before attention, before each feed-forward network and at the end."""
    post_norm: bool = False
    """Whether they are behind the embeddings, behind attention and behind each
    feed-forward network instead, as in BERT."""
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-6
    """What the normalizations add to the variance."""
    qk_norm: bool = False
    """Whether queries and keys are normalized, too: an RMSNorm of each head's, with
    gains that all heads of a block share."""
    use_bias: bool = False
    """Whether dense layers and LayerNorms have biases."""
    tie_embeddings: bool = True
    """Whether the output weights are the token embeddings."""
    initializer_range: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of the weights when they are drawn."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on embeddings, attention weights and branches."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """On the attention weights, in place of `dropout`."""

    @pydantic.model_validator(mode="after")
    def _heads_divide_the_width(self) -> BlockSettings:
        rotary = self.positions == "rotary"
        if self.hidden_dim % (self.num_heads * (2 if rotary else 1)):
            raise ValueError(
                f"hidden_dim {self.hidden_dim} must be a multiple of "
                f"{'twice ' if rotary else ''}num_heads {self.num_heads}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _key_value_heads_divide_the_heads(self) -> BlockSettings:
        if self.num_heads % (self.num_key_value_heads or 1):
            raise ValueError(
                f"num_heads {self.num_heads} must be a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        return self

    def resolved(self) -> Self:
        width = 4 * self.hidden_dim
        if self.activation == "swiglu":
            width = -(-2 * width // 24) * 8
        return self.model_copy(
            update={
                "num_key_value_heads": self.num_key_value_heads or self.num_heads,
                "intermediate_dim": self.intermediate_dim or width,
            }
        )

    def block_counts(self, attentions: int = 1) -> Counts:
        """What of a block is multiplied with every token of its input.

        Args:
            attentions: how many attentions it has, each with a norm.
        """
        settings: Any = self.resolved()
        hidden_dim, width = self.hidden_dim, settings.intermediate_dim
        first_layer = 2 * width if self.activation == "swiglu" else width
        projected = hidden_dim + 2 * self.shared_dim  # queries, keys, values
        attention = hidden_dim * (projected + hidden_dim)
        products = hidden_dim * (first_layer + width)
        biases = attentions * (projected + hidden_dim) + first_layer + hidden_dim
        return Counts(
            products=attentions * attention + products,
            others=(biases if self.use_bias else 0)
            + (attentions + 1) * self.norm_weights
            + (hidden_dim // self.num_heads if self.qk_norm else 0),
        )

    @property
    def shared_dim(self) -> int:
        """Width of all keys, and of all values."""
        heads = self.num_key_value_heads or self.num_heads
        return heads * self.hidden_dim // self.num_heads

    @property
    def norm_weights(self) -> int:
        """Those of a normalization."""
        has_centers = self.normalization == "layer_norm" and self.use_bias
        return self.hidden_dim * (2 if has_centers else 1)


class ValueSettings(ResidualSettings):
    """What a Transformer of one stack has besides."""

    value_embeddings: Annotated[int, Field(ge=0)] = 0
    """Blocks, the last ones, with a table of embeddings of their own that are added to
    the values of attention, each head's times a factor that is learned."""


class TransformerSettings(BlockSettings, ValueSettings):
    """A Transformer decoder."""

    @pydantic.model_validator(mode="after")
    def _blocks_have_the_value_embeddings(self) -> TransformerSettings:
        if self.value_embeddings > self.num_layers:
            raise ValueError(
                f"value_embeddings {self.value_embeddings} must be at most num_layers "
                f"{self.num_layers}"
            )
        return self

    def counts(self, vocabulary_size: int) -> Counts:
        hidden_dim, block = self.hidden_dim, self.block_counts()
        embeddings = vocabulary_size * hidden_dim
        places = self.context_length if self.positions == "learned" else 0
        heads = self.num_key_value_heads or self.num_heads
        return Counts(
            products=self.num_layers * block.products + embeddings,
            others=self.num_layers * block.others
            + self.norm_weights
            + (0 if self.tie_embeddings else embeddings)
            + places * hidden_dim
            + self.value_embeddings * (vocabulary_size * self.shared_dim + heads)
            + self.ngram_weights(hidden_dim)
            + self.scale_weights(self.num_layers),
            # Scores and the weighted sum of values.
            attention=self.num_layers * 2 * self.context_length * hidden_dim,
        )


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "activation": "gelu_approximate",
        "positions": "learned",
        "normalization": "layer_norm",
        "norm_epsilon": 1e-5,
        "use_bias": True,
        "tie_embeddings": True,
    },
    "llama": {
        "activation": "swiglu",
        "positions": "rotary",
        "normalization": "rms_norm",
        "norm_epsilon": 1e-5,
        "use_bias": False,
        "tie_embeddings": False,
    },
}
"""What makes a Transformer GPT-2 or Llama, whatever its sizes.

References:
    - [Radford et al., 2019](https://github.com/openai/gpt-2/blob/master/src/model.py)
    - [Touvron et al., 2023](https://arxiv.org/abs/2307.09288) (Llama 2)
"""


_transformer = functools.partial(Preset.of, TransformerSettings, "transformer")
_llama = functools.partial(_transformer, **ARCHITECTURES["llama"])


def _gpt2(
    num_layers: int,
    num_heads: int,
    hidden_dim: int,
    context_length: int = 1024,
    vocabulary_size: int = 50257,
    source: str = "Radford et al., 2019",
) -> Preset:
    return _transformer(
        *(context_length, vocabulary_size, source),
        num_layers=num_layers,
        num_heads=num_heads,
        hidden_dim=hidden_dim,
        intermediate_dim=4 * hidden_dim,
        **ARCHITECTURES["gpt2"],
    )


_PRESETS = {
    "transformer_tiny": _transformer(),
    "transformer_small": _transformer(
        256, 8192, num_layers=6, num_heads=6, hidden_dim=384
    ),
    "transformer_base": _transformer(
        1024, 32_000, num_layers=12, num_heads=12, hidden_dim=768
    ),
    "gpt2_tiny": _gpt2(4, 4, 128, 128, 260, source=""),
    "gpt2_base": _gpt2(12, 12, 768),
    "gpt2_medium": _gpt2(24, 16, 1024),
    "gpt2_large": _gpt2(36, 20, 1280),
    "gpt2_extra_large": _gpt2(48, 25, 1600),
    "llama_tiny": _llama(
        num_layers=4, num_heads=4, num_key_value_heads=2, hidden_dim=128
    ),
    "llama_small": _llama(
        *(256, 8192), num_layers=6, num_heads=6, num_key_value_heads=2, hidden_dim=384
    ),
    "tinyllama_1b": _llama(
        *(2048, 32_000, "Zhang et al., 2024"),
        num_layers=22,
        num_heads=32,
        num_key_value_heads=4,
        hidden_dim=2048,
        intermediate_dim=5632,
    ),
    "llama2_7b": _llama(
        *(4096, 32_000, "Touvron et al., 2023"),
        num_layers=32,
        num_heads=32,
        hidden_dim=4096,
        intermediate_dim=11_008,
    ),
    "llama3_8b": _llama(
        *(8192, 128_256, "Grattafiori et al., 2024"),
        num_layers=32,
        num_heads=32,
        num_key_value_heads=8,
        hidden_dim=4096,
        intermediate_dim=14_336,
        rope_base=500_000.0,
    ),
}

TRANSFORMER = Family(
    name="transformer",
    settings=TransformerSettings,
    backbone="langzoo.models.families.transformer.backbone:TransformerBackbone",
    recipe=Recipe(learning_rate=3e-3),
    presets=_PRESETS,
    search_space={
        "trainer.learning_rate": {"min": 0.001, "max": 0.01, "sampling": "log"},
        "model.num_layers": [3, 4, 6],
        "model.num_heads": [2, 4, 8],
        "model.hidden_dim": [128, 192],
        "model.dropout": {"min": 0.0, "max": 0.2, "step": 0.1},
    },
    keeps_documents_apart=True,
    shows_attention=True,
    cache_goes_back=True,
)
