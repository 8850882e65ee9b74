"""What shows how a training goes, and has no part in what comes of it.

Everything that is shown is of the history, which every checkpoint holds. So the logs of
a training that goes on from a checkpoint are written anew from that history, and then
go on: no curve has a step twice, and none forks.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ....models.tasks.causal_lm import CausalLM
from ...errors import line_of
from ...progress import report
from .event_files import EventFile
from .history import History
from .sampling import Sampler
from .settings import WatchSettings
from .weights_and_biases import WandbRun, require_installed

# As often as TensorBoard looks; to an object store it is an upload.
_FLUSH_EVERY_SECONDS = 5.0
# The names of Keras's callback.
TRAIN, VALIDATION = "train", "validation"


class Watching:
    """Is told of a training's course, and shows it.

    Args:
        settings: What is wanted; by default nothing.
        folder: Where logs lie while the training goes on. It must outlive the process.
        run: What Weights & Biases shows the run to be configured with.

    Raises:
        InputError: Where Weights & Biases is wanted, and not installed.
    """

    def __init__(
        self,
        settings: WatchSettings | None = None,
        folder: str = "",
        run: dict[str, Any] | None = None,
    ) -> None:
        self._settings = settings or WatchSettings(tensorboard=False)
        if self._settings.wandb_project:
            require_installed()
        self._folder = folder
        self._run = run or {}
        self._sampler: Sampler | None = None
        self._displays: list[_TensorBoardLogs | WandbRun] = []
        self._profiler: _Profiler | None = None
        self._history = History()

    def sample_from(self, model: CausalLM, trained: Any) -> None:
        """Says which model is to write, where texts are wanted.

        Args:
            model: The model.
            trained: What `networks.prepared` made of it.

        Raises:
            InputError: Where the prompt does not fit into the model's context.
        """
        settings = self._settings
        if settings.sample_tokens:
            self._sampler = Sampler(
                model, trained, settings.sample_prompt, settings.sample_tokens
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
        settings = self._settings
        if settings.wandb_project:
            run = WandbRun(settings.wandb_project, self._folder, self._run, history)
            self._displays.append(run)
        if not settings.tensorboard:
            return []
        graph = _graph_of(network) if settings.graph else None
        self._displays.append(_TensorBoardLogs(self._folder, history, graph))
        command = ["tensorboard", "--logdir", str(self._folder)]
        report(f"watch it: {shlex.join(command)}")
        if settings.profile_steps is None:
            return []
        first, last = settings.profile_steps
        self._profiler = _Profiler(
            os.path.join(self._folder, TRAIN),
            (first - 1) * accumulated + 1,
            last * accumulated,
            batches,
        )
        return [self._profiler]

    def stepped(self, row: dict[str, float]) -> None:
        """Shows a row of the history."""
        for display in self._displays:
            display.show(TRAIN, row)

    def evaluated(self, row: dict[str, float]) -> None:
        """Shows an evaluation, and lets the model write, whose weights are its."""
        text = self._sampler() if self._sampler else None
        for display in self._displays:
            display.show(VALIDATION, row)
        if text is None:
            return
        sample = {"step": int(row["step"]), "time": row["time"], "text": text}
        samples = self._history.samples
        # One that was interrupted is made again.
        samples[:] = [old for old in samples if old["step"] < sample["step"]]
        samples.append(sample)
        for display in self._displays:
            display.write(VALIDATION, sample)

    def close(self) -> None:
        """Ends the logs, as they are."""
        if self._profiler:
            self._profiler.stop()
        while self._displays:
            self._displays.pop().close()

    def keep(self, folder: str) -> None:
        """Copies the logs of a training that has ended to where they stay."""
        self.close()
        if tf.io.gfile.exists(self._folder):
            _copy(self._folder, folder)


class _TensorBoardLogs:
    """The logs of a training and of its evaluations.

    Where they cannot be written, as on a full disk, that is said, and they end: the
    training does not.

    Args:
        folder: Where to.
        history: What they begin with.
        graph: A graph that they hold besides.
    """

    def __init__(self, folder: str, history: History, graph: tf.Graph | None) -> None:
        self._folder = folder
        self._history = history
        self._files: dict[str, EventFile] = {}
        self._flushed = time.monotonic()
        with self._or_not_at_all():
            for name in (TRAIN, VALIDATION):
                self._files[name] = EventFile(os.path.join(folder, name))
            if graph is not None:
                self._files[TRAIN].graph(graph)
        for row in history.rows:
            self.show(TRAIN, row)
        for row in history.evaluations:
            self.show(VALIDATION, row)
        for sample in history.samples:
            self.write(VALIDATION, sample)
        self._flush()

    def show(self, group: str, row: dict[str, float]) -> None:
        """Adds a row of a history to the log of a group."""
        with self._or_not_at_all():
            if file := self._files.get(group):
                # A checkpoint of before there were times has none.
                seconds = row.get("time", time.time())
                curves = self._history.curves_of(row)
                file.scalars(curves, step=int(row["step"]), seconds=seconds)
        if time.monotonic() - self._flushed >= _FLUSH_EVERY_SECONDS:
            self._flush()

    def write(self, group: str, sample: dict[str, Any]) -> None:
        """Adds a text to the log of a group."""
        with self._or_not_at_all():
            if file := self._files.get(group):
                step, seconds = sample["step"], sample["time"]
                file.text("sample", sample["text"], step=step, seconds=seconds)

    def close(self) -> None:
        """Ends the logs."""
        with self._or_not_at_all():
            for file in self._files.values():
                file.close()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        with self._or_not_at_all():
            for file in self._files.values():
                file.flush()

    @contextlib.contextmanager
    def _or_not_at_all(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            report(
                f"warning: there are no more logs in {self._folder}: {line_of(error)}"
            )
            self._files = {}


def _copy(source: str, target: str) -> None:
    tf.io.gfile.makedirs(target)
    for name in tf.io.gfile.listdir(source):
        name = name.rstrip("/")  # which object stores put behind a folder's
        old, new = os.path.join(source, name), os.path.join(target, name)
        if os.path.islink(old):  # Weights & Biases has some, to files of its own.
            continue
        if tf.io.gfile.isdir(old):
            _copy(old, new)
        else:
            tf.io.gfile.copy(old, new, overwrite=True)


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
