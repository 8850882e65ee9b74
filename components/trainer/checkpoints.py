"""Checkpoints of a training, with its history."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ..errors import InputError, line_of
from ..progress import report
from .distribution import is_chief
from .records import FAILURE_FILE, JOB_FILE, LOGS_FOLDER, MEMBER
from .watching.history import History

_BEST_FOLDER = "best"
# What TensorFlow names the file that says which checkpoints there are.
_INDEX = "checkpoint"
# Names of folders beside a training's.
_TRAINING, _SEARCH = r"[0-9a-f]{16}", r"[0-9a-f]{16}-search"


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

    def restore(self, last: int | None = None) -> int:
        """Loads the newest checkpoint that is whole, and says which are not.

        That of the best evaluation is the last resort.

        Args:
            last: Batches of the training. One after more of them is of a longer one,
                and is passed over.

        Returns:
            Its number, 0 where there is no checkpoint.

        Raises:
            InputError: Where there are checkpoints, and none is whole.
        """
        found = [*self._best_manager.checkpoints, *self._manager.checkpoints]
        paths = [path for path in found if last is None or _number(path) <= last]
        if found and not paths:
            report(f"the checkpoints in {self.folder} are of more steps: training anew")
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


def tidy(folder: str, began: float) -> None:
    """Leaves of a training that has ended what a longer one goes on from.

    That is its newest checkpoint, or those of its members. Those beside it of other
    trainings and of trials are removed where nobody has written to them since it began.

    Args:
        folder: Its checkpoints, of `Checkpoints` or none.
        began: When it did, in seconds of the Unix epoch.
    """
    root, own = os.path.split(folder)
    _leave_newest(folder)
    others = [name for name in _names(root) if re.fullmatch(_TRAINING, name)]
    trials = [
        os.path.join(name, trial)
        for name in _names(root)
        if re.fullmatch(_SEARCH, name)
        for trial in _names(os.path.join(root, name))
    ]
    for name in [*others, *trials]:
        path = os.path.join(root, name)
        if name != own and tf.io.gfile.isdir(path) and _is_left(path, began):
            _remove(path)


def _leave_newest(folder: str) -> None:
    newest = tf.train.latest_checkpoint(folder)
    kept = () if newest is None else (os.path.basename(newest), _INDEX, LOGS_FOLDER)
    for name in _names(folder):
        path = os.path.join(folder, name)
        if name.startswith(MEMBER):
            _leave_newest(path)
        elif os.path.splitext(name)[0] not in kept:
            _remove(path)


def _is_left(folder: str, began: float) -> bool:
    """Whether nobody works in a folder: not since a moment, nor waits for others."""
    try:
        for path, _, names in tf.io.gfile.walk(folder):
            times = [tf.io.gfile.stat(os.path.join(path, n)).mtime_nsec for n in names]
            # TensorFlow tells whole seconds.
            if JOB_FILE in names or max(times, default=0) >= int(began) * 10**9:
                return False
    except tf.errors.NotFoundError:  # Somebody has just removed it.
        return False
    return True


def _names(folder: str) -> list[str]:
    if not tf.io.gfile.exists(folder):
        return []
    # Object stores put a slash behind a folder's.
    return [name.rstrip("/") for name in tf.io.gfile.listdir(folder)]


def _number(path: str) -> int:
    return int(path.rpartition("-")[2])


def _remove(path: str) -> None:
    if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
    else:
        tf.io.gfile.remove(path)
