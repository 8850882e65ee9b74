"""The optimizers by name: Keras's own, those that it lacks, and what extends any."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule as Schedule

from .. import references
from ..backbone import Tensor, is_by_rows, matrix_widths
from .choices import optimizer_kind
from .freezing import Pace, pace_of

_SPARED = ["bias", "beta", "gamma", "scale"]
# What all optimizers of Keras take; of their base class it cannot be asked.
_COMMON = inspect.signature(keras.optimizers.SGD).parameters


@keras.saving.register_keras_serializable(package="langzoo")
class AdamW(keras.optimizers.AdamW):
    """AdamW, in which embeddings of n-grams learn in the rows that a batch has.

    Of such a table, see `backbone.learns_by_rows`, a batch meets some rows, and of all
    others the moments would only be multiplied. A row that is met is updated without a
    first moment, so that it moves at once as far as momentum would have moved it in the
    steps to come; one that is not keeps what it has, and none decays.

    References:
        - [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101)
    """

    def build(self, variables: Any) -> None:
        if not self.built:
            self._by_rows = [is_by_rows(variable) for variable in variables]
        super().build(variables)

    def _is_by_rows(self, variable: Any) -> bool:
        return self._by_rows[self._get_variable_index(variable)]

    def _use_weight_decay(self, variable: Any) -> bool:
        return super()._use_weight_decay(variable) and not self._is_by_rows(variable)

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if not any(isinstance(gradient, tf.IndexedSlices) for gradient in grads):
            return super()._clip_gradients(grads)
        grads = [_summed(gradient) for gradient in grads]
        if self.global_clipnorm:
            # Keras would make the slices dense.
            grads, _ = tf.clip_by_global_norm(grads, self.global_clipnorm)
        return grads

    def update_step(self, gradient: Any, variable: Any, learning_rate: Tensor) -> None:
        if not self._is_by_rows(variable):
            super().update_step(gradient, variable, learning_rate)
            return
        if not isinstance(gradient, tf.IndexedSlices):  # of accumulated batches
            rows = tf.range(tf.shape(gradient)[0])
            gradient = tf.IndexedSlices(gradient, rows)
        rows, values = gradient.indices, tf.cast(gradient.values, variable.dtype)
        moment = self._velocities[self._get_variable_index(variable)]
        before = tf.gather(moment.value, rows)
        is_met = tf.reduce_any(values != 0, axis=1, keepdims=True)
        second = before + (1 - self.beta_2) * (tf.square(values) - before)
        step = tf.cast(self.iterations + 1, values.dtype)
        unbiased = second / (1 - tf.pow(tf.cast(self.beta_2, values.dtype), step))
        update = tf.cast(learning_rate, values.dtype) * values
        update /= tf.sqrt(unbiased) + self.epsilon  # 0 where nothing is met
        rise = tf.where(is_met, second - before, 0.0)
        self.assign_add(moment, tf.IndexedSlices(rise, rows))
        self.assign_sub(variable, tf.IndexedSlices(update, rows))


def _summed(gradient: Any) -> Any:
    """Slices with each row once; as many more are zeros, so that shapes are known."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    order = tf.argsort(gradient.indices)
    rows = tf.gather(gradient.indices, order)
    groups = tf.cumsum(tf.cast(rows[1:] != rows[:-1], rows.dtype))
    groups = tf.pad(groups, [[1, 0]])
    count = gradient.indices.shape[0] or tf.shape(rows)[0]
    values = tf.math.unsorted_segment_sum(
        tf.gather(gradient.values, order), groups, count
    )
    rows = tf.maximum(tf.math.unsorted_segment_max(rows, groups, count), 0)
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


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
        averages = self._model_variables_moving_average
        # The share is 1 before the averaging begins.
        _average(averages, trainable_variables, count + 1, is_update)
        grows = ops.logical_and(is_update, count > 0)
        self.averaged_updates.assign(count + ops.cast(grows, count.dtype))


