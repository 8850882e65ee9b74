"""The optimizers by name: Keras's own, and the averaged SGD of AWD-LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops


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


class Kind(NamedTuple):
    """An optimizer as a recipe makes it.

    Attributes:
        make: the class.
        rate: float. Its learning rate, as a multiple of AdamW's, where no other is
            given: chosen from a few tried, 300 steps with a small LSTM and Transformer.
        decays: bool. Whether weights decay where nothing else is said; then as much a
            step as with AdamW.
        settings: names of the recipe's attributes that it takes besides.
    """

    make: type[keras.optimizers.Optimizer]
    rate: float = 1.0
    decays: bool = True
    settings: tuple[str, ...] = ()


OPTIMIZERS: dict[str, Kind] = {
    "adamw": Kind(keras.optimizers.AdamW, settings=("beta_2",)),
    "adam": Kind(keras.optimizers.Adam, decays=False, settings=("beta_2",)),
    "sgd": Kind(keras.optimizers.SGD, rate=30.0, settings=("momentum",)),
    "nt_asgd": Kind(NTASGD, rate=300.0),
    "adagrad": Kind(keras.optimizers.Adagrad, rate=30.0),
    "adafactor": Kind(keras.optimizers.Adafactor, rate=10.0),
    "lion": Kind(keras.optimizers.Lion, rate=0.3, settings=("beta_2",)),
}
"""The optimizers by the name used in configurations.

References:
    - [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101) (AdamW)
    - [Kingma and Ba, 2014](https://arxiv.org/abs/1412.6980) (Adam)
    - [Duchi et al., 2011](https://jmlr.org/papers/v12/duchi11a.html) (Adagrad)
    - [Shazeer and Stern, 2018](https://arxiv.org/abs/1804.04235) (Adafactor)
    - [Chen et al., 2023](https://arxiv.org/abs/2302.06675) (Lion)
"""
