"""The recurrent families: simple RNN, GRU and LSTM.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ...learning.recipe import Recipe
from ..family import Counts, Family, NetworkSettings, Preset

_Share = Annotated[float, Field(ge=0, lt=1)]


class RecurrentSettings(NetworkSettings):
    """A stack of recurrent layers."""

    gates: ClassVar[int]
    """Gates of a layer, as many units each as its width."""
    biases: ClassVar[int]
    """Biases of a unit of a gate."""

    num_layers: Annotated[int, Field(ge=1)] = 1
    """Recurrent layers."""
    hidden_dim: Annotated[int, Field(ge=1)] = 256
    """Width of every layer."""
    embedding_dim: Annotated[int, Field(ge=1)] | None = None
    """Width of the embeddings, and of the output, which a projection without bias makes
    of the last layer's. Without, `hidden_dim`, and no projection."""
    tie_embeddings: bool = True
    """Whether the output weights are the embeddings."""
    normalize: bool = True
    """Whether there are RMSNorms."""
    dropout: _Share = 0.0
    """Dropout on the embeddings and on the output of every layer."""
    input_dropout: _Share | None = None
    """On the embeddings, in place of `dropout`."""
    output_dropout: _Share | None = None
    """On the output of the last layer, in place of `dropout`."""
    recurrent_dropout: _Share = 0.0
    """On what a layer sees of its last output; one mask for all positions."""
    weight_dropout: _Share = 0.0
    """DropConnect on the recurrent weights."""
    variational_dropout: bool = False
    """Whether the dropouts on embeddings and outputs, too, have one mask for all
    positions."""
    use_cudnn: bool | Literal["auto"] = "auto"
    """Whether cuDNN computes the layers, on an NVIDIA card; `true` insists on it. Where
    it does not, as with `recurrent_dropout`, XLA may compile the training step."""

    def counts(self, vocabulary_size: int) -> Counts:
        width = self.embedding_dim or self.hidden_dim
        inputs = [width] + [self.hidden_dim] * (self.num_layers - 1)
        units = self.gates * self.hidden_dim
        products = sum(units * (dim + self.hidden_dim) for dim in inputs)
        projection = self.hidden_dim * width if self.embedding_dim else 0
        embeddings = vocabulary_size * width
        return Counts(
            products=products + projection + embeddings,
            others=self.num_layers * self.biases * units
            + (sum(inputs) + width if self.normalize else 0)
            + (0 if self.tie_embeddings else embeddings)
            + self.ngram_weights(width),
        )


class RNNSettings(RecurrentSettings):
    """A stack of simple recurrent layers."""

    gates, biases = 1, 1


class GRUSettings(RecurrentSettings):
    """A stacked GRU."""

    gates, biases = 3, 2


class LSTMSettings(RecurrentSettings):
    """A stacked LSTM."""

    gates, biases = 4, 1


def _space(slowest: float, fastest: float) -> dict[str, Any]:
    """What a search tries: rates from the slowest to the fastest, and sizes."""
    return {
        "trainer.learning_rate": {"min": slowest, "max": fastest, "sampling": "log"},
        "model.num_layers": [1, 2],
        "model.hidden_dim": [192, 256, 320],
        "model.dropout": {"min": 0.0, "max": 0.3, "step": 0.1},
    }


_rnn = functools.partial(Preset.of, RNNSettings, "rnn")
_gru = functools.partial(Preset.of, GRUSettings, "gru")
_lstm = functools.partial(Preset.of, LSTMSettings, "lstm")

RNN = Family(
    name="rnn",
    settings=RNNSettings,
    backbone="langzoo.models.families.recurrent.backbone:SimpleRNNBackbone",
    recipe=Recipe(learning_rate=3e-3),
    presets={"rnn_tiny": _rnn()},
    search_space=_space(0.001, 0.01),
    carries_state=True,
    keeps_documents_apart=True,
)
GRU = Family(
    name="gru",
    settings=GRUSettings,
    backbone="langzoo.models.families.recurrent.backbone:GRUBackbone",
    recipe=Recipe(learning_rate=5e-3),
    presets={
        "gru_tiny": _gru(),
        "gru_small": _gru(35, 10_000, num_layers=2, hidden_dim=650),
    },
    search_space=_space(0.002, 0.02),
    carries_state=True,
    keeps_documents_apart=True,
)
LSTM = Family(
    name="lstm",
    settings=LSTMSettings,
    backbone="langzoo.models.families.recurrent.backbone:LSTMBackbone",
    recipe=Recipe(learning_rate=6e-3),
    presets={
        "lstm_tiny": _lstm(),
        "lstm_small": _lstm(
            *(35, 10_000, "Zaremba et al., 2014, medium"), num_layers=2, hidden_dim=650
        ),
        "lstm_base": _lstm(
            *(70, 32_000, "Merity et al., 2017"),
            num_layers=3,
            hidden_dim=1152,
            embedding_dim=400,
        ),
    },
    search_space=_space(0.002, 0.02),
    carries_state=True,
    keeps_documents_apart=True,
)
