"""The Transformer that reads a source and writes a target, and what makes it BART.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import functools
from typing import Any

from ...learning.recipe import Recipe
from ..family import Counts, Family, Preset, SourceSettings
from ..transformer.family import BlockSettings


class EncoderDecoderSettings(SourceSettings, BlockSettings):
    """A Transformer encoder-decoder."""

    post_norm: bool = False
    """Whether the normalizations are behind attention and each feed-forward network
    instead, as Vaswani et al. have them."""
    embeddings_norm: bool = False
    """Whether the embeddings are normalized, too, as in BART."""

    def counts(self, vocabulary_size: int) -> Counts:
        hidden_dim, (encoder, decoder) = self.hidden_dim, self.depths
        reading, writing = self.block_counts(), self.block_counts(attentions=2)
        embeddings = vocabulary_size * hidden_dim
        norms = (0 if self.post_norm else 2) + (2 if self.embeddings_norm else 0)
        lengths = self.source_length + self.context_length
        tables = self.source_tables() + (0 if self.tie_embeddings else 1)
        return Counts(
            products=encoder * reading.products
            + decoder * writing.products
            + embeddings,
            others=encoder * reading.others
            + decoder * writing.others
            + norms * self.norm_weights
            + tables * embeddings
            + (lengths if self.positions == "learned" else 0) * hidden_dim,
            # Scores and weighted sums: of a source in itself, of a target in both.
            attention=2
            * hidden_dim
            * (encoder * self.source_length + decoder * lengths),
        )


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vaswani": {
        "activation": "relu",
        "positions": "sinusoidal",
        "normalization": "layer_norm",
        "norm_epsilon": 1e-6,
        "post_norm": True,
        "use_bias": True,
        "dropout": 0.1,
    },
    "bart": {
        "activation": "gelu",
        "positions": "learned",
        "normalization": "layer_norm",
        "norm_epsilon": 1e-5,
        "post_norm": True,
        "embeddings_norm": True,
        "use_bias": True,
        "dropout": 0.1,
    },
}
"""What makes it the Transformer of 2017 or BART, whatever its sizes.

References:
    - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762)
    - [Lewis et al., 2019](https://arxiv.org/abs/1910.13461) (BART)
"""

_of = functools.partial(Preset.of, EncoderDecoderSettings, "encoder_decoder")
_small = functools.partial(_of, num_heads=4, hidden_dim=256, dropout=0.3)

ENCODER_DECODER = Family(
    name="encoder_decoder",
    settings=EncoderDecoderSettings,
    backbone="langzoo.models.families.encoder_decoder.backbone:"
    "TransformerEncoderDecoder",
    recipe=Recipe(learning_rate=2e-3, warmup_steps=400),
    presets={
        "encoder_decoder_tiny": _of(num_layers=2),
        "encoder_decoder_small": _small(128, 8192, num_layers=3),
        "encoder_decoder_base": _of(
            256, 16_384, num_layers=6, num_heads=8, hidden_dim=512, dropout=0.1
        ),
        "transformer_base_2017": _of(
            *(512, 37_000, "Vaswani et al., 2017"),
            num_layers=6,
            num_heads=8,
            hidden_dim=512,
            intermediate_dim=2048,
            **ARCHITECTURES["vaswani"],
        ),
    },
    search_space={
        "trainer.learning_rate": {"min": 0.0005, "max": 0.005, "sampling": "log"},
        "model.num_layers": [2, 3, 4],
        "model.num_heads": [4, 8],
        "model.hidden_dim": [128, 192, 256],
        "model.dropout": {"min": 0.1, "max": 0.4, "step": 0.1},
    },
    predicts_next=False,
    has_hidden_states=False,
    reads_a_source=True,
)
