"""The training loop: checkpoints, progress."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...models.causal_lm import CausalLM
from ...models.keras_hub_adapter import KerasHubCausalLM
from ...models.ngram import NgramCausalLM
from ...models.packed import PackedNetwork, can_be_packed
from ...models.recipes import COMMON, FINE_TUNING, RECIPES, Recipe
from ...models.recurrent import RecurrentBackbone, StatefulNetwork
from ..errors import InputError
from ..progress import report, show
from .augmentation import NO_AUGMENTATION, Augmentation, augmented
from .windows import TokenStream, TokenWindows

_SHOW_EVERY_SECONDS = 0.5
RESULT_FILE = "training.json"


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        steps: Optimizer steps; 0 leaves the model as initialized.
        batch_size: Windows a step.
        carry_state: Whether a recurrent model goes on, row by row, from the state in
            which the last batch left it. The stream is cut into `batch_size` parallel
            streams, each read from end to end; the state is zero where an epoch, or
            the evaluation, begins. The exported model carries none: it scores every
            window (of a long document, every overlapping one) from a state of zero, so
            its figures, the gate's among them, can be worse than `eval_loss` is here.
        packing: What shares a row: `contiguous`, any documents, cut where a window
            ends; `best_fit`, whole documents, which do not see each other; `lines`,
            nothing. See `packing.make_windows`. Evaluation windows are packed alike.
        augmentation: Noise on the input tokens in training.
        recipe: The optimizer and its schedule.
        checkpoint_seconds: Time between checkpoints.
        jit_compile: Whether XLA compiles the training step.
        seed: Of initialization, dropout and the order of windows.
    """

    steps: int
    batch_size: int = 8
    carry_state: bool = False
    packing: str = "contiguous"
    augmentation: Augmentation = NO_AUGMENTATION
    recipe: Recipe = COMMON
    checkpoint_seconds: float = 20.0
    jit_compile: bool = True
    seed: int = 0

    @classmethod
    def of(
        cls, family: str, pretrained: bool = False, **settings: Any
    ) -> TrainingConfig:
        """Returns how a family is trained.

        Args:
            family: Its recipe is taken; one without gets the common one.
            pretrained: Whether the model has learned before: another recipe.
            **settings: Attributes of this class, `augmentation` as a dictionary, and of
                `Recipe` what shall not be as in the family's; `None` stands for what
                the family has.
        """
        if "augmentation" in settings:
            settings["augmentation"] = Augmentation(**settings["augmentation"])
        recipe = FINE_TUNING if pretrained else RECIPES.get(family, COMMON)
        given = {name: settings.pop(name, None) for name in Recipe._fields}
        changes = {name: value for name, value in given.items() if value is not None}
        return cls(recipe=recipe._replace(**changes), **settings)


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        parameters: Number of trained parameters.
        steps: Optimizer steps in all.
        resumed_at: Step of the checkpoint it went on from; 0 for none.
        train_tokens: Tokens of the training split's stream.
        tokens_seen: Places for target tokens in all steps; of `best_fit` and `lines`
            without those of padding.
        seconds: Time spent in training, over all runs.
        eval_loss: Mean loss on the evaluation windows, in nats a token; with
            `carry_state` each is read after those before it in its stream.
        history: Step, loss in nats a token and learning rate, at some steps.
    """

    parameters: int
    steps: int
    resumed_at: int
    train_tokens: int
    tokens_seen: int
    seconds: float
    eval_loss: float
    history: list[dict[str, float]]

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


def network_of(
    model: CausalLM | KerasHubCausalLM, config: TrainingConfig
) -> keras.Model:
    """What `train` trains of a model: its layers, without its preprocessor.

    Raises:
        InputError: Where a state shall be carried that the family does not have, or is
            lost in the packing; and where the family cannot keep documents apart.
    """
    backbone = model.backbone
    if config.carry_state and config.packing != "contiguous":
        raise InputError(
            "trainer.carry_state needs trainer.packing contiguous, not "
            f"{config.packing}, where no row goes on from the one before"
        )
    if config.carry_state:
        if not isinstance(backbone, RecurrentBackbone):
            raise InputError(
                "trainer.carry_state needs a recurrent family, not "
                f"{type(backbone).__name__}"
            )
        return StatefulNetwork(backbone, config.batch_size)
    if config.packing == "best_fit":
        if not can_be_packed(backbone):
            raise InputError(
                "trainer.packing best_fit needs a family that keeps documents apart, "
                f"not {type(backbone).__name__}: take contiguous or lines"
            )
        assert model.preprocessor is not None  # The windows are of its tokens.
        return PackedNetwork(backbone, model.preprocessor.tokenizer.start_token_id)
    # The task tokenizes what it is fed; the windows are tokenized.
    return keras.Model(model.input, model.output)


def train(
    model: keras.Model,
    train_windows: TokenStream,
    eval_windows: TokenStream,
    config: TrainingConfig,
    checkpoint_folder: str,
) -> TrainingResult:
    """Trains `model` in place, from the newest checkpoint if there is one.

    Args:
        model: A causal language model from `{"token_ids", "padding_mask"}`, both
            `[b, t]`, to logits `[b, t, vocabulary]`. A `StatefulNetwork` gets the
            windows in contiguous order.
        train_windows: Windows to learn from, in the packing of the configuration.
        eval_windows: Windows for the loss in the result.
        config: Hyperparameters.
        checkpoint_folder: Where checkpoints lie; it belongs to this training alone.

    Raises:
        InputError: Where the loss is not finite.
    """
    optimizer = config.recipe.optimizer(config.steps)
    _compile(model, optimizer, config.jit_compile)
    optimizer.build(model.trainable_variables)
    history = History()
    checkpoints = Checkpoints(model, optimizer, history, checkpoint_folder)
    first_step = checkpoints.restore()
    if first_step:
        report(f"resumed from the checkpoint of step {first_step} of {config.steps}")
    if first_step < config.steps:
        tokens_a_step = train_windows.targets_a_step(config.batch_size)
        progress = _Progress(checkpoints, history, config, first_step, tokens_a_step)
        callbacks: list[keras.callbacks.Callback] = [progress]
        if isinstance(model, StatefulNetwork):
            epoch = train_windows.steps_an_epoch(config.batch_size)
            callbacks.append(_ForgetEveryEpoch(first_step, epoch))
        batches = _batches_from(first_step, model, train_windows, config)
        try:
            model.fit(batches, callbacks=callbacks, shuffle=False, verbose=0)
        finally:
            # Also where a person stops it: the step that was done is not lost.
            progress.save()
    return TrainingResult(
        parameters=int(sum(np.prod(w.shape) for w in model.trainable_variables)),
        steps=config.steps,
        resumed_at=first_step,
        train_tokens=train_windows.num_tokens,
        tokens_seen=round(
            config.steps * train_windows.targets_a_step(config.batch_size)
        ),
        seconds=history.seconds,
        eval_loss=_evaluate(model, eval_windows.evaluation_batches(config.batch_size)),
        history=history.rows,
    )


def count(
    model: NgramCausalLM,
    documents: Iterable[np.ndarray],
    train_windows: TokenStream,
    eval_windows: TokenStream,
    config: TrainingConfig,
) -> TrainingResult:
    """Lets an n-gram model count; there are no steps, and nothing to resume.

    Args:
        model: The model, filled in place.
        documents: Token ids of each document, int64 `[num_tokens]`, without start and
            end tokens.
        train_windows: The same documents, for the figures of the result.
        eval_windows: Windows for the loss in the result.
        config: `steps=0` leaves the model as initialized; the rest is for gradients.
            Packing, too: documents are counted whole, each by itself.
    """
    started = time.monotonic()
    if config.steps:
        model.fit(documents)
    seconds = time.monotonic() - started
    network = keras.Model(model.input, model.output)
    _compile(network, "sgd", jit_compile=False)
    return TrainingResult(
        parameters=int(model.count_params()),
        steps=0,
        resumed_at=0,
        train_tokens=train_windows.num_tokens,
        tokens_seen=train_windows.num_tokens if config.steps else 0,
        seconds=seconds,
        eval_loss=_evaluate(
            network, eval_windows.evaluation_batches(config.batch_size)
        ),
        history=[],
    )


def _compile(model: keras.Model, optimizer: Any, jit_compile: bool) -> None:
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=[],
        jit_compile=jit_compile,
    )


def _batches_from(
    first_step: int, model: keras.Model, windows: TokenStream, config: TrainingConfig
) -> tf.data.Dataset:
    """The batches of the steps that are left, with their noise."""
    steps = {"first_step": first_step, "last_step": config.steps}
    if isinstance(model, StatefulNetwork):
        assert isinstance(windows, TokenWindows)  # `network_of` sees to it.
        batches = windows.contiguous_batches(config.batch_size, **steps)
    else:
        batches = windows.training_batches(config.batch_size, seed=config.seed, **steps)
    return augmented(
        batches, windows, config.augmentation, seed=config.seed, first_step=first_step
    )


def _evaluate(model: keras.Model, batches: tf.data.Dataset) -> float:
    """The mean loss of all tokens."""
    tokens = [float(tf.reduce_sum(weights)) for _, _, weights in batches]
    losses = _BatchLosses()
    model.evaluate(batches, callbacks=[losses], verbose=0)
    return float(np.average(losses.values, weights=tokens))


class _BatchLosses(keras.callbacks.Callback):
    """The loss of every batch; Keras's mean takes no account of how full they are."""

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.values: list[float] = []

    def on_test_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self.model.reset_metrics()

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.values.append((logs or {})["loss"])


