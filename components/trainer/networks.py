"""What is trained of a model, on which batches, with which loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ...models.families import family_of_model
from ...models.learning.freezing import freeze, set_pace
from ...models.learning.losses import SmoothedCrossEntropy
from ...models.learning.precision import in_precision
from ...models.tasks.packed import PackedNetwork
from ...models.tasks.stateful import StatefulNetwork, trains_on_cudnn
from ..errors import InputError
from .distribution import NATS, TOKENS, share_steps
from .evaluation import TokenCount
from .rows.augmentation import augmented
from .rows.windows import TokenStream, TokenWindows
from .settings import TrainerSettings


def prepared(model: Any, settings: TrainerSettings) -> Any:
    """The model as it is trained: in its precision, layers frozen, slower or later.

    In another precision than float32 that is another model; `model` gets what it has
    learned by `model.set_weights(trained.get_weights())`.

    Raises:
        InputError: Where that is said of a layer that there is not.
    """
    trained = model
    if settings.precision != "float32":
        trained = in_precision(model, settings.precision)
    for key, apply in {
        "freeze": lambda: freeze(trained, settings.freeze),
        "layer_rates": lambda: set_pace(trained, settings.layer_rates),
        "unfreeze": lambda: set_pace(trained, settings.layer_rates, settings.unfreeze),
    }.items():
        try:
            apply()
        except ValueError as error:
            raise InputError(f"trainer.{key}: {error}") from error
    return trained


def network_of(model: Any, settings: TrainerSettings) -> keras.Model:
    """What `train` trains of a model: its layers, without its preprocessor.

    Raises:
        InputError: Where a state shall be carried that the family does not have; where
            it cannot keep documents apart; and where devices share a batch and a
            setting needs one.
    """
    backbone = model.backbone
    needs = settings.needs_one_device
    if needs and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise InputError(f"trainer.{needs} needs trainer.strategy one_device")
    if settings.carry_state:
        if not family_of_model(model).carries_state:
            raise InputError(
                "trainer.carry_state needs a recurrent family, not "
                f"{type(backbone).__name__}"
            )
        return StatefulNetwork(backbone, settings.batch_size)
    if settings.packing == "best_fit":
        if not family_of_model(model).keeps_documents_apart:
            raise InputError(
                "trainer.packing best_fit needs a family that keeps documents apart, "
                f"not {type(backbone).__name__}: take contiguous or lines"
            )
        assert model.preprocessor is not None  # The windows are of its tokens.
        return PackedNetwork(backbone, model.preprocessor.tokenizer.start_token_id)
    return plain_network(model)


def plain_network(model: Any) -> keras.Model:
    """The layers of a model; its task tokenizes what it is fed, windows are tokens."""
    if hasattr(model, "decisions"):
        decisions: keras.Model = model.decisions()
        return decisions
    return keras.Model(model.input, model.output)


def compile_network(
    model: keras.Model, settings: TrainerSettings, schedule_steps: int
) -> None:
    """Gives the model its loss and its optimizer, built.

    Raises:
        InputError: Where an optimizer of somebody's own cannot be used.
    """
    try:
        optimizer = settings.recipe.make_optimizer(
            schedule_steps, paced=settings.is_paced
        )
    except (ImportError, ValueError) as error:
        raise InputError(f"trainer.optimizer: {error}") from error
    if settings.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    weighed = _is_weighed_together(model, settings)
    reduction = "sum" if weighed else "mean_with_sample_weight"
    loss: keras.losses.Loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=reduction
    )
    if settings.label_smoothing:
        loss = SmoothedCrossEntropy(settings.label_smoothing, reduction)
    replicas = model.distribute_strategy.num_replicas_in_sync
    metrics: list[keras.metrics.Metric] = [TokenCount(name=TOKENS)]
    if settings.label_smoothing or weighed:
        metrics.append(
            keras.metrics.SparseCategoricalCrossentropy(name=NATS, from_logits=True)
        )
    model.compile(
        optimizer=optimizer,
        loss=loss,
        weighted_metrics=metrics if replicas == 1 else None,
        jit_compile=settings.jit_compile and not trains_on_cudnn(model),
        auto_scale_loss=False,
    )
    optimizer.build(model.trainable_variables)
    if replicas > 1:
        share_steps(model)


def _is_weighed_together(model: keras.Model, settings: TrainerSettings) -> bool:
    """Whether the weights of a step are normalized, and its losses summed."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    return replicas > 1 or settings.recipe.gradient_accumulation_steps > 1


def batches_from(
    first: int, model: keras.Model, windows: TokenStream, settings: TrainerSettings
) -> tf.data.Dataset:
    """The batches, with their noise, of a training that has had `first` of them."""
    accumulated = settings.recipe.gradient_accumulation_steps
    begun = first % accumulated  # batches of the step that is not complete
    span = {"first_step": first - begun, "last_step": settings.steps * accumulated}
    if settings.carry_state:
        assert isinstance(windows, TokenWindows)  # The settings see to it.
        batches = windows.contiguous_batches(
            settings.batch_size,
            repack_seed=settings.seed if settings.repack else None,
            **span,
        )
    else:
        more = {"repack": True} if settings.repack else {}
        batches = windows.training_batches(
            settings.batch_size, seed=settings.seed, **span, **more
        )
    batches = augmented(
        batches,
        windows,
        settings.augmentation,
        seed=settings.seed,
        first_step=first - begun,
    )
    if not _is_weighed_together(model, settings):
        return batches
    return _weighed_together(batches, accumulated).skip(begun)


def _weighed_together(batches: tf.data.Dataset, number: int) -> tf.data.Dataset:
    """Scales the weights of each `number` batches so that they add up to `number`.

    Then the mean of their summed losses is the mean loss of all their tokens, as if
    they were one batch, however many of each batch's tokens have weight zero.
    """

    def scale(inputs: Any, targets: Any, weights: tf.Tensor) -> tuple[Any, ...]:
        total = tf.reduce_sum(weights)
        return inputs, targets, tf.math.divide_no_nan(weights * number, total)

    # Of rows of unequal length, the short ones get padding of weight zero.
    groups = batches.padded_batch(number, drop_remainder=True).map(scale)
    return groups.unbatch().prefetch(tf.data.AUTOTUNE)
