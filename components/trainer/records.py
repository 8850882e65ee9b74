"""What a training leaves for others."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import tensorflow as tf

RESULT_FILE = "training.json"


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        parameters: Number of trained parameters.
        steps: Optimizer steps in all; fewer than were wanted where training ended
            early.
        resumed_at: Step of the checkpoint it went on from; 0 for none.
        train_tokens: Tokens of the training split's stream.
        tokens_seen: Places for target tokens in all steps; of `best_fit` and `lines`
            without those of padding.
        seconds: Time spent in training, over all runs.
        eval_loss: Mean loss on the evaluation windows, in nats a token; with
            `carry_state` each is read after those before it in its stream.
        history: Step, loss in nats a token, learning rate, time in seconds of the Unix
            epoch and, where it is known, tokens a second since the row before, at some
            steps.
        evaluations: Step, loss in nats a token, time and, where it is known, bits per
            byte of every evaluation during training.
        samples: Step, time and text of what the model wrote at evaluations.
    """

    parameters: int
    steps: int
    resumed_at: int
    train_tokens: int
    tokens_seen: int
    seconds: float
    eval_loss: float
    history: list[dict[str, float]]
    evaluations: list[dict[str, float]] = dataclasses.field(default_factory=list)
    samples: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @classmethod
    def read(cls, folder: str) -> TrainingResult:
        """Reads the result that `write` left in a folder."""
        with tf.io.gfile.GFile(os.path.join(folder, RESULT_FILE)) as file:
            return cls(**json.loads(file.read()))

    def write(self, folder: str) -> None:
        """Writes the result into a folder, as JSON."""
        tf.io.gfile.makedirs(folder)
        with tf.io.gfile.GFile(os.path.join(folder, RESULT_FILE), "w") as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=1))