class History:
    """The course of a training, kept with its checkpoints.

    Attributes:
        rows: Step, loss in nats a token and learning rate, at some steps.
        seconds: Time spent in training so far.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0

    def to_json(self) -> str:
        """Returns the history as JSON."""
        return json.dumps({"seconds": self.seconds, "rows": self.rows})

    def load_json(self, text: str) -> None:
        """Takes up a history that `to_json` gave."""
        content = json.loads(text)
        self.seconds, self.rows = content["seconds"], content["rows"]


class Checkpoints:
    """Weights, carried and random state, optimizer, history: all whole or not there.

    `tf.train.CheckpointManager` names a checkpoint in its index file only once all of
    it is written, so one half-written when the process dies is never loaded.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        history: History,
        folder: str,
    ) -> None:
        self._history = history
        self._step = tf.Variable(0, dtype=tf.int64)
        self._history_json = tf.Variable("", dtype=tf.string)
        variables = [v.value for v in [*model.variables, *optimizer.variables]]
        self._checkpoint = tf.train.Checkpoint(
            variables=variables, step=self._step, history=self._history_json
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, folder, max_to_keep=2
        )

    def save(self, step: int) -> None:
        """Writes the state after `step` steps."""
        self._step.assign(step)
        self._history_json.assign(self._history.to_json())
        self._manager.save(checkpoint_number=step)

    def restore(self) -> int:
        """Loads the newest checkpoint; returns its step, 0 where there is none."""
        newest = self._manager.latest_checkpoint
        if newest is None:
            return 0
        self._checkpoint.restore(newest).assert_consumed()
        self._history.load_json(self._history_json.numpy().decode())
        return int(self._step.numpy())