@keras.saving.register_keras_serializable(package="langzoo")
class Muon(keras.optimizers.Muon):
    """Muon: the momentum of a matrix is made orthogonal; the rest is AdamW's.

    A kernel that holds several matrices side by side is split into them first, as
    `backbone.in_blocks` says: queries, keys and values, or the gates of a recurrent
    layer. One of more than two axes, as of a convolution, is a matrix where that is
    most nearly square. Embeddings, biases and scales learn by AdamW. By Moonlight's
    factor an update is as large as AdamW's, so that both share rate and decay.

    Args:
        learning_rate: float or schedule. Defaults to 0.003.
        weight_decay: float. Of all that decays. Defaults to 0.
        beta_2: float. Of AdamW's second moment. Defaults to 0.99.
        **kwargs: other arguments of `keras.optimizers.Muon`.

    References:
        - [Jordan et al., 2024](https://kellerjordan.github.io/posts/muon/)
        - [Liu et al., 2025](https://arxiv.org/abs/2502.16982) (Moonlight)
    """

    def __init__(
        self,
        learning_rate: Any = 3e-3,
        weight_decay: float | None = 0.0,
        beta_2: float = 0.99,
        name: str = "muon",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay=weight_decay,
            name=name,
            **{**kwargs, "adam_beta_2": beta_2, "adam_weight_decay": weight_decay},
        )
        self.beta_2 = beta_2

    def build(self, variables: Any) -> None:
        if not self.built:
            self._widths = [matrix_widths(variable) for variable in variables]
        super().build(variables)

    def _should_use_adamw(self, variable: Any) -> bool:
        return len(variable.shape) < 2 or "embedding" in variable.path.lower()

    def _muon_update_step(
        self, gradient: Tensor, variable: Any, lr: Tensor, m: Any
    ) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(m, self.momentum * m + gradient)
        ahead = gradient + self.momentum * m
        matrix = ops.reshape(ahead, _matrix_shape(variable.shape))  # (N, M)
        widths = self._widths[self._get_variable_index(variable)]
        ends = list(itertools.accumulate(widths))[:-1]
        parts = ops.split(matrix, ends, axis=1) if ends else [matrix]
        update = ops.concatenate([self._orthogonal(part) for part in parts], axis=1)
        update = ops.reshape(update, variable.shape)
        self.assign_sub(variable, ops.cast(lr, variable.dtype) * update)

    def _orthogonal(self, matrix: Tensor) -> Tensor:
        """The nearest orthogonal matrix, of AdamW's size."""
        return self.lr_adjust(self.zeropower_via_newtonschulz5(matrix, self.ns_steps))

    def _apply_weight_decay(self, variables: Any) -> None:
        # That of Keras's Muon is not for several devices.
        keras.optimizers.Optimizer._apply_weight_decay(self, variables)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_2": self.beta_2}


def _matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """The two axes of a kernel as a matrix: where it is most nearly square."""
    shape = tuple(shape)
    places = range(1, len(shape))
    pairs = [(math.prod(shape[:place]), math.prod(shape[place:])) for place in places]
    return min(pairs, key=lambda pair: max(pair) / min(pair))


