"""The training loop."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from ...models.tasks import CAUSAL_LM, TASKS
from ...models.tasks.task import Task
from ..errors import InputError
from ..progress import report
from .callbacks import Counted, ForgetEveryEpoch, LossIsNotFinite, Progress
from .checkpoints import Checkpoints
from .distribution import check_agreement, check_batch_size, dealt_out
from .evaluation import Evaluations, Texts, evaluate
from .networks import batches_from, compile_network
from .records import Sample, TrainingResult
from .rows.windows import TokenStream
from .settings import TrainerSettings
from .watching.history import History
from .watching.watching import Watching


def train(
    model: keras.Model,
    train_windows: TokenStream,
    eval_windows: TokenStream,
    settings: TrainerSettings,
    checkpoint_folder: str,
    texts: Texts | None = None,
    watching: Watching | None = None,
    schedule_steps: int | None = None,
) -> TrainingResult:
    """Trains `model` in place, from the newest checkpoint if there is one.

    Args:
        model: A model from the inputs of its windows to logits of their targets, such
            as `[b, t, vocabulary]`, as `networks.network_of` makes it
            of these settings; with `carry_state` it gets the windows in contiguous
            order. It is trained by the strategy in whose scope it was made.
        train_windows: Windows to learn from, in the packing of the settings.
        eval_windows: Windows for the loss in the result, and those during training.
        settings: How; `precision` and `freeze` have been applied to the model.
        checkpoint_folder: Where checkpoints lie; it belongs to this training alone.
        texts: What the targets of `eval_windows` stand for.
        watching: Is told how it goes.
        schedule_steps: Steps of the training whose beginning this is, where it ends
            before the schedule does; those of the settings by default.

    Raises:
        InputError: Where the loss is not finite: the step, its learning rate and its
            batch are then written beside the checkpoints. And where no checkpoint can
            be written, or none of those that there are can be read.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    check_batch_size(settings.batch_size, replicas)
    with model.distribute_strategy.scope():
        compile_network(model, settings, schedule_steps or settings.steps)
    task = TASKS[texts.task] if texts else CAUSAL_LM
    training = _Training(model, train_windows, settings, watching or Watching(), task)
    training.evaluate_on(eval_windows, texts)
    training.resume(checkpoint_folder)
    if not training.is_over:
        training.go_on()
    return training.result()


class _Training:
    """A training that may have begun before: it is resumed, goes on, and has a result.

    The arguments are those of `train`; the model is compiled.
    """

    def __init__(
        self,
        model: keras.Model,
        windows: TokenStream,
        settings: TrainerSettings,
        watching: Watching,
        task: Task,
    ) -> None:
        self._model = model
        self._windows = windows
        self._settings = settings
        self._watching = watching
        self._task = task
        self._history = History(task.has_perplexity)
        self._accumulated = settings.recipe.gradient_accumulation_steps
        size = settings.batch_size
        self._counted = Counted(
            self._accumulated * windows.targets_a_step(size),
            self._accumulated * len(windows) / max(1, windows.steps_an_epoch(size)),
        )

    def evaluate_on(self, windows: TokenStream, texts: Texts | None) -> None:
        """Says what the loss is told of, and on what training depends."""
        size, most = self._settings.batch_size, self._settings.eval_batches
        self._eval_batches = windows.evaluation_batches(size)
        with self._model.distribute_strategy.scope():
            self._evaluations = Evaluations(
                self._model,
                self._settings,
                windows.evaluation_batches(size, most),
                self._history.evaluations,
                texts=texts,
                told=self._watching.evaluated,
            )

    def resume(self, folder: str) -> None:
        """Takes up what the newest checkpoint holds, if there is one."""
        self._checkpoints = Checkpoints(
            self._model,
            self._model.optimizer,
            self._history,
            folder,
            best=self._evaluations.best,
            keep=self._settings.keep_checkpoints,
        )
        self._first = first = self._checkpoints.restore(
            self._settings.steps * self._accumulated
        )
        check_agreement(first, self._model.distribute_strategy)
        self._evaluations.follow()
        self._first_step = step = first // self._accumulated
        if step:
            report(
                f"resumed from the checkpoint of step {step} of {self._settings.steps}"
            )
        self._watchers = self._watching.begin(
            self._model, self._history, first, self._accumulated
        )
        # Ctrl-C left the step without.
        if self._evaluations.are_due(step) and self._evaluations.run(step):
            self._checkpoints.save_best(first)

    @property
    def is_over(self) -> bool:
        """Whether there is no step left."""
        return self._first_step >= self._settings.steps or self._evaluations.stopped

    def go_on(self) -> None:
        """Takes the steps that are left."""
        progress = Progress(
            self._checkpoints,
            self._evaluations,
            self._history,
            self._watching,
            self._settings,
            self._first,
            self._counted,
            self._task,
        )
        callbacks: list[keras.callbacks.Callback] = [progress, *self._watchers]
        if self._settings.carry_state:
            epoch = self._windows.steps_an_epoch(self._settings.batch_size)
            callbacks.append(ForgetEveryEpoch(self._first, epoch))
        try:
            self._model.fit(
                dealt_out(self._batches(), self._model.distribute_strategy),
                steps_per_epoch=self._settings.steps * self._accumulated - self._first,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
        except LossIsNotFinite as failure:
            inputs = next(iter(self._batches(failure.batch)))[0]
            ids = {
                name: values.numpy().tolist()
                for name, values in inputs.items()
                if name.endswith("token_ids")
            }
            record = {**failure.record, **ids}
            path = self._checkpoints.note_failure(record)
            raise InputError(f"{failure}; {path} has its batch") from failure
        except tf.errors.OpError:
            progress.is_sound = False  # The step may have been applied in part.
            raise
        finally:
            # Also where a person stops it: the step that was done is not lost.
            progress.save()
            self._watching.close()

    def _batches(self, first: int | None = None) -> tf.data.Dataset:
        """The batches from one on, by default those that are left."""
        first = self._first if first is None else first
        return batches_from(first, self._model, self._windows, self._settings)

    def result(self) -> TrainingResult:
        """Leaves the model with the weights that it was for, and says what was done."""
        self._evaluations.settle()
        history, steps = self._history, self._settings.steps
        if self._evaluations.stopped:
            steps = int(history.evaluations[-1]["step"])
        trained = self._model.trainable_variables
        return TrainingResult(
            parameters=int(sum(np.prod(weight.shape) for weight in trained)),
            steps=steps,
            resumed_at=self._first_step,
            train_tokens=self._windows.num_tokens,
            tokens_seen=round(steps * self._counted.tokens),
            seconds=history.seconds,
            eval_loss=evaluate(self._model, self._eval_batches),
            history=history.rows,
            evaluations=history.evaluations,
            samples=[Sample(**sample) for sample in history.samples],
            has_perplexity=self._task.has_perplexity,
        )
