"""The training loop."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from ...models.tasks.stateful import StatefulNetwork
from ..errors import InputError
from ..progress import report
from .callbacks import ForgetEveryEpoch, LossIsNotFinite, Progress
from .checkpoints import Checkpoints, History
from .distribution import (
    check_agreement,
    check_batch_size,
    dealt_out,
)
from .evaluation import Evaluations, evaluate
from .networks import batches_from, compile_network
from .records import TrainingResult
from .rows.windows import TokenStream
from .settings import TrainingConfig
from .watching.watching import Watching


def train(
    model: keras.Model,
    train_windows: TokenStream,
    eval_windows: TokenStream,
    config: TrainingConfig,
    checkpoint_folder: str,
    bytes_per_token: float | None = None,
    watching: Watching | None = None,
    schedule_steps: int | None = None,
) -> TrainingResult:
    """Trains `model` in place, from the newest checkpoint if there is one.

    Args:
        model: A causal language model from `{"token_ids", "padding_mask"}`, both
            `[b, t]`, to logits `[b, t, vocabulary]`. A `StatefulNetwork` gets the
            windows in contiguous order. It is trained by the strategy in whose scope it
            was made.
        train_windows: Windows to learn from, in the packing of the configuration.
        eval_windows: Windows for the loss in the result, and those during training.
        config: Hyperparameters; `precision` and `freeze` have been applied to the
            model.
        checkpoint_folder: Where checkpoints lie; it belongs to this training alone.
        bytes_per_token: Bytes of text for each target of `eval_windows`, for bits per
            byte.
        watching: Is told how it goes.
        schedule_steps: Steps of the training whose beginning this is, where it ends
            before the schedule does; those of the configuration by default.

    Raises:
        InputError: Where the loss is not finite: the step, its learning rate and its
            batch are then written beside the checkpoints. And where no checkpoint can
            be written, or none of those that there are can be read.
    """
    check_batch_size(config.batch_size, model.distribute_strategy)
    history = History()
    watching = watching or Watching()
    eval_batches = eval_windows.evaluation_batches(config.batch_size)
    with model.distribute_strategy.scope():
        compile_network(model, config, schedule_steps or config.steps)
        evaluations = Evaluations(
            model,
            config.recipe,
            eval_batches,
            history.evaluations,
            every=config.eval_every_steps,
            last_step=config.steps,
            patience=config.early_stopping_patience,
            bytes_per_token=bytes_per_token,
            told=watching.evaluated,
        )
    checkpoints = Checkpoints(
        model,
        model.optimizer,
        history,
        checkpoint_folder,
        best=evaluations.best,
        keep=config.keep_checkpoints,
    )
    first_batch = checkpoints.restore()
    check_agreement(first_batch, model.distribute_strategy)
    evaluations.follow()
    accumulated = config.recipe.gradient_accumulation_steps
    first_step = first_batch // accumulated
    if first_step:
        report(f"resumed from the checkpoint of step {first_step} of {config.steps}")
    tokens_a_step = accumulated * train_windows.targets_a_step(config.batch_size)
    watchers = watching.begin(model, history, first_batch, accumulated)
    # Ctrl-C left the step without.
    if evaluations.are_due(first_step) and evaluations.run(first_step):
        checkpoints.save_best(first_batch)
    if first_step < config.steps and not evaluations.stopped:
        progress = Progress(
            checkpoints,
            evaluations,
            history,
            watching,
            config,
            first_batch,
            tokens_a_step,
        )
        callbacks: list[keras.callbacks.Callback] = [progress, *watchers]
        if isinstance(model, StatefulNetwork):
            epoch = train_windows.steps_an_epoch(config.batch_size)
            callbacks.append(ForgetEveryEpoch(first_batch, epoch))
        batches = batches_from(first_batch, model, train_windows, config)
        dealt = dealt_out(batches, model.distribute_strategy)
        try:
            model.fit(
                dealt,
                steps_per_epoch=config.steps * accumulated - first_batch,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
        except LossIsNotFinite as failure:
            batch = batches_from(failure.batch, model, train_windows, config)
            ids = next(iter(batch))[0]["token_ids"].numpy().tolist()
            path = checkpoints.note_failure({**failure.record, "token_ids": ids})
            raise InputError(f"{failure}; {path} has its batch") from failure
        except tf.errors.OpError:
            progress.is_sound = False  # The step may have been applied in part.
            raise
        finally:
            # Also where a person stops it: the step that was done is not lost.
            progress.save()
            watching.close()
    evaluations.settle()
    steps = config.steps
    if evaluations.stopped:
        steps = int(history.evaluations[-1]["step"])
    return TrainingResult(
        parameters=int(sum(np.prod(w.shape) for w in model.trainable_variables)),
        steps=steps,
        resumed_at=first_step,
        train_tokens=train_windows.num_tokens,
        tokens_seen=round(steps * tokens_a_step),
        seconds=history.seconds,
        eval_loss=evaluate(model, eval_batches),
        history=history.rows,
        evaluations=history.evaluations,
        samples=history.samples,
    )
