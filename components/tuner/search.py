"""A search for hyperparameters: what is tried, what came of it, what is best.

KerasTuner's oracles decide what to try next, from their seed and the results so far
alone. So the results are all that must outlive the process: a search that goes on asks
its oracle anew, and answers from the results that lie in its folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner
import tensorflow as tf
import threadpoolctl
from keras_tuner.engine import base_tuner

from ...models.tasks import CAUSAL_LM
from .. import storage
from ..errors import InputError
from ..progress import as_part, report, show
from .records import Trial, ranked, short, values_line
from .settings import LONGEST, SearchSettings

_OWN = "tuner/"
"""Begins the names of the hyperparameters that Hyperband adds."""

_FACTOR = 3
"""Hyperband's trials are a ninth, a third or the whole of the longest."""

Train = Callable[[Mapping[str, Any], int, str], "Measured"]
"""Trains a model with hyperparameters for some steps, with checkpoints in a folder."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came of a training.

    Attributes:
        figure: What models are gated on, of the evaluation split: less is better.
        parameters: Number of trained parameters.
        metric: What the figure is, in words.
    """

    figure: float
    parameters: int
    metric: str = CAUSAL_LM.words


def make_oracle(settings: SearchSettings) -> keras_tuner.Oracle:
    """Makes what decides on the next trial."""
    space, trials = settings.space, settings.trials
    common = {
        "objective": keras_tuner.Objective("figure", "min"),
        "hyperparameters": _declared(space),
        "seed": settings.seed + 1,  # To KerasTuner 0 is none.
        # Otherwise it gives up after three.
        "max_consecutive_failed_trials": trials + 1,
    }
    if settings.algorithm == "hyperband":
        oracle = keras_tuner.oracles.HyperbandOracle(
            max_epochs=LONGEST, factor=_FACTOR, **common
        )
        oracle.max_trials = trials
    elif settings.algorithm == "random":
        oracle = keras_tuner.oracles.RandomSearchOracle(max_trials=trials, **common)
    else:
        oracle = keras_tuner.oracles.BayesianOptimizationOracle(
            max_trials=trials,
            num_initial_points=min(2 * len(space) + 1, max(trials // 2, 1)),
            **common,
        )
    oracle.verbose = 0
    # A space is exhausted when so many draws were old ones; of few values 20 may be.
    oracle._max_collisions = 1000
    return oracle


def _declared(space: Mapping[str, Any]) -> keras_tuner.HyperParameters:
    hyperparameters = keras_tuner.HyperParameters()
    for key, domain in space.items():
        if isinstance(domain, Mapping):
            low, high = domain["min"], domain["max"]
            options = {"sampling": domain.get("sampling", "linear")}
            if domain.get("step") is not None:
                options["step"] = domain["step"]
            integers = isinstance(low, int) and isinstance(high, int)
            declare = hyperparameters.Int if integers else hyperparameters.Float
            declare(key, low, high, **options)
        elif len(domain) == 1:
            hyperparameters.Fixed(key, domain[0])
        elif isinstance(domain[0], bool):  # A Choice would make them 0 and 1.
            hyperparameters.Boolean(key)
        else:
            hyperparameters.Choice(key, domain)
    return hyperparameters


class Search(base_tuner.BaseTuner):
    """Trains and measures what the oracle asks for.

    A trial's checkpoints and result lie in the search's folder by its hyperparameters
    and steps. So a trial that was interrupted goes on, one that has ended is not run
    again, and a long trial of Hyperband goes on from the short one that recommended it.

    Args:
        oracle: Decides what to try.
        folder: Where results and checkpoints lie; it must outlive the process. It
            belongs to searches with the same data, configuration and steps, whatever
            their oracle and space.
        steps: Of the longest trials.
    """

    def __init__(self, oracle: keras_tuner.Oracle, folder: str, steps: int) -> None:
        super().__init__(
            oracle, directory=folder, project_name="keras_tuner", overwrite=True
        )
        self._folder = folder
        self._steps = steps
        self.trials: list[Trial] = []
        """All trials so far, in the order in which they ended."""
        self._were_done = 0

    def search(self, trainings: contextlib.AbstractContextManager[Train]) -> None:
        """Runs all trials.

        Args:
            trainings: Gives, for the length of a `with` statement, what trains.

        Raises:
            InputError: Where all of them have failed.
        """
        # The small matrices of a Gaussian process are slower in several threads.
        with trainings as train, threadpoolctl.threadpool_limits(1, "blas"):
            super().search(train)
        if not any(trial.figure is not None for trial in self.trials):
            tf.io.gfile.rmtree(self._folder)
            raise InputError(
                f"none of the {len(self.trials)} trials of search.space could be "
                f"trained; the first: {self.trials[0].message}"
            )

    def run_trial(self, trial: keras_tuner.engine.trial.Trial, train: Train) -> float:
        """Trains, or takes the result that there is; returns its figure."""
        drawn = trial.hyperparameters.values
        values = {
            key: _rounded(value)
            for key, value in drawn.items()
            if not key.startswith(_OWN)
        }
        share = drawn.get(f"{_OWN}epochs", LONGEST) / LONGEST
        result = self._result(values, math.ceil(self._steps * share), train)
        self.trials.append(result)
        hyperband = isinstance(self.oracle, keras_tuner.oracles.HyperbandOracle)
        # Hyperband, told of a failure, goes on with fewer of the others.
        if result.figure is None and not hyperband:
            raise keras_tuner.errors.FailedTrialError(result.message)
        return result.score

    def best(self) -> Trial:
        """The trial with the lowest figure, the first of equals."""
        return min(self.trials, key=lambda trial: trial.score)

    def best_hyperparameters(self) -> dict[str, Any]:
        """Those of the best trial, as `keras_tuner.HyperParameters` are saved."""
        hyperparameters = self.oracle.get_space()
        hyperparameters.values = self.best().values
        return hyperparameters.get_config()

    def forget_checkpoints(self) -> None:
        """Leaves of the folder what a search with more trials can use: results."""
        for name in tf.io.gfile.listdir(self._folder):
            path = os.path.join(self._folder, name)
            if tf.io.gfile.isdir(path):
                tf.io.gfile.rmtree(path)

    def _result(self, values: dict[str, Any], steps: int, train: Train) -> Trial:
        name = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
        checkpoints = os.path.join(self._folder, name[:16])
        path = f"{checkpoints}-{steps}.json"
        if tf.io.gfile.exists(path):
            self._were_done += 1
            with tf.io.gfile.GFile(path) as file:
                return Trial.parse(file.read())
        if self.trials and len(self.trials) == self._were_done:
            report(f"the search goes on after {self._were_done} trial(s)")
        number, best = len(self.trials) + 1, ""
        if self.trials and math.isfinite(self.best().score):
            best = f", best {self.best().score:.3f}"
        with as_part(f"trial {number}/{self.oracle.max_trials}{best}: "):
            result = _tried(values, steps, train, checkpoints)
        storage.write_whole(path, result.dump())
        if steps == self._steps and tf.io.gfile.exists(checkpoints):
            tf.io.gfile.rmtree(checkpoints)
        return result


def _tried(values: dict[str, Any], steps: int, train: Train, folder: str) -> Trial:
    show(values_line(values))
    started = time.monotonic()
    try:
        measured = train(values, steps, folder)
        if not math.isfinite(measured.figure):
            raise InputError(f"the evaluation has {measured.figure} {measured.metric}")
    except (ValueError, tf.errors.ResourceExhaustedError) as error:
        # What the hyperparameters cannot help ends the search: a full disk, say.
        if isinstance(error.__cause__, (OSError, tf.errors.OpError)):
            raise keras_tuner.errors.FatalError(str(error)) from error
        return Trial(
            values=values,
            steps=steps,
            seconds=time.monotonic() - started,
            message=" ".join(str(error).split()),
        )
    except Exception as error:
        # KerasTuner would take it for a trial's failure.
        raise keras_tuner.errors.FatalError(str(error)) from error
    return Trial(
        values=values,
        steps=steps,
        figure=measured.figure,
        metric=measured.metric,
        parameters=measured.parameters,
        seconds=time.monotonic() - started,
    )


def _rounded(value: Any) -> Any:
    """Without the error of adding up steps: 0.3 in the place of 0.30000000000000004."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def report_table(trials: list[Trial]) -> None:
    """Shows the trials, the best first, and why some failed."""
    keys = list(trials[0].values)
    rows = [[trials[0].metric, "steps", "seconds", *keys]]
    for trial in ranked(trials):
        score = "failed" if trial.figure is None else f"{trial.score:.3f}"
        shown = [short(trial.values[key]) for key in keys]
        rows.append([score, str(trial.steps), f"{trial.seconds:.0f}", *shown])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        report("  ".join(map(str.rjust, row, widths)))
    for message in sorted({trial.message for trial in trials if trial.message}):
        report(f"failed: {message}")