@keras.saving.register_keras_serializable(package="langzoo")
class ScheduleFreeAdamW(keras.optimizers.AdamW):
    """Schedule-free AdamW: it trains between its steps and their average.

    What is evaluated, and what training ends with, is the average. It takes the place
    of the weights as that of `use_ema` does; checkpoints hold both. Keras's class of
    the same name has no way to the average, and with TensorFlow reads the base of a
    step when it has changed already.

    Args:
        learning_rate: float or schedule; it should not fall. Steps count by its square,
            as those of a warm-up do in the paper. Defaults to 0.003.
        **kwargs: other arguments of `keras.optimizers.AdamW`; `beta_1` is the share of
            the average in the weights that gradients are taken at.

    References:
        - [Defazio et al., 2024](https://arxiv.org/abs/2405.15682), algorithm 1
    """

    def __init__(
        self,
        learning_rate: Any = 3e-3,
        name: str = "schedule_free_adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, name=name, **{**kwargs, "use_ema": True})

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        # What Adam has the first moment in is here the steps without averaging.
        averages = self._model_variables_moving_average
        with tf.init_scope():  # `fit()` builds in a graph.
            for copies in (self._momentums, averages):
                for copy, variable in zip(copies, variables, strict=True):
                    copy.assign(variable)
        self.weight_sum = self.add_variable(
            (), dtype="float32", aggregation="only_first_replica", name="weight_sum"
        )

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Tensor
    ) -> None:
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        self.weight_sum.assign_add(ops.square(ops.cast(learning_rate, "float32")))

    def update_step(
        self, gradient: Tensor, variable: Any, learning_rate: Tensor
    ) -> None:
        index = self._get_variable_index(variable)
        base, moment = self._momentums[index], self._velocities[index]
        average = self._model_variables_moving_average[index]
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        second = self.beta_2 * moment + (1 - self.beta_2) * ops.square(gradient)
        self.assign(moment, second)
        unbiased = second / (1 - ops.power(ops.cast(self.beta_2, rate.dtype), step))
        update = gradient / (ops.sqrt(unbiased) + self.epsilon)
        if self.weight_decay is not None and self._use_weight_decay(variable):
            update += self.weight_decay * variable
        self.assign_sub(base, rate * update)
        square = ops.square(rate)
        total = ops.cast(self.weight_sum, square.dtype) + square
        share = ops.divide_no_nan(square, total)  # A warm-up's first rate is 0.
        self.assign(average, (1 - share) * average + share * base)
        self.assign(variable, (1 - self.beta_1) * base + self.beta_1 * average)

    def _apply_weight_decay(self, variables: Any) -> None:
        """The weights between base and average do not decay of themselves."""

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        """The average is a matter of the step."""


class Extras(keras.optimizers.Optimizer):
    """What a recipe may want of any optimizer: stands before its class, as a mixin.

    Args:
        *args: of the optimizer.
        cautious_decay: bool. Whether a weight decays only in a step that brings it
            nearer to 0 itself. Defaults to `False`.
        decay_width: int or `None`. Width of a matrix, its shorter side, that
            `weight_decay` is meant for: a narrower one decays as many times more, a
            wider one less. Defaults to `None`, all alike.
        average_from: int or `None`. Steps after which the weights, or where there is
            one their exponential average, are averaged evenly. That is what takes their
            place. Defaults to `None`, never.
        paced: bool. Whether layers learn slower, or later, as `freezing.set_pace` has
            said. One that does not learn yet has no part in the gradient's norm.
            Defaults to `False`.
        **kwargs: of the optimizer.

    References:
        - [Chen et al., 2025](https://arxiv.org/abs/2510.12402) (cautious decay)
        - [Izmailov et al., 2018](https://arxiv.org/abs/1803.05407) (even averages)
    """

    def __init__(
        self,
        *args: Any,
        cautious_decay: bool = False,
        decay_width: int | None = None,
        average_from: int | None = None,
        paced: bool = False,
        **kwargs: Any,
    ) -> None:
        if average_from is not None and not kwargs.get("use_ema"):
            kwargs |= {"use_ema": True, "ema_momentum": 0.0}  # of the weights as such
        super().__init__(*args, **kwargs)
        self.cautious_decay = cautious_decay
        self.decay_width = decay_width
        self.average_from = average_from
        self.paced = paced

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._decays = [self._decay_of(variable) for variable in variables]
        self._paces = [
            pace_of(variable) if self.paced else Pace() for variable in variables
        ]
        if self.average_from is not None:
            self._even_averages = self.add_optimizer_variables(variables, "even")

    def _decay_of(self, variable: Any) -> float:
        if not self.weight_decay or not self._use_weight_decay(variable):
            return 0.0
        if self.decay_width is None or len(variable.shape) < 2:
            return self.weight_decay
        return self.weight_decay * self.decay_width / min(_matrix_shape(variable.shape))

    def _apply_weight_decay(self, variables: Any) -> None:
        """Each weight decays in its own step, which may decide by it."""

    def _backend_apply_gradients(self, grads: Any, trainable_variables: Any) -> None:
        grads = [
            self._begun(gradient, self._paces[self._get_variable_index(variable)])
            for gradient, variable in zip(grads, trainable_variables, strict=True)
        ]
        super()._backend_apply_gradients(grads, trainable_variables)

    def _begun(self, values: Any, pace: Pace) -> Any:
        """Values of a layer, or zeros while it does not learn yet."""
        if not pace.start:
            return values
        if isinstance(values, tf.IndexedSlices):
            begun = self._begun(values.values, pace)
            return tf.IndexedSlices(begun, values.indices, values.dense_shape)
        updates = self._iterations // (self.gradient_accumulation_steps or 1)
        return values * ops.cast(updates >= pace.start, values.dtype)

    def update_step(
        self, gradient: Tensor, variable: Any, learning_rate: Tensor
    ) -> None:
        pace = self._paces[self._get_variable_index(variable)]
        learning_rate = self._begun(learning_rate * pace.rate, pace)
        before = ops.copy(variable)
        super().update_step(gradient, variable, learning_rate)
        decay = self._decays[self._get_variable_index(variable)]
        if not decay:
            return
        fall = before * ops.cast(learning_rate, before.dtype) * decay
        if self.cautious_decay:
            nearer = (before - variable) * before > 0
            fall = ops.where(nearer, fall, ops.zeros_like(fall))
        self.assign_sub(variable, fall)

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        super()._update_model_variables_moving_average(trainable_variables)
        if self.average_from is None:
            return
        every = self.gradient_accumulation_steps or 1
        batches = self._iterations + 1
        number = ops.maximum(batches // every - self.average_from, 1)
        sources = self._model_variables_moving_average
        _average(self._even_averages, sources, number, ops.equal(batches % every, 0))

    def _overwrite_model_variables_with_average_value(
        self, trainable_variables: Any
    ) -> None:
        if self.average_from is None:
            super()._overwrite_model_variables_with_average_value(trainable_variables)
            return
        for variable, even in zip(
            trainable_variables, self._even_averages, strict=True
        ):
            variable.assign(even)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cautious_decay": self.cautious_decay,
            "decay_width": self.decay_width,
            "average_from": self.average_from,
            "paced": self.paced,
        }


