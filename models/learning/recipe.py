"""How the families learn from scratch: one recipe, and what a family changes in it.

docs/records.md tells what the recipes reach. Importing this module imports
neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from pydantic import Field

from ..settings import Section
from .choices import OptimizerName, ScheduleName, optimizer_kind

if TYPE_CHECKING:
    import keras

    from .schedules import Schedule


class Recipe(Section):
    """An optimizer with its schedule: by default AdamW, warm-up and cosine decay.

    References:
        - [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101) (AdamW)
        - [Pascanu et al., 2013](https://arxiv.org/abs/1211.5063) (clipping)
    """

    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """Peak of the schedule."""
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.02
    """End of the schedule, or its least value, as a share of its peak."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps until the peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled, as in AdamW, whatever the optimizer; biases and norms are spared."""
    decay_width: Annotated[int, Field(ge=1)] | None = None
    """Width that `weight_decay` is meant for: a matrix of half that decays twice as
    much, and so on; by default all alike."""
    cautious_decay: bool = False
    """Whether a weight decays only in steps that bring it nearer to 0 themselves."""
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay rate of the second moment of `adam` and `adamw`, of `lion`'s momentum."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Bound on the gradient's global norm; 0 for none."""
    optimizer: OptimizerName = "adamw"
    """With another than `adamw` the recipe's learning rate and weight decay are
    translated; `nt_asgd` is AWD-LSTM's. `muon` makes the updates of matrices
    orthogonal: fewer steps, dearer ones. `schedule_free_adamw` averages in place of a
    schedule, by default `constant`. Yours is `mypackage:Optimizer`, a subclass of
    `keras.optimizers.Optimizer` or a function that makes one: it takes a schedule as
    `learning_rate` and, if it can, `weight_decay` and `global_clipnorm`
    (models/learning/choices.py says more)."""
    schedule: ScheduleName = "cosine"
    """What follows the warm-up. `wsd` stays, then falls in equal steps; `plateau` falls
    where the evaluation loss stays."""
    decay_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the steps, the last ones, in which `wsd` falls."""
    decay_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between two falls of the schedule `step`."""
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What a fall of `step` or `plateau` multiplies the learning rate with."""
    plateau_patience: Annotated[int, Field(ge=1)] = 2
    """Evaluations without a better loss until `plateau` falls."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of `sgd`."""
    averaging_patience: Annotated[int, Field(ge=1)] = 5
    """Of `nt_asgd`: evaluations that averaging waits for a better loss."""
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of an exponential moving average of the weights, which is what is evaluated and
    exported; such as 0.999."""
    average_last: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps, the last ones, whose weights are averaged evenly for what is
    evaluated and exported, after the average of `ema_momentum` if there is one."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] = 1
    """Batches of a step: their gradients are those of one large batch."""

    @pydantic.model_validator(mode="after")
    def _goes_together(self) -> Recipe:
        check_together(self)
        return self

    def replace(self, **changes: Any) -> Recipe:
        """This recipe with other values in some fields."""
        return Recipe(**{**dict(self), **changes})

    def with_optimizer(self, name: str) -> Recipe:
        """This recipe, translated for another optimizer.

        The learning rate is multiplied by what the other usually needs more, and the
        weight decay divided by it, so that weights decay as much a step; with Adam
        they do not decay, and without a schedule it is constant. That is where to
        begin, not the best.

        Raises:
            ValueError: if there is no such optimizer.
        """
        kind = optimizer_kind(name)
        factor = kind.rate / optimizer_kind(self.optimizer).rate
        return self.replace(
            optimizer=name,
            learning_rate=self.learning_rate * factor,
            weight_decay=self.weight_decay / factor if kind.decays else 0.0,
            schedule=kind.schedule or self.schedule,
        )

    def changed_by(self, changes: Any) -> Recipe:
        """This recipe with what `RecipeChanges` give, translated for its optimizer."""
        given = {
            name: getattr(changes, name)
            for name in Recipe.model_fields
            if getattr(changes, name) is not None
        }
        recipe = self
        if given.get("optimizer", self.optimizer) != self.optimizer:
            recipe = self.with_optimizer(given["optimizer"])
        return recipe.replace(**given)

    def make_schedule(self, steps: int | None = None) -> Schedule:
        """Makes the schedule.

        Args:
            steps: int or `None`. As in `make_optimizer()`.
        """
        from .schedules import PerUpdate, make_schedule

        warmup = self.warmup_steps
        if steps is not None:
            warmup = min(warmup, max(steps - 1, 0))
        schedule = make_schedule(
            self.schedule,
            self.learning_rate,
            warmup_steps=warmup,
            steps=steps,
            final=self.final_learning_rate,
            decay_every_steps=self.decay_every_steps,
            decay_factor=self.decay_factor,
            decay_share=self.decay_share,
        )
        if self.gradient_accumulation_steps == 1:
            return schedule
        return PerUpdate(schedule, self.gradient_accumulation_steps)

    def make_optimizer(
        self, steps: int | None = None, *, paced: bool = False
    ) -> keras.optimizers.Optimizer:
        """Makes the optimizer.

        Args:
            steps: int or `None`. Length of the training. Defaults to `None`, not
                known: warm-up to a learning rate that stays, where the schedule needs
                to know.
            paced: bool. Whether it goes by `freezing.set_pace`. Defaults to `False`.

        Returns:
            An optimizer of Keras, one of `optimizers`, or yours.

        Raises:
            ImportError: if yours is not there.
            ValueError: if it is not as `choices.OptimizerKind` says.

        Example:
        ```python
        model = build_causal_lm("lstm", ByteTokenizer(), 64)
        recipe = RECIPES["lstm"].with_optimizer("lion").replace(schedule="linear")
        model.compile(optimizer=recipe.make_optimizer(steps=1000))
        ```
        """
        from .optimizers import make_optimizer

        batches, momentum = self.gradient_accumulation_steps, self.ema_momentum
        needed: dict[str, Any] = {}
        if batches > 1:
            needed["gradient_accumulation_steps"] = batches
        if momentum is not None:
            # Keras averages after every batch, not after every step.
            needed |= {"use_ema": True, "ema_momentum": momentum ** (1 / batches)}
        wanted = {
            "weight_decay": self.weight_decay,
            "global_clipnorm": self.clip_norm or None,
        }
        for name in optimizer_kind(self.optimizer).settings:
            wanted[name] = getattr(self, name)
        schedule = self.make_schedule(steps)
        extras = self._extras(steps) | ({"paced": True} if paced else {})
        return make_optimizer(self.optimizer, schedule, needed, wanted, extras)

    def _extras(self, steps: int | None) -> dict[str, Any]:
        """Arguments of `optimizers.Extras`, those that are wanted."""
        extras = {
            "cautious_decay": self.cautious_decay,
            "decay_width": self.decay_width,
        }
        if self.average_last and steps is not None:
            extras["average_from"] = steps - round(steps * self.average_last)
        return {name: value for name, value in extras.items() if value}


def check_together(chosen: Any, section: str = "") -> None:
    """Checks what a single field cannot know of the others.

    Args:
        chosen: a `Recipe`, or `RecipeChanges`.
        section: string. Begins the names of its keys in an error, such as `"trainer."`.

    Raises:
        ValueError: naming the keys.
    """
    if chosen.schedule == "step" and chosen.decay_every_steps is None:
        raise ValueError(f"{section}schedule step needs {section}decay_every_steps")
    optimizer = chosen.optimizer or "adamw"
    if optimizer_kind(optimizer).averages:
        for name in ("ema_momentum", "average_last"):
            if getattr(chosen, name):
                raise ValueError(
                    f"{section}{name} and {section}optimizer {optimizer} both average "
                    "the weights: give one of them"
                )
    if optimizer == "schedule_free_adamw":
        for name in ("cautious_decay", "decay_width"):
            if getattr(chosen, name):
                raise ValueError(f"{section}{name} needs another {section}optimizer")


_OPTIONAL: dict[str, Any] = {
    name: (
        field.rebuild_annotation() | None,
        Field(None, description=field.description),
    )
    for name, field in Recipe.model_fields.items()
}
RecipeChanges: Any = pydantic.create_model(
    "RecipeChanges", __base__=Section, __module__=__name__, **_OPTIONAL
)
"""A section with the fields of a recipe, all `None`: what is, is as in the recipe."""

COMMON = Recipe()
"""The recipe of an architecture from elsewhere."""

FINE_TUNING = Recipe(learning_rate=5e-5)
"""The recipe of a model that has learned before."""
