"""The optimizers by name: Keras's own, and the averaged SGD of AWD-LSTM."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from .. import references
from .choices import optimizer_kind

_SPARED = ["bias", "beta", "gamma", "scale"]
# What all optimizers of Keras take; of their base class it cannot be asked.
_COMMON = inspect.signature(keras.optimizers.SGD).parameters


@keras.saving.register_keras_serializable(package="langzoo")
class NTASGD(keras.optimizers.SGD):
    """SGD whose weights are averaged from the moment that they no longer improve.

    Non-monotonically triggered averaged SGD, the optimizer of AWD-LSTM. Training goes
    on with the plain weights; the averages take their place where `fit()` ends, within
    the callback `keras.callbacks.SwapEMAWeights`, and by `finalize_variable_values()`.
    Until `start_averaging()` is called they are the weights themselves.

    Args:
        learning_rate: float or schedule. Defaults to 30, that of the paper, for a model
            without norms whose gradients are clipped to 0.25.
        **kwargs: other arguments of `keras.optimizers.SGD`.

    Example:
    ```python
    model.compile(optimizer=NTASGD(global_clipnorm=0.25))
    model.fit(
        texts,
        validation_data=(others,),
        epochs=100,
        callbacks=[keras.callbacks.SwapEMAWeights(), TriggerAveraging()],
    )
    ```

    References:
        - [Merity et al., 2017](https://arxiv.org/abs/1708.02182), algorithm 1
    """

    def __init__(
        self, learning_rate: Any = 30.0, name: str = "nt_asgd", **kwargs: Any
    ) -> None:
        super().__init__(learning_rate, name=name, **{**kwargs, "use_ema": True})

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.averaged_updates = self.add_variable(
            (), dtype="int64", aggregation="only_first_replica", name="averaged_updates"
        )

    def start_averaging(self) -> None:
        """Lets the average begin with the weights of this moment, unless it has."""
        if int(self.averaged_updates) == 0:
            self.averaged_updates.assign(1)

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        # Keras calls it after every batch, and would make an exponential average.
        every = self.gradient_accumulation_steps or 1
        is_update = ops.equal((self._iterations + 1) % every, 0)
        count = ops.convert_to_tensor(self.averaged_updates)
        rate = 1 / (ops.cast(count, "float32") + 1)  # 1 before the averaging begins
        rate = ops.where(is_update, rate, 0.0)
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            share = ops.cast(rate, variable.dtype)
            average.assign(share * variable + (1 - share) * average)
        grows = ops.logical_and(is_update, count > 0)
        self.averaged_updates.assign(count + ops.cast(grows, count.dtype))


def averaging_is_due(losses: Sequence[float], patience: int) -> bool:
    """Whether the last evaluation is the one that triggers averaging.

    It is where it is worse than the best of those more than `patience` before it, as in
    the authors' program.

    Args:
        losses: of all evaluations so far.
        patience: int. The paper's n.

    References:
        - [Merity et al., 2017](https://arxiv.org/abs/1708.02182) and
          [their program](https://github.com/salesforce/awd-lstm-lm)
    """
    earlier = losses[: -1 - patience]
    return bool(earlier) and losses[-1] > min(earlier)


class TriggerAveraging(keras.callbacks.Callback):
    """Starts the averaging of `NTASGD` after the epoch at which it is due.

    Args:
        patience: int. See `averaging_is_due`. Defaults to 5, as in the paper.
        monitor: string. The loss to watch. Defaults to `"val_loss"`.
    """

    def __init__(self, patience: int = 5, monitor: str = "val_loss") -> None:
        super().__init__()
        self.patience = patience
        self.monitor = monitor
        self.losses: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes note of the loss, and decides."""
        self.losses.append((logs or {})[self.monitor])
        if averaging_is_due(self.losses, self.patience):
            unwrapped(self.model.optimizer).start_averaging()


def unwrapped(optimizer: Any) -> Any:
    """The optimizer within a `keras.optimizers.LossScaleOptimizer`, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def find_optimizer(name: str) -> Callable[..., keras.optimizers.Optimizer]:
    """The class or function that makes an optimizer.

    Args:
        name: string. One of `choices.OPTIMIZERS`, or a reference.

    Raises:
        ImportError: in one line, if there is no such module, or no such name in it.
        ValueError: if it cannot be called with `learning_rate`.
    """
    make = references.load(optimizer_kind(name).make)
    if not callable(make) or not _takes(make, "learning_rate"):
        raise ValueError(
            f"{name} must be a subclass of keras.optimizers.Optimizer or a function "
            "that makes an optimizer, and take learning_rate"
        )
    return make


def make_optimizer(
    name: str, schedule: Schedule, needed: dict[str, Any], wanted: dict[str, Any]
) -> keras.optimizers.Optimizer:
    """Makes an optimizer, as `choices.OptimizerKind` says.

    Args:
        name: string. As of `find_optimizer`.
        schedule: schedule. The learning rate.
        needed: arguments that it must take.
        wanted: arguments that it gets if it takes them.

    Raises:
        ImportError: as `find_optimizer`.
        ValueError: likewise; if it does not take what is needed; and if what is made is
            no optimizer.
    """
    make = find_optimizer(name)
    for option in needed:
        if not _takes(make, option):
            raise ValueError(f"{name} does not take {option}, which is needed here")
    taken = {option: wanted[option] for option in wanted if _takes(make, option)}
    optimizer = make(learning_rate=schedule, **needed, **taken)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            f"{name} must make a keras.optimizers.Optimizer, and made a "
            f"{type(optimizer).__name__}"
        )
    optimizer.exclude_from_weight_decay(var_names=_SPARED)
    return optimizer


def _takes(make: Callable[..., Any], option: str) -> bool:
    """Whether an option is an argument, or one of all optimizers that is passed on."""
    parameters = inspect.signature(make).parameters
    passes_on = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    return option in parameters or (passes_on and option in _COMMON)
