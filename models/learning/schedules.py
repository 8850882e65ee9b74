"""How the learning rate goes: linear warm-up, then a decay."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from ..backbone import Tensor, require


@keras.saving.register_keras_serializable(package="langzoo")
class WarmUp(Schedule):
    """A rate that rises from 0 in equal steps, and what follows.

    Args:
        peak: float. The rate that it reaches.
        warmup_steps: int. Steps until the peak.
        then: schedule. What follows; it counts from the end of the warm-up.
    """

    def __init__(self, peak: float, warmup_steps: int, then: Schedule) -> None:
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.then = then

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        rising = self.peak * step / max(self.warmup_steps, 1)
        behind = ops.maximum(step - self.warmup_steps, 0.0)
        return ops.where(step < self.warmup_steps, rising, self.then(behind))

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "then": self.then}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        then = keras.saving.deserialize_keras_object(config["then"])
        return cls(**{**config, "then": then})


@keras.saving.register_keras_serializable(package="langzoo")
class InverseSquareRootDecay(Schedule):
    """`peak * sqrt(offset / (offset + step))`.

    Args:
        peak: float. The rate at step 0.
        offset: int. Steps after which it has fallen to the peak over the root of 2.
        least: float. The rate does not fall below it. Defaults to 0.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762) (the offset is the
          warm-up's length)
    """

    def __init__(self, peak: float, offset: int, least: float = 0.0) -> None:
        self.peak = peak
        self.offset = offset
        self.least = least

    def __call__(self, step: Tensor) -> Tensor:
        share = self.offset / (self.offset + ops.cast(step, "float32"))
        return ops.maximum(self.peak * ops.sqrt(share), self.least)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "offset": self.offset, "least": self.least}


@keras.saving.register_keras_serializable(package="langzoo")
class StableThenLinear(Schedule):
    """A rate that stays, and at the end falls in equal steps.

    Args:
        peak: float. The rate while it stays.
        steps: int. Steps until the end of the fall.
        decay_steps: int. Those of them, the last, in which the rate falls.
        end: float. The rate at the end.

    References:
        - [Hu et al., 2024](https://arxiv.org/abs/2404.06395) (warm-up, stable, decay)
    """

    def __init__(self, peak: float, steps: int, decay_steps: int, end: float) -> None:
        self.peak = peak
        self.steps = steps
        self.decay_steps = decay_steps
        self.end = end

    def __call__(self, step: Tensor) -> Tensor:
        left = (self.steps - ops.cast(step, "float32")) / max(self.decay_steps, 1)
        return self.end + (self.peak - self.end) * ops.clip(left, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "steps": self.steps,
            "decay_steps": self.decay_steps,
            "end": self.end,
        }


@keras.saving.register_keras_serializable(package="langzoo")
class StepDecay(Schedule):
    """`peak * factor ** (step // every)`.

    Args:
        peak: float. The rate at step 0.
        every: int. Steps between two falls.
        factor: float. What the rate is multiplied with.
        least: float. The rate does not fall below it. Defaults to 0.
    """

    def __init__(
        self, peak: float, every: int, factor: float, least: float = 0.0
    ) -> None:
        self.peak = peak
        self.every = every
        self.factor = factor
        self.least = least
        self._decay = keras.optimizers.schedules.ExponentialDecay(
            peak, every, factor, staircase=True
        )

    def __call__(self, step: Tensor) -> Tensor:
        return ops.maximum(self._decay(step), self.least)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "every": self.every,
            "factor": self.factor,
            "least": self.least,
        }


@keras.saving.register_keras_serializable(package="langzoo")
class PlateauDecay(Schedule):
    """A rate that stays until somebody lowers `share`.

    Args:
        peak: float. The rate while `share` is 1.

    Attributes:
        share: a `keras.Variable`, the share of the peak. Assign to it; training goes
            on without compiling again.
    """

    def __init__(self, peak: float) -> None:
        self.peak = peak
        self.share = keras.Variable(1.0, trainable=False, name="share")

    def __call__(self, step: Tensor) -> Tensor:
        return self.peak * ops.convert_to_tensor(self.share)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak}


@keras.saving.register_keras_serializable(package="langzoo")
class PerUpdate(Schedule):
    """A schedule over updates where the optimizer counts batches.

    Keras asks a schedule for the rate at a batch, however many make an update.

    Args:
        schedule: schedule over updates.
        batches: int. Batches of an update.
    """

    def __init__(self, schedule: Schedule, batches: int) -> None:
        self.schedule = schedule
        self.batches = batches

    def __call__(self, step: Tensor) -> Tensor:
        return self.schedule(ops.floor_divide(step, self.batches))

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self.schedule, "batches": self.batches}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PerUpdate:
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["batches"])


def make_schedule(
    kind: str,
    peak: float,
    *,
    warmup_steps: int = 0,
    steps: int | None = None,
    final: float = 0.0,
    decay_every_steps: int | None = None,
    decay_factor: float = 0.5,
    decay_share: float = 0.5,
) -> Schedule:
    """Makes a schedule of one of `choices.SCHEDULES`, behind a linear warm-up.

    Args:
        kind: string. `"constant"` and `"plateau"` stay at the peak; the latter's is
            lowered by whoever watches the evaluation loss (see `plateau_of`).
        peak: float. The rate at the end of the warm-up.
        warmup_steps: int. Steps until the peak. Defaults to 0.
        steps: int or `None`. Length of the training. Defaults to `None`, not known:
            `"cosine"`, `"linear"` and `"wsd"` then stay at the peak.
        final: float. Where those end, and what the others do not fall below, as a share
            of the peak. Defaults to 0.
        decay_every_steps: int or `None`. Of `"step"`: steps between two falls.
        decay_factor: float. Of `"step"`: what a fall multiplies the rate with.
            Defaults to 0.5.
        decay_share: float. Of `"wsd"`: share of the steps, the last ones, in which the
            rate falls. Defaults to 0.5.

    Raises:
        ValueError: if the kind is unknown.

    References:
        - [Loshchilov and Hutter, 2016](https://arxiv.org/abs/1608.03983) (cosine)
    """
    decays = keras.optimizers.schedules
    rest = 1 if steps is None else max(steps - warmup_steps, 1)
    end = 1.0 if steps is None else final
    if kind == "cosine":
        return decays.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else peak,
            decay_steps=rest,
            alpha=end,
            warmup_target=peak if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if kind == "linear":
        then = decays.PolynomialDecay(peak, rest, end_learning_rate=peak * end)
    elif kind == "wsd":
        fall = min(round((steps or 0) * decay_share), rest)
        then = StableThenLinear(peak, rest, fall, peak * end)
    elif kind == "inverse_square_root":
        then = InverseSquareRootDecay(peak, max(warmup_steps, 1), peak * final)
    elif kind == "step":
        assert decay_every_steps is not None  # A recipe sees to it.
        then = StepDecay(peak, decay_every_steps, decay_factor, peak * final)
    elif kind in ("constant", "plateau"):
        then = PlateauDecay(peak)
    else:
        raise ValueError(f"There is no schedule {kind!r}.")
    return WarmUp(peak, warmup_steps, then)


def plateau_of(schedule: Schedule) -> PlateauDecay:
    """The part of a schedule `"plateau"` whose `share` can be lowered."""
    if isinstance(schedule, PerUpdate):
        return plateau_of(schedule.schedule)
    if isinstance(schedule, WarmUp):
        return plateau_of(schedule.then)
    require(
        isinstance(schedule, PlateauDecay),
        "The schedule must be one that can be lowered.",
        schedule=type(schedule).__name__,
    )
    return schedule
