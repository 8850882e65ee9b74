"""What a training leaves for others, and what the processes of one tell each other.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import csv
import io
from typing import Any, ClassVar

from .. import storage
from ..records import FileRecord, Record
from .watching.history import curves_of

PRESET_FOLDER = "preset"
"""Beside the result: the model as a Keras preset."""
LOGS_FOLDER = "logs"
"""Beside the checkpoints, while training goes on."""
FAILURE_FILE = "failure.json"
"""There, too: what is known of a step whose loss was not finite."""
JOB_FILE = "job.json"
"""There, too: what several processes train."""
WEIGHTS_FILE = "trained.npz"
"""There, too: what they have learned."""
MEMBER = "member_"
"""There, too, with a number: the checkpoints of what a mixture is made of."""
_TABLES = ("history", "evaluations", "samples")


class Sample(Record):
    """A text that the model wrote at an evaluation."""

    step: int
    time: float
    """In seconds of the Unix epoch."""
    text: str


class Member(Record):
    """What one of the models of a mixture has learned."""

    family: str
    parameters: int
    seconds: float
    """Time spent in its training."""
    eval_loss: float
    """Its own mean loss on the evaluation windows, in nats a token."""
    weight: float
    """What it has in the mixture, on average over these."""


class TrainingResult(FileRecord):
    """What a training did."""

    FILE: ClassVar[str] = "training.json"

    parameters: int
    """Number of trained parameters."""
    steps: int
    """Optimizer steps in all; fewer than were wanted where training ended early."""
    resumed_at: int = 0
    """Step of the checkpoint it went on from; 0 for none."""
    train_tokens: int
    """Tokens of the training split's stream."""
    tokens_seen: int
    """Places for target tokens in all steps; of `best_fit` and `lines` without those of
    padding."""
    seconds: float
    """Time spent in training, over all runs."""
    eval_loss: float
    """Mean loss on the evaluation windows, in nats a token; with `carry_state` each is
    read after those before it in its stream."""
    history: list[dict[str, int | float]] = []
    """Step, loss in nats a token, learning rate, time in seconds of the Unix epoch and,
    where it is known, tokens a second since the row before, at some steps."""
    evaluations: list[dict[str, int | float]] = []
    """Step, loss in nats a token, time and, where it is known, what the gate would
    make of it, such as bits per byte, of every evaluation during training."""
    samples: list[Sample] = []
    """What the model wrote at evaluations."""
    has_perplexity: bool = True
    """Whether the losses have one that means something."""
    members: list[Member] = []
    """Of a mixture. Steps are then counted through the members, one after the other."""

    @property
    def tokens_per_second(self) -> float | None:
        """Mean speed of learning; `None` where that took no time."""
        return self.tokens_seen / self.seconds if self.seconds else None

    def write_tables(self, folder: str) -> None:
        """Writes the course of the training as CSV files, each where there is some.

        `history.csv` and `evaluations.csv` have a row for every row, with its
        perplexity if it has one, `samples.csv` one for every text.
        """
        for name in _TABLES:
            rows = self.model_dump(include={name})[name]
            if not rows:
                continue
            if name != "samples":
                rows = [{**row, **curves_of(row, self.has_perplexity)} for row in rows]
            storage.write_text(f"{folder.rstrip('/')}/{name}.csv", _csv(rows))


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    table = csv.DictWriter(
        text, columns, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
