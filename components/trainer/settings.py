"""How a model is trained."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...models.families import family_of
from ...models.learning.recipe import COMMON, FINE_TUNING, Recipe
from .rows.augmentation import NO_AUGMENTATION, Augmentation


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        steps: Optimizer steps; 0 leaves the model as initialized. A step takes
            `recipe.gradient_accumulation_steps` batches.
        batch_size: Windows a batch.
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
        label_smoothing: Share of a target's probability that is spread over the
            vocabulary, in training only: reported losses are without.
        precision: Of computations, a key of `models.precision.PRECISIONS`; weights are
            float32 in all.
        freeze: Patterns of the names of layers that are left as they are.
        eval_every_steps: Steps between evaluations during training; `None` for none.
        early_stopping_patience: Evaluations without a better loss after which training
            ends; the weights of the best one are then the result. `None` for never.
        checkpoint_seconds: Time between checkpoints.
        checkpoint_steps: Steps between checkpoints, besides; `None` for time alone.
        keep_checkpoints: How many are kept, the newest.
        jit_compile: Whether XLA compiles the training step. On a GPU, recurrent models
            train on cuDNN instead, which XLA cannot compile.
        strategy: The devices that share each batch; see `distribution.make_strategy`.
        seed: Of initialization, dropout and the order of windows.
    """

    steps: int
    batch_size: int = 8
    carry_state: bool = False
    packing: str = "contiguous"
    augmentation: Augmentation = NO_AUGMENTATION
    recipe: Recipe = COMMON
    label_smoothing: float = 0.0
    precision: str = "float32"
    freeze: list[str] = dataclasses.field(default_factory=list)
    eval_every_steps: int | None = None
    early_stopping_patience: int | None = None
    checkpoint_seconds: float = 20.0
    checkpoint_steps: int | None = None
    keep_checkpoints: int = 2
    jit_compile: bool = True
    strategy: str = "auto"
    seed: int = 0

    @classmethod
    def of(
        cls, family: str, pretrained: bool = False, **settings: Any
    ) -> TrainingConfig:
        """Returns how a family is trained.

        Args:
            family: Its recipe is taken; one without gets the common one.
            pretrained: Whether the model has learned before: then a tenth of the
                family's learning rate, or for one without the recipe of fine-tuning.
            **settings: Attributes of this class, `augmentation` as a dictionary, and of
                `Recipe` what shall not be as in the family's; `None` stands for what
                the family has, translated for the optimizer.
        """
        if "augmentation" in settings:
            settings["augmentation"] = Augmentation(**settings["augmentation"])
        own = family_of(family).recipe
        recipe = own or (FINE_TUNING if pretrained else COMMON)
        if pretrained and own:
            recipe = own._replace(learning_rate=own.learning_rate / 10)
        given = {name: settings.pop(name, None) for name in Recipe._fields}
        changes = {name: value for name, value in given.items() if value is not None}
        if changes.get("optimizer", recipe.optimizer) != recipe.optimizer:
            recipe = recipe.with_optimizer(changes["optimizer"])
        return cls(recipe=recipe._replace(**changes), **settings)
