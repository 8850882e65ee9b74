"""Checkpoints of a training, with its history."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import InputError, line_of
from ..progress import report
from .distribution import is_chief
from .records import FAILURE_FILE
from .watching.history import History

_BEST_FOLDER = "best"


class Checkpoints:
    """Weights, carried and random state, optimizer, history: all whole or not there.

    A checkpoint's number is that of the batches that were learned from.

    `tf.train.CheckpointManager` names a checkpoint in its index file only once all of
    it is written, so one half-written when the process dies is never loaded.

    Args:
        model: The model.
        optimizer: Its optimizer, built.
        history: The course of the training.
        folder: Where checkpoints lie; it belongs to this training alone.
        best: More variables, the weights of the best evaluation.
        keep: How many checkpoints are kept, the newest; that of the best evaluation
            is, besides.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        history: History,
        folder: str,
        best: Sequence[tf.Variable] = (),
        keep: int = 2,
    ) -> None:
        self.folder = folder
        self._history = history
        self._step = tf.Variable(0, dtype=tf.int64)
        self._history_json = tf.Variable("", dtype=tf.string)
        variables = [v.value for v in [*model.variables, *optimizer.variables]]
        variables.extend(best)
        self._checkpoint = tf.train.Checkpoint(
            variables=variables, step=self._step, history=self._history_json
        )
        self._writes = is_chief(model.distribute_strategy)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, folder, max_to_keep=keep
        )
        self._best_manager = tf.train.CheckpointManager(
            self._checkpoint, os.path.join(folder, _BEST_FOLDER), max_to_keep=1
        )

    def save(self, batches: int) -> None:
        """Writes the state after as many batches; of several processes, the chief does.

        Raises:
            InputError: Where it cannot be written, as on a full disk. What was written
                of it is gone, and the checkpoints before it are as they were.
        """
        self._save(self._manager, batches)

    def save_best(self, batches: int) -> None:
        """Writes the state after as many batches, to be kept until there is a better.

        Raises:
            InputError: As `save`.
        """
        self._save(self._best_manager, batches)

    def _save(self, manager: tf.train.CheckpointManager, batches: int) -> None:
        if not self._writes:
            return
        self._step.assign(batches)
        self._history_json.assign(self._history.to_json())
        try:
            manager.save(checkpoint_number=batches)
        except (tf.errors.OpError, OSError) as error:
            pattern = os.path.join(manager.directory, f"ckpt-{batches}*")
            for path in tf.io.gfile.glob(pattern):
                _remove(path)
            raise InputError(
                f"no checkpoint can be written to {self.folder}: {line_of(error)}; "
                "the last one is kept, and the same command goes on from it"
            ) from error

    def restore(self) -> int:
        """Loads the newest checkpoint that is whole, and says which are not.

        That of the best evaluation is the last resort.

        Returns:
            Its number, 0 where there is no checkpoint.

        Raises:
            InputError: Where there are checkpoints, and none is whole.
        """
        paths = [*self._best_manager.checkpoints, *self._manager.checkpoints]
        for path in reversed(paths):
            try:
                self._checkpoint.restore(path).assert_consumed()
            except (tf.errors.OpError, AssertionError) as error:
                report(f"warning: {path} is no whole checkpoint: {line_of(error)}")
                continue
            self._history.load_json(self._history_json.numpy().decode())
            return int(self._step.numpy())
        if paths:
            raise InputError(
                f"no checkpoint in {self.folder} is whole: delete that folder to train "
                "from the beginning"
            )
        return 0

    def note_failure(self, record: dict[str, Any]) -> str:
        """Writes what is known of a failed step beside the checkpoints, as JSON."""
        path = os.path.join(self.folder, FAILURE_FILE)
        if not self._writes:
            return path
        tf.io.gfile.makedirs(self.folder)
        with tf.io.gfile.GFile(path, "w") as file:
            file.write(json.dumps(record))
        return path


def _remove(path: str) -> None:
    if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
    else:
        tf.io.gfile.remove(path)
