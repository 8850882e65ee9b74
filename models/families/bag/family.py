"""A bag of words and n-grams: embeddings, and nothing behind them.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ...learning.recipe import Recipe
from ..family import Counts, Family, NetworkSettings, Preset


class BagSettings(NetworkSettings):
    """A bag of words and n-grams."""

    hidden_dim: Annotated[int, Field(ge=1)] = 64
    """Width of the embeddings."""

    def counts(self, vocabulary_size: int) -> Counts:
        width = self.hidden_dim
        return Counts(vocabulary_size * width, self.ngram_weights(width))


BAG = Family(
    name="bag",
    settings=BagSettings,
    backbone="langzoo.models.families.bag.backbone:BagBackbone",
    recipe=Recipe(learning_rate=1e-2),
    presets={"bag_tiny": Preset.of(BagSettings, "bag")},
    search_space={
        "trainer.learning_rate": {"min": 0.003, "max": 0.03, "sampling": "log"},
        "model.hidden_dim": [32, 64, 128],
        "model.dropout": {"min": 0.0, "max": 0.6, "step": 0.2},
        "model.embedding_dropout": {"min": 0.0, "max": 0.6, "step": 0.2},
    },
    predicts_next=False,
)
