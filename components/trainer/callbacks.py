"""What happens between the steps of a training: progress, checkpoints, epochs."""

from __future__ import annotations

import datetime
import math
import time
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ...models.learning.optimizers import unwrapped
from ...models.tasks.task import Task
from ..errors import InputError
from ..progress import show
from .checkpoints import Checkpoints
from .distribution import NATS
from .evaluation import Evaluations
from .settings import TrainerSettings
from .watching.history import History, perplexity_of
from .watching.watching import Watching

_SHOW_EVERY_SECONDS = 0.5


class LossIsNotFinite(InputError):
    """A step after which nothing can be learned.

    Args:
        batch: The batches before it.
        step: Its number.
        loss: Its loss.
        learning_rate: Of this step.
    """

    def __init__(self, batch: int, step: int, loss: float, learning_rate: float):
        super().__init__(
            f"the loss is {loss} at step {step}, whose learning rate is "
            f"{learning_rate:.3g}: lower trainer.learning_rate; the last good state is "
            "kept"
        )
        self.batch = batch
        self.record = {"step": step, "loss": str(loss), "learning_rate": learning_rate}


class Counted(NamedTuple):
    """What a step learns from, on average: places for targets, and rows."""

    tokens: float
    texts: float


class ForgetEveryEpoch(keras.callbacks.Callback):
    """Lets every epoch of the data begin without a past; to Keras all are one."""

    def __init__(self, first_step: int, steps_an_epoch: int) -> None:
        super().__init__()
        self._first_step = first_step
        self._steps_an_epoch = steps_an_epoch

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Forgets before the first step of an epoch."""
        if (self._first_step + batch) % self._steps_an_epoch == 0:
            self.model.reset_state()


class Progress(keras.callbacks.Callback):
    """Shows where training is, and writes checkpoints by the clock."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        evaluations: Evaluations,
        history: History,
        watching: Watching,
        settings: TrainerSettings,
        batches: int,
        counted: Counted,
        task: Task,
    ) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._evaluations = evaluations
        self._history = history
        self._watching = watching
        self._settings = settings
        self._batches = batches
        self._accumulated = settings.recipe.gradient_accumulation_steps
        self._counted = counted
        self._task = task
        self._is_at_end = False
        self.is_sound = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clocks."""
        self._skipped = self._batches - self._applied()
        now = time.monotonic()
        self._ticked = self._saved = now
        self._shown = 0.0
        self._timed_batches, self._timed_seconds = 0, 0.0
        self._shown_batches, self._shown_seconds = 0, 0.0

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Makes the loss that Keras reports this batch's, not the mean so far."""
        self.model.reset_metrics()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Counts time, checks the loss, shows it, evaluates, saves when it is time."""
        now = time.monotonic()
        seconds, self._ticked = now - self._ticked, now
        self._history.seconds += seconds
        if batch:  # The first one holds tracing and compilation.
            self._timed_batches += 1
            self._timed_seconds += seconds
        self._batches += 1
        self._skipped = self._batches - self._applied()
        self._take_note(logs or {})
        if self._batches % self._accumulated == 0:
            self._end_step(self._batches // self._accumulated)
        if now - self._saved >= self._settings.checkpoint_seconds or self._is_step_to(
            self._settings.checkpoint_steps
        ):
            self.save()
            self._saved = self._ticked = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the last checkpoint, from which a longer training goes on.

        Behind it Keras puts averages in the place of the weights, and states go.
        """
        self.save()
        self._is_at_end = True

    def _is_step_to(self, every: int | None) -> bool:
        """Whether a step has ended, of which there have been a multiple of `every`."""
        if every is None:
            return False
        return self._batches % (every * self._accumulated) == 0

    def save(self) -> None:
        """Writes a checkpoint, unless the last step was a bad one or all are done."""
        if self.is_sound and not self._is_at_end:
            # The last batch counts also where a person stopped before we were told.
            self._checkpoints.save(self._applied() + self._skipped)

    def _applied(self) -> int:
        """Batches that the optimizer has counted: not those that overflow float16."""
        return int(_value(unwrapped(self.model.optimizer)._iterations))

    def _take_note(self, logs: dict[str, float]) -> None:
        loss = logs["loss"]
        if not math.isfinite(loss):
            self.is_sound = False
            step = -(-self._batches // self._accumulated)
            rate = float(_value(self.model.optimizer.learning_rate))
            raise LossIsNotFinite(self._batches - 1, step, loss, rate)
        smoothed = self._settings.label_smoothing > 0
        self._history.pending.append(logs[NATS] if smoothed else loss)

    def _end_step(self, step: int) -> None:
        loss = float(np.mean(self._history.pending))
        self._history.pending.clear()
        last = step == self._settings.steps
        if last or self._ticked - self._shown >= _SHOW_EVERY_SECONDS:
            self._show(step, loss)
            self._shown = self._ticked
        if self._evaluations.are_due(step):
            if self._evaluations.run(step):
                self._checkpoints.save_best(self._batches)
            self.model.stop_training = self._evaluations.stopped
            self._ticked = time.monotonic()

    def _show(self, step: int, loss: float) -> None:
        rate = float(_value(self.model.optimizer.learning_rate))
        row = {"step": step, "loss": loss, "learning_rate": rate, "time": time.time()}
        said = f"step {step}/{self._settings.steps}, loss {loss:.3f}, "
        if self._task.has_perplexity:
            said += f"perplexity {perplexity_of(loss):.1f}, "
        if self._timed_batches > self._shown_batches:
            speed = self._steps_a_second()
            row["tokens_per_second"] = speed * self._counted.tokens
            counts = self._task.counts
            said += f"{self._time_left()} left, "
            said += f"{speed * getattr(self._counted, counts):,.0f} {counts}/s, "
        self._history.rows.append(row)
        show(f"{said}learning rate {rate:.1e}")
        self._watching.stepped(row)

    def _steps_a_second(self) -> float:
        """Since this was last asked."""
        steps = (self._timed_batches - self._shown_batches) / self._accumulated
        seconds = self._timed_seconds - self._shown_seconds
        self._shown_batches = self._timed_batches
        self._shown_seconds = self._timed_seconds
        return steps / seconds

    def _time_left(self) -> datetime.timedelta:
        batches = self._settings.steps * self._accumulated - self._batches
        seconds = batches * self._timed_seconds / self._timed_batches
        return datetime.timedelta(seconds=round(seconds))


def _value(variable: Any) -> np.ndarray:
    """A number that the replicas have in common."""
    return tf.convert_to_tensor(variable).numpy()
