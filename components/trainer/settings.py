"""How a model is trained, as a person says it.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from ...models.families import family_of
from ...models.learning.choices import LAID_OUT, Precision, owners_of
from ...models.learning.recipe import (
    COMMON,
    FINE_TUNING,
    Recipe,
    RecipeChanges,
    check_together,
)
from ...models.tasks.classifying import ClassifierSettings
from ...models.tasks.tagging import TaggerSettings
from .rows.settings import AugmentationSettings, MaskingSettings, Packing

WITHOUT_EFFECT = frozenset(
    {
        "checkpoint_seconds",
        "checkpoint_steps",
        "keep_checkpoints",
        "jit_compile",
        "strategy",
    }
)
"""Settings that say how a training is done, and not what comes of it."""


LayerPattern = Annotated[str, Field(min_length=1)]


class TrainerSettings(RecipeChanges):
    """How the model is trained: by default AdamW, linear warm-up, cosine decay.

    What is not given, from `learning_rate` to `gradient_accumulation_steps`, is as in
    the family's recipe.
    """

    steps: Annotated[int, Field(ge=0)] = 1000
    """Updates of the weights; 0 leaves the model as initialized. With more of them a
    training that has ended goes on, but with `average_last`, and where `schedule` is
    `cosine`, `linear` or `wsd`."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Windows a batch. On small corpora many small steps learn most."""
    carry_state: bool = False
    """Whether a recurrent family goes on from batch to batch through `batch_size`
    parallel streams of the text. What is exported scores windows without a past."""
    packing: Packing = "contiguous"
    """How documents become rows. `contiguous`: one after the other, cut where a row
    ends. `best_fit`: as many as fit, cut only if longer than the context, and each sees
    only itself. `lines`: a document a row, in rows of an eighth, a quarter, half or all
    of the context. An n-gram model counts documents whole."""
    repack: bool = False
    """Whether every epoch has the documents in a new order, by `seed`, and so cuts
    other rows; with `packing` `contiguous`, where it matters what they share."""
    augmentation: AugmentationSettings = AugmentationSettings()
    masking: MaskingSettings = MaskingSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    tagger: TaggerSettings = TaggerSettings()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a target's probability that is spread over the vocabulary in training;
    the losses shown and evaluated are without."""
    precision: Precision = "float32"
    """Of computations in training; weights, and what is exported, are float32."""
    freeze: list[LayerPattern] = []
    """Patterns of names of the backbone's layers that keep their weights, such as
    `recurrent_*`."""
    layer_rates: dict[LayerPattern, Annotated[float, Field(gt=0)]] = {}
    """What the learning rate of layers is multiplied by, by such patterns: `{'block_*':
    0.4}`. What the task puts behind the backbone learns at the whole rate."""
    unfreeze: dict[LayerPattern, Annotated[int, Field(ge=1)]] = {}
    """Steps until which layers keep their weights, by such patterns, as in gradual
    unfreezing."""
    eval_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between evaluations during training; the last step is one, too."""
    eval_batches: Annotated[int, Field(ge=1)] | None = None
    """Batches that each of these reads at most, from all over the split, always the
    same ones; by default all. The loss of the result is that of the whole split."""
    early_stopping_patience: Annotated[int, Field(ge=1)] | None = None
    """Evaluations without a better loss after which training ends. What is exported
    then are the weights of the best."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 20.0
    """Time between checkpoints, from which a killed run goes on."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints, besides those by the clock."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """How many are kept while training goes on, the newest; if one cannot be read, that
    before it is."""
    jit_compile: bool = True
    """Whether XLA compiles the training step: some seconds once, then small models are
    faster; at some ten million weights on a CPU it is much the same. On a GPU,
    recurrent models train on cuDNN instead."""
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = "auto"
    """The devices that share each batch, in equal parts: `mirrored`, all GPUs of a
    machine, or its logical CPUs; `multi_worker`, the processes that TF_CONFIG names,
    each but the first a `langzoo worker`; `tpu`, that of TPU_NAME. `auto` is what there
    is: a TPU, workers, several GPUs, else one device. `carry_state` and
    `gradient_accumulation_steps` need one."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of initialization, dropout, noise and the order of windows."""

    @property
    def recipe(self) -> Recipe:
        """The common recipe, with what is said here."""
        return COMMON.changed_by(self)

    def of_family(self, family: str, pretrained: bool = False) -> TrainerSettings:
        """The same with the recipe of a family, where nothing else is said.

        Args:
            family: One without a recipe has the common one.
            pretrained: Whether the model has learned before: then a tenth of the
                family's learning rate, or for one without the recipe of fine-tuning.
        """
        own = family_of(family).recipe
        recipe = own or (FINE_TUNING if pretrained else COMMON)
        if pretrained and own:
            recipe = own.replace(learning_rate=own.learning_rate / 10)
        return self.model_copy(update=dict(recipe.changed_by(self)))

    @property
    def is_paced(self) -> bool:
        """Whether layers learn slower than others, or later."""
        return bool(self.layer_rates or self.unfreeze)

    @property
    def needs_one_device(self) -> str:
        """The setting that several devices cannot share a batch with, if there is."""
        if self.carry_state:
            return "carry_state"
        return (
            "gradient_accumulation_steps"
            if self.recipe.gradient_accumulation_steps > 1
            else ""
        )

    def without_effect(self) -> frozenset[str]:
        """Names of the settings with which a checkpoint of other ones can be gone on.

        They are `steps`, too, where the first ones of a longer training are those of a
        shorter one. What is not given must be said by the family: see `of_family`.
        """
        every, warmup = self.eval_every_steps, self.recipe.warmup_steps
        names = set(WITHOUT_EFFECT)
        decides = bool(self._needs_of_evaluations())
        if not decides:
            names |= {"eval_every_steps", "eval_batches"}
        # The last step is evaluated, too, and would be one to decide by.
        begins_alike = not decides or (every is not None and self.steps % every == 0)
        is_laid_out = self.recipe.schedule in LAID_OUT or bool(self.recipe.average_last)
        if not is_laid_out and self.steps > warmup:
            names |= {"steps"} if begins_alike else set()
        return frozenset(names)

    def _needs_of_evaluations(self) -> list[str]:
        """What is decided by the evaluations during training."""
        needs = {
            "early_stopping_patience": self.early_stopping_patience is not None,
            "schedule plateau": self.schedule == "plateau",
            "optimizer nt_asgd": self.optimizer == "nt_asgd",
        }
        return [name for name, given in needs.items() if given]

    @pydantic.model_validator(mode="after")
    def _settings_are_of_what_is_chosen(self) -> TrainerSettings:
        for name, key, owners in idle_settings(dict(self)):
            chosen = getattr(self, key) or getattr(COMMON, key)
            raise ValueError(
                f"trainer.{name} is a setting of trainer.{key} {' or '.join(owners)}, "
                f"which is {chosen}"
            )
        shared = self.strategy not in ("auto", "one_device")
        if shared and (needs := self.needs_one_device):
            raise ValueError(
                f"trainer.{needs} needs trainer.strategy one_device: it is "
                f"{self.strategy}"
            )
        if self.carry_state and self.packing != "contiguous":
            raise ValueError(
                "trainer.carry_state needs trainer.packing contiguous, where a row "
                f"goes on from the one before: it is {self.packing}"
            )
        if self.repack and self.packing != "contiguous":
            raise ValueError(
                "trainer.repack needs trainer.packing contiguous, where documents see "
                f"each other: it is {self.packing}"
            )
        if self.is_paced and self.optimizer == "schedule_free_adamw":
            raise ValueError(
                "trainer.layer_rates and trainer.unfreeze need another "
                "trainer.optimizer than schedule_free_adamw"
            )
        check_together(self, "trainer.")
        return self

    @pydantic.model_validator(mode="after")
    def _what_needs_evaluations_has_them(self) -> TrainerSettings:
        for name in self._needs_of_evaluations():
            if self.eval_every_steps is None:
                raise ValueError(f"trainer.{name} needs trainer.eval_every_steps")
        return self


def idle_settings(training: Mapping[str, Any]) -> list[tuple[str, str, list[str]]]:
    """Finds settings of optimizers or schedules other than the one that is chosen.

    Args:
        training: Fields of `TrainerSettings`.

    Returns:
        Of each its name, the field that chooses, and whose setting it is.
    """
    found = []
    for name in Recipe.model_fields:
        key, owners = owners_of(name)
        if not key or training.get(name) is None:
            continue
        if (training.get(key) or getattr(COMMON, key)) not in owners:
            found.append((name, key, owners))
    return found
