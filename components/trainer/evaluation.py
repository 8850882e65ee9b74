"""Evaluation during training, and what it decides.

All decisions are functions of the losses so far, so the losses are all that a
checkpoint must hold for a resumed training to decide alike; besides them it holds the
best weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ...models.learning.optimizers import NTASGD, averaging_is_due, unwrapped
from ...models.learning.schedules import plateau_of
from ...models.references import load
from ...models.tasks import CAUSAL_LM, TASKS
from ..progress import show
from .distribution import NATS, TOKENS, dealt_out
from .rows import ROWS
from .settings import TrainerSettings


class Texts(NamedTuple):
    """What the tokens of a split stand for.

    Attributes:
        targets: Tokens to predict, the ends of documents among them.
        bytes: UTF-8 bytes of the texts.
        spelling_nll: Nats that unknown pieces cost besides their tokens.
        task: What the model learns to do with them.
        decisions: About each of the texts, where the targets are those.
    """

    targets: int
    bytes: int
    spelling_nll: float = 0.0
    task: str = CAUSAL_LM.name
    decisions: int = 1

    def figure(self, loss: float) -> float:
        """What the gate makes of a mean loss of the targets, in nats."""
        figure: float = load(ROWS[self.task].figure)(loss, self)
        return figure


def evaluate(model: keras.Model, batches: tf.data.Dataset) -> float:
    """The mean cross-entropy of all tokens, in nats; the batches are read once."""
    losses = _BatchLosses()
    model.evaluate(
        dealt_out(batches, model.distribute_strategy),
        steps=int(batches.cardinality()),
        callbacks=[losses],
        verbose=0,
    )
    return float(np.average(losses.values, weights=losses.tokens))


class TokenCount(keras.metrics.Metric):
    """The tokens of a batch that have a weight."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, targets: Any, logits: Any, sample_weight: Any) -> None:
        """Adds the weights of a batch."""
        self.total.assign_add(keras.ops.sum(sample_weight))

    def result(self) -> Any:
        """Returns how many there have been."""
        return self.total.value


class _BatchLosses(keras.callbacks.Callback):
    """The loss of every batch; Keras's mean takes no account of how full they are."""

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.values: list[float] = []
        self.tokens: list[float] = []

    def on_test_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self.model.reset_metrics()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        results = logs or {}
        self.values.append(results.get(NATS, results["loss"]))
        self.tokens.append(results[TOKENS])


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Within it, the weights are their averages, where the optimizer has such."""
    optimizer = unwrapped(model.optimizer)
    if not optimizer.use_ema:
        yield
        return
    raw = [tf.identity(variable.value) for variable in model.trainable_variables]
    optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, raw, strict=True):
            variable.assign(value)


def best_of(losses: Sequence[float]) -> float:
    """The lowest loss; what is no number is not one. Infinity where there is none."""
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)


def since_best(losses: Sequence[float]) -> int:
    """How many evaluations there were after the best one."""
    best = best_of(losses)
    behind = [count for count, loss in enumerate(reversed(losses)) if loss == best]
    return max(behind, default=len(losses))


def falls(losses: Sequence[float], patience: int) -> int:
    """How often the learning rate has fallen: each `patience` times without a best."""
    best, waited, count = math.inf, 0, 0
    for loss in losses:
        waited += 1
        if loss < best:
            best, waited = loss, 0
        elif waited == patience:
            waited, count = 0, count + 1
    return count


class Evaluations:
    """Evaluates every so many steps; ends training, averages, lowers the rate.

    Args:
        model: The compiled model, its optimizer built.
        settings: When to evaluate, when to end, and what the optimizer was made by.
        batches: Evaluation batches.
        rows: The evaluations so far, with their `step` and `loss`; more are added.
        texts: Of the evaluation split, for what the gate makes of a loss.
        told: Is given the row of every evaluation while the model has the weights that
            were evaluated.
    """

    def __init__(
        self,
        model: keras.Model,
        settings: TrainerSettings,
        batches: tf.data.Dataset,
        rows: list[dict[str, float]],
        *,
        texts: Texts | None,
        told: Callable[[dict[str, float]], None],
    ) -> None:
        self._told = told
        self._model = model
        self._recipe = settings.recipe
        self._batches = batches
        self._rows = rows
        self._every = settings.eval_every_steps
        self._last_step = settings.steps
        self._patience = settings.early_stopping_patience
        self._texts = texts
        self.best: list[tf.Variable] = []
        """The weights of the best evaluation, where training can end early."""
        if self._patience is not None:
            trained = model.trainable_variables
            self.best = [tf.Variable(tf.identity(v.value)) for v in trained]

    @property
    def losses(self) -> list[float]:
        """The loss of every evaluation so far."""
        return [row["loss"] for row in self._rows]

    @property
    def stopped(self) -> bool:
        """Whether training is over before its last step."""
        return self._patience is not None and since_best(self.losses) >= self._patience

    def are_due(self, step: int) -> bool:
        """Whether a step is one to evaluate after, and has not been."""
        if not self._every or not step or step in [row["step"] for row in self._rows]:
            return False
        return step % self._every == 0 or step == self._last_step

    def run(self, step: int) -> bool:
        """Evaluates after `step` steps, with averaged weights where there are such.

        Returns:
            Whether there has been none as good.
        """
        with averaged_weights(self._model):
            loss = evaluate(self._model, self._batches)
            is_best = loss < best_of(self.losses)
            if self.best and is_best:
                _assign(self.best, self._model.trainable_variables)
            row = {"step": step, "loss": loss, "time": time.time()}
            said = f"evaluation loss {loss:.3f}"
            if self._texts and self._texts.bytes:
                task = TASKS[self._texts.task]
                row[task.metric] = self._texts.figure(loss)
                said += f", {row[task.metric]:.3f} {task.words}"
            self._told(row)
        self._rows.append(row)
        self.follow()
        show(f"step {step}/{self._last_step}, {said}")
        return is_best

    def follow(self) -> None:
        """Does with the optimizer what the evaluations so far demand."""
        optimizer = unwrapped(self._model.optimizer)
        if isinstance(optimizer, NTASGD) and averaging_is_due(
            self.losses, self._recipe.averaging_patience
        ):
            optimizer.start_averaging()
        if self._recipe.schedule == "plateau":
            count = falls(self.losses, self._recipe.plateau_patience)
            share = self._recipe.decay_factor**count
            share = max(share, self._recipe.final_learning_rate)
            plateau_of(optimizer._learning_rate).share.assign(share)

    def settle(self) -> None:
        """Leaves the model with the weights that training was for.

        They are those of the best evaluation where training can end early, else the
        averages where the optimizer has such, else the last.
        """
        if self.best and math.isfinite(best_of(self.losses)):
            _assign(self._model.trainable_variables, self.best)
        else:
            optimizer = self._model.optimizer
            optimizer.finalize_variable_values(self._model.trainable_variables)


def _assign(targets: Sequence[Any], sources: Sequence[Any]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.assign(source)