def _average(averages: Any, sources: Any, number: Tensor, is_update: Tensor) -> None:
    """Takes sources into even averages, as the `number`-th, where a step has ended."""
    share = ops.where(is_update, 1 / ops.cast(number, "float32"), 0.0)
    for average, source in zip(averages, sources, strict=True):
        part = ops.cast(share, source.dtype)
        average.assign(part * source + (1 - part) * average)


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
    name: str,
    schedule: Schedule,
    needed: dict[str, Any],
    wanted: dict[str, Any],
    extras: dict[str, Any],
) -> keras.optimizers.Optimizer:
    """Makes an optimizer, as `choices.OptimizerKind` says.

    Args:
        name: string. As of `find_optimizer`.
        schedule: schedule. The learning rate.
        needed: arguments that it must take.
        wanted: arguments that it gets if it takes them.
        extras: arguments of `Extras`, with which it is extended where there are any.

    Raises:
        ImportError: as `find_optimizer`.
        ValueError: likewise; if it does not take what is needed; if it is to be
            extended and is no class; and if what is made is no optimizer.
    """
    make = find_optimizer(name)
    for option in needed:
        if not _takes(make, option):
            raise ValueError(f"{name} does not take {option}, which is needed here")
    taken = {option: wanted[option] for option in wanted if _takes(make, option)}
    if extras:
        if not isinstance(make, type):
            raise ValueError(f"{name} must be a class to be given {', '.join(extras)}")
        make, taken = extended(make), {**taken, **extras}
    optimizer = make(learning_rate=schedule, **needed, **taken)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            f"{name} must make a keras.optimizers.Optimizer, and made a "
            f"{type(optimizer).__name__}"
        )
    optimizer.exclude_from_weight_decay(var_names=_SPARED)
    return optimizer


@functools.cache
def extended(make: type) -> type:
    """A subclass of an optimizer's class that takes the arguments of `Extras`, too."""
    name = f"Extended{make.__name__}"
    made = type(name, (Extras, make), {"__doc__": make.__doc__, "__module__": __name__})
    return keras.saving.register_keras_serializable("langzoo")(made)


def _takes(make: Callable[..., Any], option: str) -> bool:
    """Whether an option is an argument, or one of all optimizers that is passed on."""
    parameters = inspect.signature(make).parameters
    passes_on = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    return option in parameters or (passes_on and option in _COMMON)