class _ForgetEveryEpoch(keras.callbacks.Callback):
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


class _Progress(keras.callbacks.Callback):
    """Shows where training is, and writes checkpoints by the clock."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        history: History,
        config: TrainingConfig,
        first_step: int,
        tokens_a_step: float,
    ) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._history = history
        self._config = config
        self._first_step = first_step
        self._tokens_a_step = tokens_a_step
        self._is_sound = True

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the clocks."""
        now = time.monotonic()
        self._ticked = self._saved = now
        self._shown = 0.0
        self._timed_steps, self._timed_seconds = 0, 0.0

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Makes the loss that Keras reports this step's, not the mean of all so far."""
        self.model.reset_metrics()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Counts time, checks the loss, shows it, saves when it is time."""
        now = time.monotonic()
        step_seconds, self._ticked = now - self._ticked, now
        self._history.seconds += step_seconds
        if batch:  # The first step holds tracing and compilation.
            self._timed_steps += 1
            self._timed_seconds += step_seconds
        step = self._first_step + batch + 1
        loss = (logs or {})["loss"]
        if not math.isfinite(loss):
            self._is_sound = False
            raise InputError(
                f"the loss is {loss} at step {step}: lower trainer.learning_rate "
                f"(now {self._config.recipe.learning_rate}); the last good state is "
                "kept"
            )
        if now - self._shown >= _SHOW_EVERY_SECONDS or step == self._config.steps:
            self._show(step, loss)
            self._shown = now
        if now - self._saved >= self._config.checkpoint_seconds:
            self.save()
            self._saved = self._ticked = time.monotonic()

    def save(self) -> None:
        """Writes a checkpoint, unless the last step was a bad one."""
        if self._is_sound:
            self._checkpoints.save(int(self.model.optimizer.iterations))

    def _show(self, step: int, loss: float) -> None:
        rate = float(self.model.optimizer.learning_rate)
        self._history.rows.append({"step": step, "loss": loss, "learning_rate": rate})
        speed = self._timed_steps / self._timed_seconds if self._timed_steps else 0.0
        left = (self._config.steps - step) / speed if speed else math.nan
        show(
            f"step {step}/{self._config.steps}, loss {loss:.3f}, "
            f"perplexity {math.exp(min(loss, 50)):.1f}, "
            f"{speed * self._tokens_a_step:,.0f} tokens/s, {left:.0f} s left"
        )
