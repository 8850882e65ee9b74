"""Checkpoints of a training, with its history."""

from __future__ import annotations

import json
from collections.abc import Sequence

import keras
import tensorflow as tf


class History:
    """The course of a training, kept with its checkpoints.

    Attributes:
        rows: Step, loss in nats a token and learning rate, at some steps.
        evaluations: Step, loss and bits per byte of every evaluation.
        pending: Losses of the batches of a step that is not complete.
        seconds: Time spent in training so far.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.evaluations: list[dict[str, float]] = []
        self.pending: list[float] = []
        self.seconds = 0.0

    def to_json(self) -> str:
        """Returns the history as JSON."""
        return json.dumps(vars(self))

    def load_json(self, text: str) -> None:
        """Takes up a history that `to_json` gave, in the lists that are there."""
        content = json.loads(text)
        self.seconds = content.pop("seconds")
        for name, values in content.items():
            getattr(self, name)[:] = values


class Checkpoints:
    """Weights, carried and random state, optimizer, history: all whole or not there.

    A checkpoint's number is that of the batches that were learned from.

    `tf.train.CheckpointManager` names a checkpoint in its index file only once all of
    it is written, so one half-written when the process dies is never loaded.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        history: History,
        folder: str,
        best: Sequence[tf.Variable] = (),
    ) -> None:
        self._history = history
        self._step = tf.Variable(0, dtype=tf.int64)
        self._history_json = tf.Variable("", dtype=tf.string)
        variables = [v.value for v in [*model.variables, *optimizer.variables]]
        variables.extend(best)
        self._checkpoint = tf.train.Checkpoint(
            variables=variables, step=self._step, history=self._history_json
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, folder, max_to_keep=2
        )

    def save(self, batches: int) -> None:
        """Writes the state after as many batches."""
        self._step.assign(batches)
        self._history_json.assign(self._history.to_json())
        self._manager.save(checkpoint_number=batches)

    def restore(self) -> int:
        """Loads the newest checkpoint; returns its number, 0 where there is none."""
        newest = self._manager.latest_checkpoint
        if newest is None:
            return 0
        self._checkpoint.restore(newest).assert_consumed()
        self._history.load_json(self._history_json.numpy().decode())
        return int(self._step.numpy())
