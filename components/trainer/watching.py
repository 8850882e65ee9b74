"""What shows how a training goes, and has no part in what comes of it.

Everything that is shown is of the history, which every checkpoint holds. So the logs of
a training that goes on from a checkpoint are written anew from that history, and then
go on: no curve has a step twice, and none forks.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import time
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from ...models.causal_lm import CausalLM
from ...models.keras_hub_adapter import KerasHubCausalLM
from ..progress import report
from .checkpoints import History
from .event_files import EventFile
from .sampling import Sampler
from .weights_and_biases import WandbRun, require_installed

if TYPE_CHECKING:
    from .training import TrainingResult

LOGS_FOLDER = "logs"
# The names of Keras's callback.
TRAIN, VALIDATION = "train", "validation"


@dataclasses.dataclass(frozen=True)
class WatchingConfig:
    """How a training is watched.

    Attributes:
        tensorboard: Whether logs for TensorBoard are written.
        graph: Whether they hold the model's graph.
        profile_steps: The first and the last step that TensorFlow's profiler records,
            into those logs.
        sample_tokens: Tokens of the text that the model writes at every evaluation; 0
            for no text.
        sample_prompt: What that text begins with.
        wandb_project: Project of Weights & Biases that the training is a run of.
    """

    tensorboard: bool = False
    graph: bool = False
    profile_steps: list[int] | None = None
    sample_tokens: int = 0
    sample_prompt: str = ""
    wandb_project: str | None = None

    @classmethod
    def of(cls, settings: dict[str, Any] | str) -> WatchingConfig:
        """Takes the attributes, or the path of a JSON file with them."""
        if isinstance(settings, str):
            with tf.io.gfile.GFile(settings) as file:
                return cls.of(json.loads(file.read()))
        config = cls(**settings)
        if config.wandb_project:
            require_installed()
        return config


class Watching:
    """Is told of a training's course, and shows it.

    Args:
        config: What is wanted; by default nothing.
        folder: Where logs lie while the training goes on. It must outlive the process.
        settings: What Weights & Biases shows the run to be configured with.
    """

    def __init__(
        self,
        config: WatchingConfig | None = None,
        folder: str = "",
        settings: dict[str, Any] | None = None,
    ) -> None:
        self._config = config or WatchingConfig()
        self._folder = folder
        self._settings = settings or {}
        self._sampler: Sampler | None = None
        self._logs: dict[str, EventFile] = {}
        self._wandb: WandbRun | None = None
        self._profiler: _Profiler | None = None
        self._history = History()

    def sample_from(self, model: CausalLM | KerasHubCausalLM, trained: Any) -> None:
        """Says which model is to write, where texts are wanted.

        Args:
            model: The model.
            trained: What `training.prepared` made of it.

        Raises:
            InputError: Where the prompt does not fit into the model's context.
        """
        config = self._config
        if config.sample_tokens:
            self._sampler = Sampler(
                model, trained, config.sample_prompt, config.sample_tokens
            )

    def begin(
        self, network: keras.Model, history: History, batches: int, accumulated: int
    ) -> list[keras.callbacks.Callback]:
        """Shows what there is of a training, and that it goes on.

        Args:
            network: What is trained.
            history: Its course so far.
            batches: The batches that it has had.
            accumulated: The batches of a step.

        Returns:
            Callbacks for the training.
        """
        self._history = history
        config = self._config
        if config.wandb_project:
            self._wandb = WandbRun(config.wandb_project, self._folder, self._settings)
        if not config.tensorboard:
            return []
        self._write_anew()
        if config.graph:
            self._logs[TRAIN].graph(_graph_of(network))
        report(f"watch it: tensorboard --logdir {self._folder}")
        if config.profile_steps is None:
            return []
        first, last = config.profile_steps
        self._profiler = _Profiler(
            os.path.join(self._folder, TRAIN),
            (first - 1) * accumulated + 1,
            last * accumulated,
            batches,
        )
        return [self._profiler]

    def stepped(self, row: dict[str, float]) -> None:
        """Shows a row of the history."""
        self._show(TRAIN, row)

    def evaluated(self, row: dict[str, float]) -> None:
        """Shows an evaluation, and lets the model write, whose weights are its."""
        text = self._sampler() if self._sampler else ""
        self._show(VALIDATION, row)
        if not self._sampler:
            return
        step = int(row["step"])
        sample = {"step": step, "text": text, "time": row["time"]}
        samples = self._history.samples
        # One that was interrupted is made again.
        samples[:] = [old for old in samples if old["step"] != step] + [sample]
        self._show_sample(sample)
        if self._wandb:
            self._wandb.text("sample", text, step)

    def close(self) -> None:
        """Ends the logs, as they are."""
        if self._profiler:
            self._profiler.stop()
        for log in self._logs.values():
            log.close()
        self._logs = {}
        if self._wandb:
            self._wandb.close()
            self._wandb = None

    def keep(self, folder: str) -> None:
        """Copies the logs of a training that has ended to where they stay."""
        self.close()
        if not tf.io.gfile.exists(self._folder):
            return
        for source, _, names in tf.io.gfile.walk(self._folder):
            target = os.path.join(folder, os.path.relpath(source, self._folder))
            target = os.path.normpath(target) if "://" not in target else target
            tf.io.gfile.makedirs(target)
            for name in names:
                paths = os.path.join(source, name), os.path.join(target, name)
                tf.io.gfile.copy(*paths, overwrite=True)

    def _write_anew(self) -> None:
        for name in (TRAIN, VALIDATION):
            self._logs[name] = EventFile(os.path.join(self._folder, name))
        for name, rows in (
            (TRAIN, self._history.rows),
            (VALIDATION, self._history.evaluations),
        ):
            for row in rows:
                self._log(name, row)
        for sample in self._history.samples:
            self._show_sample(sample)
        for log in self._logs.values():
            log.flush()

    def _show(self, name: str, row: dict[str, float]) -> None:
        self._log(name, row)
        if name in self._logs:
            self._logs[name].flush()
        if self._wandb:
            self._wandb.log(name, _curves(row), int(row["step"]))

    def _log(self, name: str, row: dict[str, float]) -> None:
        if name in self._logs:
            # A checkpoint of before there were times has none.
            seconds = row.get("time", time.time())
            log = self._logs[name]
            log.scalars(_curves(row), step=int(row["step"]), seconds=seconds)

    def _show_sample(self, sample: dict[str, Any]) -> None:
        if VALIDATION in self._logs:
            log = self._logs[VALIDATION]
            log.text(
                *("sample", sample["text"]), step=sample["step"], seconds=sample["time"]
            )
            log.flush()


def write_tables(result: TrainingResult, folder: str) -> None:
    """Writes the course of a training as CSV files, each where there is some.

    `history.csv` and `evaluations.csv` have a row for every row of the result, with its
    perplexity, `samples.csv` one for every text.
    """
    tf.io.gfile.makedirs(folder)
    for name, rows in (
        ("history", [_with_perplexity(row) for row in result.history]),
        ("evaluations", [_with_perplexity(row) for row in result.evaluations]),
        ("samples", result.samples),
    ):
        if not rows:
            continue
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        with tf.io.gfile.GFile(os.path.join(folder, f"{name}.csv"), "w") as file:
            file.write(text.getvalue())


def _with_perplexity(row: dict[str, float]) -> dict[str, float]:
    return {**row, "perplexity": perplexity_of(row["loss"])}


def _curves(row: dict[str, float]) -> dict[str, float]:
    named = _with_perplexity(row)
    return {name: named[name] for name in named if name not in ("step", "time")}


def perplexity_of(loss: float) -> float:
    """The perplexity of a loss in nats; one that is beyond all sense is cut off."""
    return math.exp(min(loss, 50))


def _graph_of(network: keras.Model) -> tf.Graph:
    """The graph of predicting; in that of a step the optimizer hides the model."""
    specification = {
        "token_ids": tf.TensorSpec([None, None], tf.int32),
        "padding_mask": tf.TensorSpec([None, None], tf.bool),
    }

    @tf.function
    def predict(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return network(inputs, training=False)

    return predict.get_concrete_function(specification).graph


class _Profiler(keras.callbacks.Callback):
    """Records some batches with TensorFlow's profiler.

    Args:
        folder: Where to; TensorBoard's profile dashboard finds it there.
        first: Number of the first batch, from 1.
        last: Number of the last.
        before: The batches that training has had.
    """

    def __init__(self, folder: str, first: int, last: int, before: int) -> None:
        super().__init__()
        self._folder = folder
        self._span = range(first, last + 1)
        self._before = before
        self._is_running = False
        self._batch: Any = None

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Begins with the first batch that is not done."""
        number = self._before + batch + 1
        if number not in self._span:
            return
        if not self._is_running:
            tf.profiler.experimental.start(self._folder)
            self._is_running = True
        self._batch = tf.profiler.experimental.Trace(TRAIN, step_num=number, _r=1)
        self._batch.__enter__()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Ends with the last."""
        if self._batch is not None:
            self._batch.__exit__(None, None, None)
            self._batch = None
        if self._before + batch + 1 == self._span[-1]:
            self.stop()

    def stop(self) -> None:
        """Writes what has been recorded, where it is still being."""
        if self._is_running:
            self._is_running = False
            tf.profiler.experimental.stop()
