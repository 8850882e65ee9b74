"""What a recipe names: optimizers, schedules and precisions, and what belongs to each.

What is named is imported when it is made. Importing this module imports neither
TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from ..references import PATTERN, is_reference


class OptimizerKind(NamedTuple):
    """An optimizer as a recipe makes it: one of `OPTIMIZERS`, or a reference to yours.

    Yours is `mypackage:Optimizer`: a subclass of `keras.optimizers.Optimizer`, or a
    function that makes an optimizer. It must take `learning_rate`, which is a schedule
    (`keras.optimizers.schedules.LearningRateSchedule`), and gets of these what its
    signature has: `weight_decay`, a float, decoupled from the gradient;
    `global_clipnorm`, a float or `None`; and, where they are wanted,
    `gradient_accumulation_steps`, `use_ema` and `ema_momentum`, as Keras's optimizers
    take them. Its variables are in the checkpoints, so that a killed training goes on.

    ```python
    class Signs(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(ops.sign(gradient), variable, learning_rate)
    ```

    Attributes:
        make: reference to the class or function.
        rate: float. Its learning rate, as a multiple of AdamW's, where no other is
            given: chosen from a few tried, 300 steps with a small LSTM and Transformer.
        decays: bool. Whether weights decay where nothing else is said; then as much a
            step as with AdamW.
        settings: names of the recipe's fields that are of this optimizer and not of
            all; it is made with those that its signature has.
        schedule: string. The schedule where no other is said; none for the recipe's.
        averages: bool. Whether it averages the weights itself.
    """

    make: str
    rate: float = 1.0
    decays: bool = True
    settings: tuple[str, ...] = ()
    schedule: str = ""
    averages: bool = False


OPTIMIZERS: dict[str, OptimizerKind] = {
    "adamw": OptimizerKind(
        "langzoo.models.learning.optimizers:AdamW", settings=("beta_2",)
    ),
    "adam": OptimizerKind("keras.optimizers:Adam", decays=False, settings=("beta_2",)),
    "sgd": OptimizerKind("keras.optimizers:SGD", rate=30.0, settings=("momentum",)),
    "nt_asgd": OptimizerKind(
        "langzoo.models.learning.optimizers:NTASGD",
        rate=300.0,
        settings=("averaging_patience",),
        averages=True,
    ),
    "adagrad": OptimizerKind("keras.optimizers:Adagrad", rate=30.0),
    "adafactor": OptimizerKind("keras.optimizers:Adafactor", rate=10.0),
    "lion": OptimizerKind("keras.optimizers:Lion", rate=0.3, settings=("beta_2",)),
    "muon": OptimizerKind(
        "langzoo.models.learning.optimizers:Muon", settings=("beta_2",)
    ),
    "schedule_free_adamw": OptimizerKind(
        "langzoo.models.learning.optimizers:ScheduleFreeAdamW",
        settings=("beta_2",),
        schedule="constant",
        averages=True,
    ),
}
"""The optimizers by the name used in configurations.

References:
    - [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101) (AdamW)
    - [Kingma and Ba, 2014](https://arxiv.org/abs/1412.6980) (Adam)
    - [Merity et al., 2017](https://arxiv.org/abs/1708.02182) (NT-ASGD)
    - [Duchi et al., 2011](https://jmlr.org/papers/v12/duchi11a.html) (Adagrad)
    - [Shazeer and Stern, 2018](https://arxiv.org/abs/1804.04235) (Adafactor)
    - [Chen et al., 2023](https://arxiv.org/abs/2302.06675) (Lion)
    - [Jordan et al., 2024](https://kellerjordan.github.io/posts/muon/) (Muon)
    - [Defazio et al., 2024](https://arxiv.org/abs/2405.15682) (schedule-free AdamW)
"""

SCHEDULES: dict[str, tuple[str, ...]] = {
    "constant": (),
    "cosine": (),
    "linear": (),
    "wsd": ("decay_share",),
    "inverse_square_root": (),
    "step": ("decay_every_steps", "decay_factor"),
    "plateau": ("decay_factor", "plateau_patience"),
}
"""The schedules of `schedules.make_schedule()`, and the recipe's fields that are of
them and not of all."""

LAID_OUT = ("cosine", "linear", "wsd")
"""Those that end where the training does: of a longer one every step is another."""

PRECISIONS = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
"""The Keras policy of each precision. Weights and their updates are float32 in all."""


def optimizer_kind(name: str) -> OptimizerKind:
    """An optimizer by its name, or by reference: yours, with AdamW's rate.

    Raises:
        ValueError: if it is neither.
    """
    return OPTIMIZERS.get(_known(name), OptimizerKind(name))


def _known(name: str) -> str:
    if name not in OPTIMIZERS and not is_reference(name):
        raise PydanticCustomError(
            "optimizer",
            f"it must be one of {', '.join(OPTIMIZERS)}, or yours as module:Name",
        )
    return name


OptimizerName = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema(
        {"anyOf": [{"enum": [*OPTIMIZERS]}, {"type": "string", "pattern": PATTERN}]}
    ),
]
if TYPE_CHECKING:  # Types cannot be read off a table.
    ScheduleName = str
    Precision = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]
    Precision = Literal[tuple(PRECISIONS)]


def owners_of(setting: str) -> tuple[str, list[str]]:
    """What a field of a recipe is a setting of: the field that chooses, and the names.

    They are none where it is of every optimizer and schedule.
    """
    optimizers = {name: kind.settings for name, kind in OPTIMIZERS.items()}
    for key, table in (("optimizer", optimizers), ("schedule", SCHEDULES)):
        names = [name for name, settings in table.items() if setting in settings]
        if names:
            return key, names
    return "", []
