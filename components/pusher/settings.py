"""What the model card says; the section `card` of a configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field

from ...models.settings import Section


class CardSettings(Section):
    """What the model card of a pushed version says besides its figures."""

    language: list[Annotated[str, Field(min_length=2)]] = []
    """Codes of the corpus's languages, such as `en`."""
    license: Annotated[str, Field(min_length=1)] | None = None
    """Identifier of the model's licence, such as `apache-2.0`."""
    intended_use: str = ""
    """What the model is for; by default, to continue and score text like its own."""


class Card(CardSettings):
    """All that the configuration says of a model."""

    name: str
    """The pipeline's name."""
    model: dict[str, Any]
    """Family, context length and hyperparameters."""
    tokenizer: str
    """Its type."""
    sources: list[str]
    """Where the training data are from."""

    def with_trained(self, preset: str) -> Card:
        """With the hyperparameters of a preset's JSON, which a search may have found.

        Args:
            preset: That JSON; "" changes nothing.
        """
        trained = json.loads(preset)["config"] if preset else {}
        model = {key: trained.get(key, value) for key, value in self.model.items()}
        return self.model_copy(update={"model": model})
