"""The recurrent layers: Keras's, fast with cuDNN and without.

In shapes: B rows, T positions, D inputs, U `units`, G gates.
"""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from ...backbone import (
    Tensor,
    holds_matrices,
    require,
)
from . import cells, cudnn
from .cells import Cell, Recurrence, State


class RecurrentLayer(keras.layers.Layer):
    """Base class of the recurrent layers over whole sequences.

    Each is the same function as the Keras layer of its name with
    `return_sequences=True`, with the same weights in the same layout, but several
    times faster where there is no cuDNN: see `cells`. On an NVIDIA card, whole
    sequences are one call of cuDNN, in training and out of it. It is not called where
    it cannot be: in a graph that XLA compiles, in an export, with `recurrent_dropout`
    in training, and where a state is forgotten on the way (`keep`).

    Args:
        units: int. Width of the output and of the state.
        kernel_initializer: initializer of the input kernel. Defaults to
            `"glorot_uniform"`.
        recurrent_initializer: initializer of the recurrent kernel. Defaults to
            `"orthogonal"`.
        recurrent_dropout: float. Share of the units that each row of a batch does
            without, at all time steps, where the layer looks at its last output.
            Defaults to 0.
        weight_dropout: float. Share of the recurrent kernel that is zero for a whole
            call in training (DropConnect). Defaults to 0.
        seed: int or `None`. Of both dropouts. Defaults to `None`.
        use_cudnn: `"auto"` or bool. Whether to call cuDNN where it can be called.
            `"auto"` looks for a GPU when the layer is built; `True` does not. Defaults
            to `"auto"`.

    Call arguments:
        inputs: tensor of shape `(batch_size, sequence_length, input_dim)`.
        training: bool. Whether to drop out, and to keep what the fast gradient needs.
            Without it the gradient is TensorFlow's own, of a plain loop.

    Returns:
        A tensor of shape `(batch_size, sequence_length, units)`.

    References:
        - [Gal and Ghahramani, 2016](https://arxiv.org/abs/1512.05287)
          (recurrent dropout)
        - [Merity et al., 2017](https://arxiv.org/abs/1708.02182) (weight dropout)
    """

    cell: ClassVar[Cell]

    def __init__(
        self,
        units: int,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        seed: int | None = None,
        use_cudnn: str | bool = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require(
            0 <= recurrent_dropout < 1 and 0 <= weight_dropout < 1,
            "`recurrent_dropout` and `weight_dropout` must be at least 0 and below 1.",
            recurrent_dropout=recurrent_dropout,
            weight_dropout=weight_dropout,
        )
        require(
            use_cudnn in ("auto", True, False),
            "`use_cudnn` must be 'auto', True or False.",
            use_cudnn=use_cudnn,
        )
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.recurrent_dropout = recurrent_dropout
        self.weight_dropout = weight_dropout
        self.seed = seed
        self.use_cudnn = use_cudnn
        if recurrent_dropout or weight_dropout:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Any) -> None:
        # Not earlier: it starts the devices, as the first weight does.
        self._has_cudnn = (
            cudnn.is_present() if self.use_cudnn == "auto" else bool(self.use_cudnn)
        )
        width = self.cell.num_gates * self.units
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], width),
            initializer=self.kernel_initializer,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, width),
            initializer=self._initial_recurrent_kernel,
        )
        for kernel in (self.kernel, self.recurrent_kernel):
            holds_matrices(kernel, [self.units] * self.cell.num_gates)
        self.bias = self.add_weight(
            name="bias", shape=self._bias_shape(), initializer=self._initial_bias
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        state = self.empty_state(ops.shape(inputs)[0])
        outputs, _ = self.run(inputs, state, training)
        return outputs

    @property
    def trains_on_cudnn(self) -> bool:
        """Whether a call in training is one of cuDNN, where nothing else forbids it."""
        return self._has_cudnn and not self.recurrent_dropout

    def calls_cudnn(
        self, training: bool | None = None, keep: Tensor | None = None
    ) -> bool:
        """Whether `run()` with these arguments, here and now, is a call of cuDNN."""
        is_able = self.trains_on_cudnn if training else self._has_cudnn
        return is_able and keep is None and cudnn.may_be_called()

    def run(
        self,
        inputs: Tensor,
        state: State,
        training: bool | None = None,
        keep: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Goes on from a state.

        Args:
            inputs: tensor of shape `(batch_size, sequence_length, input_dim)`.
            state: tensors of shape `(batch_size, units)`: what `empty_state()` or this
                method returned.
            training: as in a call.
            keep: as in `run_projected()`.

        Returns:
            The outputs `(batch_size, sequence_length, units)` and the next state.
        """
        inputs = ops.swapaxes(inputs, 0, 1)  # (T, B, D)
        # cuDNN takes no empty sequence.
        if inputs.shape[0] == 0 or not self.calls_cudnn(training, keep):
            return self.run_projected(self.project(inputs), state, training, keep)
        outputs, state = cudnn.run(
            self.cell,
            self._in_compute_dtype(inputs),
            self._in_compute_dtype(self.kernel),
            self._in_compute_dtype(self._input_bias()),
            self._recurrence(ops.shape(inputs)[1], training),
            state,
        )
        return ops.swapaxes(outputs, 0, 1), state  # (B, T, U)

    def run_projected(
        self,
        projected: Tensor,
        state: State,
        training: bool | None = None,
        keep: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Goes on from a state, like `run()`, and always without cuDNN.

        Args:
            projected: what `project()` says of the inputs, time first: tensor of shape
                `(sequence_length, batch_size, gates * units)`.
            state: as in `run()`.
            training: as in a call.
            keep: `(sequence_length, batch_size, 1)`, 0 where a position is to begin
                with a state of zeros, else 1; or `None`, if none is.

        Returns:
            The outputs `(batch_size, sequence_length, units)` and the next state.
        """
        run = cells.run_with_fast_gradient if training else cells.run
        product = self._recurrence(ops.shape(projected)[1], training)
        outputs, state = run(self.cell, projected, product, state, keep)  # (T, B, U)
        return ops.swapaxes(outputs, 0, 1), state  # (B, T, U)

    def step(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Consumes one position.

        Args:
            inputs: tensor of shape `(batch_size, input_dim)`.
            state: tensors of shape `(batch_size, units)`.

        Returns:
            The output `(batch_size, units)` and the next state.
        """
        recurrence = self._recurrence(ops.shape(inputs)[0])
        recurrent = recurrence.product(state[0])  # (B, G * U)
        state, _ = self.cell.forward(self.project(inputs), recurrent, state)
        return state[0], state  # (B, U)

    def empty_state(self, batch_size: Tensor) -> State:
        """The state before the first step: zeros.

        Returns:
            A tuple of tensors of shape `(batch_size, units)`, the output first.
        """
        zeros = ops.zeros((batch_size, self.units), self.compute_dtype)
        return (zeros,) * self.cell.num_states

    def project(self, inputs: Tensor) -> Tensor:
        """The part of a step that depends on its input alone.

        Args:
            inputs: tensor of shape `(..., input_dim)`.

        Returns:
            A tensor of shape `(..., gates * units)`.
        """
        kernel = self._in_compute_dtype(self.kernel)  # (D, G * U)
        bias = self._in_compute_dtype(self._input_bias())  # (G * U,)
        return ops.matmul(inputs, kernel) + bias  # (..., G * U)

    def _recurrence(
        self, batch_size: Tensor, training: bool | None = None
    ) -> Recurrence:
        kernel = self._in_compute_dtype(self.recurrent_kernel)
        bias = self._recurrent_bias()
        if bias is not None:
            bias = self._in_compute_dtype(bias)
        mask = None
        if training and self.weight_dropout:
            kernel = self._drop(kernel, self.weight_dropout)
        if training and self.recurrent_dropout:
            ones = ops.ones((batch_size, self.units), self.compute_dtype)
            mask = self._drop(ones, self.recurrent_dropout)
        return Recurrence(kernel, bias, mask)

    def _drop(self, x: Tensor, rate: float) -> Tensor:
        return keras.random.dropout(x, rate, seed=self.seed_generator)

    def _bias_shape(self) -> tuple[int, ...]:
        return (self.cell.num_gates * self.units,)

    def _input_bias(self) -> Tensor:
        return self.bias

    def _recurrent_bias(self) -> Tensor | None:
        return None

    def _in_compute_dtype(self, weight: Any) -> Tensor:
        # Keras casts weights only inside `call()`.
        return ops.cast(weight, self.compute_dtype)

    def _initial_recurrent_kernel(
        self, shape: tuple[int, ...], dtype: Any = None
    ) -> Tensor:
        # TensorFlow has no orthogonal matrices in bfloat16.
        return ops.cast(self.recurrent_initializer(shape, "float32"), dtype)

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return ops.zeros(shape, dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(
                self.recurrent_initializer
            ),
            "recurrent_dropout": self.recurrent_dropout,
            "weight_dropout": self.weight_dropout,
            "seed": self.seed,
            "use_cudnn": self.use_cudnn,
        }


@keras.saving.register_keras_serializable(package="langzoo")
class SimpleRNN(RecurrentLayer):
    """A layer whose output is the tanh of its input and its last output, projected.

    `keras.layers.SimpleRNN`, faster. Arguments and shapes: see `RecurrentLayer`.

    Example:
    ```python
    outputs = SimpleRNN(8)(np.ones((2, 5, 3), "float32"))
    assert outputs.shape == (2, 5, 8)
    ```

    References:
        - [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """

    cell = cells.SimpleCell()


@keras.saving.register_keras_serializable(package="langzoo")
class GRU(RecurrentLayer):
    """A layer of gated recurrent units.

    `keras.layers.GRU` with its default `reset_after=True`, faster: gates in the order
    update, reset, candidate, and a bias `(2, 3 * units)` of the input projection and
    of the recurrent product. Arguments and shapes: see `RecurrentLayer`.

    Example:
    ```python
    outputs = GRU(8)(np.ones((2, 5, 3), "float32"))
    assert outputs.shape == (2, 5, 8)
    ```

    References:
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078v1) (version 1: the reset
          gate after the product)
    """

    cell = cells.GRUCell()

    def _bias_shape(self) -> tuple[int, ...]:
        return (2, 3 * self.units)

    def _input_bias(self) -> Tensor:
        return self.bias[0]

    def _recurrent_bias(self) -> Tensor | None:
        return self.bias[1]


@keras.saving.register_keras_serializable(package="langzoo")
class LSTM(RecurrentLayer):
    """A layer of long short-term memory.

    `keras.layers.LSTM`, faster: gates in the order input, forget, candidate, output.
    Arguments and shapes: see `RecurrentLayer`.

    Args:
        units: int. Width of the output and of both parts of the state.
        unit_forget_bias: bool. Whether the forget gate's bias starts at 1. Defaults
            to `True`.
        **kwargs: arguments of `RecurrentLayer`.

    Example:
    ```python
    outputs = LSTM(8)(np.ones((2, 5, 3), "float32"))
    assert outputs.shape == (2, 5, 8)
    ```

    References:
        - [Hochreiter and Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
        - [Gers et al., 2000](https://doi.org/10.1162/089976600300015015) (forget gate)
    """

    cell = cells.LSTMCell()

    def __init__(
        self, units: int, unit_forget_bias: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(units, **kwargs)
        self.unit_forget_bias = unit_forget_bias

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        forget = ops.full((self.units,), float(self.unit_forget_bias), dtype)
        others = ops.zeros((self.units,), dtype)
        return ops.concatenate([others, forget, others, others])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "unit_forget_bias": self.unit_forget_bias}
