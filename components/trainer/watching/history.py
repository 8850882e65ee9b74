"""The course of a training, of which all that is shown is made.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import json
import math
from typing import Any


class History:
    """The course of a training, kept with its checkpoints.

    Args:
        has_perplexity: Whether its losses have one that means something.

    Attributes:
        rows: What `TrainingResult.history` holds.
        evaluations: What `TrainingResult.evaluations` holds.
        samples: What `TrainingResult.samples` holds.
        pending: Losses of the batches of a step that is not complete.
        seconds: Time spent in training so far.
    """

    def __init__(self, has_perplexity: bool = True) -> None:
        self._has_perplexity = has_perplexity
        self.rows: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self.samples: list[dict[str, Any]] = []
        self.pending: list[float] = []
        self.seconds = 0.0

    def to_json(self) -> str:
        """Returns the history as JSON."""
        kept = {name: value for name, value in vars(self).items() if name[0] != "_"}
        return json.dumps(kept)

    def curves_of(self, row: dict[str, float]) -> dict[str, float]:
        """What there is to see of a row."""
        return curves_of(row, self._has_perplexity)

    def load_json(self, text: str) -> None:
        """Takes up a history that `to_json` gave, in the lists that are there."""
        content = json.loads(text)
        self.seconds = content.pop("seconds")
        for name, values in content.items():
            getattr(self, name)[:] = values


def curves_of(row: dict[str, float], has_perplexity: bool) -> dict[str, float]:
    """What there is to see of a row of a history, by name; perplexity is added."""
    values = {name: row[name] for name in row if name not in ("step", "time")}
    if not has_perplexity:
        return values
    return {**values, "perplexity": perplexity_of(row["loss"])}


def perplexity_of(loss: float) -> float:
    """The perplexity of a loss in nats; one that is beyond all sense is cut off."""
    return math.exp(min(loss, 50))
