"""What a search leaves for others.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...models.tasks import CAUSAL_LM
from .. import storage
from ..records import Record

# Named as TFX names them.
BEST_FILE = "best_hyperparameters.txt"
_TRIALS_FILE = "tuner_results.json"
_TABLE_FILE = "tuner_results.csv"


class Trial(Record):
    """A training with hyperparameters."""

    values: dict[str, Any]
    """The hyperparameters, by keys such as `trainer.learning_rate`."""
    steps: int
    """Optimizer steps, those of a shorter trial that it went on from included."""
    figure: float | None = None
    """What models are gated on, of the evaluation split; `None` where training
    failed."""
    metric: str = CAUSAL_LM.words
    """What that is, in words."""
    parameters: int = 0
    """Number of trained parameters; 0 where training failed."""
    seconds: float = 0.0
    """Time that it took, without that of interrupted runs."""
    message: str = ""
    """Why it failed."""

    @property
    def score(self) -> float:
        """The figure, or infinity where training failed."""
        return math.inf if self.figure is None else self.figure

    def __str__(self) -> str:
        return (
            f"{self.score:.3f} {self.metric} after {self.steps} steps with "
            f"{values_line(self.values)}"
        )


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, the best first and those that failed last."""
    return sorted(trials, key=lambda trial: trial.score)


def values_line(values: Mapping[str, Any]) -> str:
    """Hyperparameters in one line."""
    return ", ".join(f"{key} {short(value)}" for key, value in values.items())


def short(value: Any) -> str:
    """A value, with four digits if it is a fraction."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_trials(trials: Sequence[Trial], folder: str) -> None:
    """Writes all trials into a folder, the best first, as JSON and as CSV.

    As in TFX's own file a row has `trial_id`, `score` and the hyperparameters, besides
    `steps`, `parameters`, `seconds` and the `message` of one that failed, whose score
    is null.
    """
    rows = []
    for number, trial in enumerate(ranked(trials)):
        row = trial.model_dump()
        values, score = row.pop("values"), row.pop("figure")
        rows.append({"trial_id": number, "score": score, **row, **values})
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    storage.write_text(f"{folder}/{_TRIALS_FILE}", json.dumps(rows))
    storage.write_text(f"{folder}/{_TABLE_FILE}", table.getvalue())


def read_trials(folder: str) -> list[Trial]:
    """Reads what `write_trials` left in a folder; nothing where there is none."""
    trials = []
    for row in json.loads(storage.read_text(f"{folder}/{_TRIALS_FILE}") or "[]"):
        known = {name: row.pop(name) for name in Trial.model_fields if name in row}
        del row["trial_id"]
        trials.append(Trial(figure=row.pop("score"), values=row, **known))
    return trials
