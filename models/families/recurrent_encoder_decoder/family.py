"""The recurrent encoder-decoder with attention.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import functools
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from ...learning.recipe import Recipe
from ..family import Counts, Family, Preset, SourceSettings
from ..recurrent.family import GRUSettings, LSTMSettings, RNNSettings

_OF_CELLS = {"rnn": RNNSettings, "gru": GRUSettings, "lstm": LSTMSettings}


class RecurrentEncoderDecoderSettings(SourceSettings):
    """A recurrent encoder, both ways, and a recurrent decoder with attention."""

    cell: Literal["rnn", "gru", "lstm"] = "gru"
    """What recurs: simple units, gated ones, or long short-term memory."""
    num_layers: Annotated[int, Field(ge=1)] = 1
    """Recurrent layers of the encoder, and of the decoder."""
    hidden_dim: Annotated[int, Field(ge=2)] = 256
    """Width of every layer; of the encoder's each direction has one half."""
    embedding_dim: Annotated[int, Field(ge=1)] | None = None
    """Width of the embeddings, and of the output. Without, `hidden_dim`."""
    attention: Literal["multiplicative", "additive"] = "multiplicative"
    """How a state of the decoder and one of the encoder make a score: by a product of
    both with a matrix, as Luong et al. do, or by a network of one layer, as Bahdanau et
    al. do, which takes longer."""
    input_feeding: bool = False
    """Whether the decoder also reads what it saw of the source a token before. Then no
    two tokens are read at once, and training takes several times as long."""

    @pydantic.model_validator(mode="after")
    def _the_width_has_halves(self) -> RecurrentEncoderDecoderSettings:
        if self.hidden_dim % 2:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be even")
        return self

    @property
    def width(self) -> int:
        """That of the embeddings."""
        return self.embedding_dim or self.hidden_dim

    @property
    def decoder_inputs(self) -> list[int]:
        """What each layer of the decoder reads."""
        first = self.width * (2 if self.input_feeding else 1)
        return [first] + [self.hidden_dim] * (self.depths[1] - 1)

    def counts(self, vocabulary_size: int) -> Counts:
        cell, units, width = _OF_CELLS[self.cell], self.hidden_dim, self.width
        reading = [width] + [units] * (self.depths[0] - 1)
        writing = self.decoder_inputs
        gates, num_states = cell.gates * units, 2 if self.cell == "lstm" else 1
        embeddings = vocabulary_size * width
        is_additive = self.attention == "additive"
        products = (
            sum(gates * (inputs + units // 2) for inputs in reading)
            + sum(gates * (inputs + units) for inputs in writing)
            + units**2 * (2 if is_additive else 1)
            + 2 * units * width
        )
        # A decoder's first states are made of half a state, once a source.
        start = (units // 2 + 1) * len(writing) * num_states * units
        return Counts(
            products=products + embeddings,
            others=sum(self.depths) * cell.biases * gates
            + sum(reading)
            + sum(writing)
            + start
            + (units if is_additive else 0)
            + width
            + self.source_tables() * embeddings,
            attention=2 * units * self.source_length,
        )


_of = functools.partial(Preset.of, RecurrentEncoderDecoderSettings, "rnn_attention")

RECURRENT_ENCODER_DECODER = Family(
    name="rnn_attention",
    settings=RecurrentEncoderDecoderSettings,
    backbone="langzoo.models.families.recurrent_encoder_decoder.backbone:"
    "RecurrentEncoderDecoder",
    recipe=Recipe(learning_rate=3e-3),
    presets={
        "rnn_attention_tiny": _of(),
        "rnn_attention_small": _of(
            128, 8192, hidden_dim=512, embedding_dim=256, dropout=0.3
        ),
        "rnnsearch": _of(
            *(50, 30_000, "after Bahdanau et al., 2015"),
            hidden_dim=1000,
            embedding_dim=620,
            attention="additive",
            input_feeding=True,
            share_embeddings=False,
        ),
    },
    search_space={
        "trainer.learning_rate": {"min": 0.001, "max": 0.01, "sampling": "log"},
        "model.cell": ["gru", "lstm"],
        "model.num_layers": [1, 2],
        "model.hidden_dim": [256, 384, 512],
        "model.dropout": {"min": 0.1, "max": 0.4, "step": 0.1},
    },
    predicts_next=False,
    has_hidden_states=False,
    reads_a_source=True,
)
