"""The convolutional encoder-decoder.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import functools
from typing import Annotated

import pydantic
from pydantic import Field

from ...learning.recipe import Recipe
from ..family import Counts, Family, Preset, SourceSettings


class ConvolutionalEncoderDecoderSettings(SourceSettings):
    """A convolutional encoder, and a convolutional decoder with attention in each
    block."""

    hidden_dim: Annotated[int, Field(ge=1)] = 128
    """Width of embeddings and convolutions."""
    kernel_size: Annotated[int, Field(ge=3)] = 3
    """Positions that a convolution sees, an odd number: of a source as many on both
    sides, of a target those before."""

    @pydantic.model_validator(mode="after")
    def _kernels_have_a_middle(self) -> ConvolutionalEncoderDecoderSettings:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} must be odd")
        return self

    def counts(self, vocabulary_size: int) -> Counts:
        width, (encoder, decoder) = self.hidden_dim, self.depths
        # Values and gates.
        convolutions = (encoder + decoder) * 2 * self.kernel_size * width**2
        attention = decoder * 2 * width**2
        embeddings = vocabulary_size * width
        places = (self.source_length + self.context_length) * width
        return Counts(
            products=convolutions + attention + embeddings,
            # Biases and a norm of each; the last norms.
            others=((encoder + decoder) * 3 + decoder * 3 + 2) * width
            + places
            + self.source_tables() * embeddings,
            attention=decoder * 2 * self.source_length * width,
        )


_of = functools.partial(Preset.of, ConvolutionalEncoderDecoderSettings, "conv_s2s")

CONVOLUTIONAL_ENCODER_DECODER = Family(
    name="conv_s2s",
    settings=ConvolutionalEncoderDecoderSettings,
    backbone="langzoo.models.families.convolutional_encoder_decoder.backbone:"
    "ConvolutionalEncoderDecoder",
    recipe=Recipe(learning_rate=3e-3),
    presets={
        "conv_s2s_tiny": _of(),
        "conv_s2s_small": _of(128, 8192, num_layers=4, hidden_dim=256, dropout=0.3),
        "conv_s2s_base": _of(
            *(256, 40_000, "Gehring et al., 2017, English to Romanian"),
            num_layers=20,
            hidden_dim=512,
            dropout=0.2,
        ),
    },
    search_space={
        "trainer.learning_rate": {"min": 0.001, "max": 0.01, "sampling": "log"},
        "model.num_layers": [3, 4, 6],
        "model.kernel_size": [3, 5],
        "model.hidden_dim": [128, 192, 256],
        "model.dropout": {"min": 0.1, "max": 0.4, "step": 0.1},
    },
    predicts_next=False,
    has_hidden_states=False,
    reads_a_source=True,
)
