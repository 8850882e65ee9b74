"""The time loop of the recurrent layers, and a gradient that is hoisted out of it.

A recurrent layer multiplies its last output by a matrix at every step; all the rest is
element-wise or does not depend on the step before. So a cell here is a pair of
element-wise functions, forward and backward, and the loop is written once for all of
them. What can leave the loop is outside: the projection of the inputs, the factors of
the chain rule, and the gradient of the matrix, which is one product over all steps.
Each step is left with one matrix product in each direction.

Shapes are time-major: T steps, B rows, U units, G gates of U units each.

References:
    - [Appleyard et al., 2016](https://arxiv.org/abs/1604.01946) (what to hoist)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from ...backbone import Tensor

State = tuple[Tensor, ...]


class Recurrence(NamedTuple):
    """How a step sees the output before it: `(output * mask) @ kernel + bias`.

    Attributes:
        kernel: `(U, G * U)`.
        bias: `(G * U,)`, or `None`.
        mask: `(B, U)`, or `None`. Not differentiated.
    """

    kernel: Tensor
    bias: Tensor | None = None
    mask: Tensor | None = None

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The kernel and, if there is one, the bias."""
        return (self.kernel,) if self.bias is None else (self.kernel, self.bias)

    def masked(self, outputs: Tensor) -> Tensor:
        """`outputs` `(..., B, U)` times the mask."""
        return outputs if self.mask is None else outputs * self.mask

    def product(self, output: Tensor) -> Tensor:
        """What the step after `output` `(B, U)` gets of it, `(B, G * U)`."""
        sums = tf.matmul(self.masked(output), self.kernel)
        return sums if self.bias is None else sums + self.bias


class Cell:
    """The element-wise part of a step.

    Attributes:
        num_states: int. Tensors `(B, U)` in the state; the first is the output.
        kept_widths: tuple of ints. Widths, in units, of what `forward()` keeps.
        sums_widths: tuple of ints. Widths, in units, of the first result of
            `backward()`; the first of them is the number of gates.
        cudnn_mode: string. The name of this recurrence in `CudnnRNNV3`.
        cudnn_gates: tuple of ints. The gates in cuDNN's order.
    """

    num_states: int
    kept_widths: tuple[int, ...]
    sums_widths: tuple[int, ...]
    cudnn_mode: str
    cudnn_gates: tuple[int, ...]

    @property
    def num_gates(self) -> int:
        """Width of the input projection and of the recurrent product, in units."""
        return self.sums_widths[0]

    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State
    ) -> tuple[State, tuple[Tensor, ...]]:
        """One step.

        Args:
            projected: input times kernel plus bias, `(B, G * U)`.
            recurrent: what `Recurrence.product()` says, `(B, G * U)`.
            state: tensors `(B, U)`.

        Returns:
            The next state, and what `factors()` needs to know of the step.
        """
        raise NotImplementedError

    def factors(
        self, kept: tuple[Tensor, ...], states: State, previous: State
    ) -> tuple[Tensor, ...]:
        """The factors of the chain rule, for all steps at once.

        Args:
            kept: what `forward()` kept, `(T, B, ...)`.
            states: the states after the steps, `(T, B, U)`.
            previous: the states before the steps, `(T, B, U)`.

        Returns:
            Tensors `(T, B, ...)`; `backward()` gets their rows of one step.
        """
        raise NotImplementedError

    def backward(
        self, d_state: State, factors: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        """The gradients of one step.

        Args:
            d_state: gradients of the state after the step, `(B, U)`.
            factors: the factors of the step.

        Returns:
            The gradient of the recurrent product, `(B, G * U)`, and whatever else
            `d_projected()` needs; and the gradients of the state before the step, less
            what went through the product, `None` for zero.
        """
        raise NotImplementedError

    def d_projected(self, d_sums: tuple[Tensor, ...]) -> Tensor:
        """The gradient of the input projection, from `backward()` of all steps."""
        return d_sums[0]


class SimpleCell(Cell):
    """tanh of the sum."""

    num_states = 1
    kept_widths = ()
    sums_widths = (1,)
    cudnn_mode = "rnn_tanh"
    cudnn_gates = (0,)

    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State
    ) -> tuple[State, tuple[Tensor, ...]]:
        return (tf.tanh(projected + recurrent),), ()

    def factors(
        self, kept: tuple[Tensor, ...], states: State, previous: State
    ) -> tuple[Tensor, ...]:
        (outputs,) = states
        return (1 - outputs * outputs,)

    def backward(
        self, d_state: State, factors: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        return (d_state[0] * factors[0],), (None,)


class GRUCell(Cell):
    """Gates z (update), r (reset) and the candidate; the reset comes after the product.

    `output = z * previous + (1 - z) * tanh(projected + r * recurrent)`
    """

    num_states = 1
    kept_widths = (4,)  # z, r, candidate, recurrent part of the candidate
    sums_widths = (3, 1)  # of the product, and of the candidate's projection
    cudnn_mode = "gru"
    cudnn_gates = (1, 0, 2)

    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State
    ) -> tuple[State, tuple[Tensor, ...]]:
        (previous,) = state
        units = previous.shape[-1]
        projected_gates, projected = tf.split(projected, [2 * units, units], axis=-1)
        recurrent_gates, recurrent = tf.split(recurrent, [2 * units, units], axis=-1)
        gates = tf.sigmoid(projected_gates + recurrent_gates)
        update, reset = tf.split(gates, 2, axis=-1)
        candidate = tf.tanh(projected + reset * recurrent)
        output = candidate + update * (previous - candidate)
        return (output,), (tf.concat([gates, candidate, recurrent], axis=-1),)

    def factors(
        self, kept: tuple[Tensor, ...], states: State, previous: State
    ) -> tuple[Tensor, ...]:
        z, r, candidate, recurrent = tf.split(kept[0], 4, axis=-1)
        to_candidate = (1 - z) * (1 - candidate * candidate)
        to_sums = [(previous[0] - candidate) * z * (1 - z), recurrent * r * (1 - r), r]
        return tf.concat(to_sums, axis=-1), to_candidate, z

    def backward(
        self, d_state: State, factors: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        (d_output,) = d_state
        to_sums, to_candidate, update = factors
        d_candidate = d_output * to_candidate
        d_recurrent = tf.concat([d_output, d_candidate, d_candidate], -1) * to_sums
        return (d_recurrent, d_candidate), (d_output * update,)

    def d_projected(self, d_sums: tuple[Tensor, ...]) -> Tensor:
        d_recurrent, d_candidate = d_sums
        units = d_candidate.shape[-1]
        return tf.concat([d_recurrent[..., : 2 * units], d_candidate], axis=-1)


class LSTMCell(Cell):
    """Gates i (input), f (forget), the candidate g, and o (output).

    `cell = f * previous_cell + i * g; output = o * tanh(cell)`
    """

    num_states = 2
    kept_widths = (4,)  # i, f, g, o
    sums_widths = (4,)
    cudnn_mode = "lstm"
    cudnn_gates = (0, 1, 2, 3)

    def forward(
        self, projected: Tensor, recurrent: Tensor, state: State
    ) -> tuple[State, tuple[Tensor, ...]]:
        _, cell = state
        units = cell.shape[-1]
        # One tanh for all, as sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: XLA makes a single
        # loop of it, which takes 0.6 of the time of a step with three.
        scale = tf.repeat(tf.constant([0.5, 0.5, 1.0, 0.5], cell.dtype), units)
        gates = tf.tanh((projected + recurrent) * scale) * scale + (1 - scale)
        input_gate, forget_gate, candidate, output_gate = tf.split(gates, 4, axis=-1)
        cell = forget_gate * cell + input_gate * candidate
        return (output_gate * tf.tanh(cell), cell), (gates,)

    def factors(
        self, kept: tuple[Tensor, ...], states: State, previous: State
    ) -> tuple[Tensor, ...]:
        i, f, g, o = tf.split(kept[0], 4, axis=-1)
        squashed = tf.tanh(states[1])
        to_sums = [
            g * i * (1 - i),
            previous[1] * f * (1 - f),
            i * (1 - g * g),
            squashed * o * (1 - o),
        ]
        return tf.concat(to_sums, axis=-1), o * (1 - squashed * squashed), f

    def backward(
        self, d_state: State, factors: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
        d_output, d_cell = d_state
        to_sums, to_cell, forget_gate = factors
        d_cell = d_cell + d_output * to_cell
        d_sums = tf.concat([d_cell, d_cell, d_cell, d_output], axis=-1) * to_sums
        return (d_sums,), (None, d_cell * forget_gate)


def run(
    cell: Cell,
    projected: Tensor,
    recurrence: Recurrence,
    state: State,
    keep: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Runs over time, with TensorFlow's own gradient of a loop.

    Args:
        cell: the element-wise part of a step.
        projected: inputs times kernel plus bias, `(T, B, G * U)`.
        recurrence: the other part of a step.
        state: the state before the first step, tensors `(B, U)`.
        keep: `(T, B, 1)`, 0 where a step is to begin with a state of zeros, else 1; or
            `None`, if none is. Not differentiated.

    Returns:
        The outputs `(T, B, U)` and the state after the last step.
    """
    (outputs,), state = _run(cell, projected, recurrence, state, keep, (1,))
    return outputs, state


def run_with_fast_gradient(
    cell: Cell,
    projected: Tensor,
    recurrence: Recurrence,
    state: State,
    keep: Tensor | None = None,
) -> tuple[Tensor, State]:
    """The same function as `run()`, with a gradient of one product a step.

    It keeps more in memory on the way: every gate of every step.
    """

    @tf.custom_gradient
    def function(
        projected: Tensor, weights: tuple[Tensor, ...], state: State
    ) -> tuple[tuple[Tensor, ...], Any]:
        tied = Recurrence(*weights)._replace(mask=recurrence.mask)
        kept_widths = (1,) * cell.num_states + cell.kept_widths
        kept, last = _run(cell, projected, tied, state, keep, kept_widths)
        states, kept = kept[: cell.num_states], kept[cell.num_states :]

        def gradient(d_outputs: Tensor, *d_last: Tensor) -> tuple[Any, ...]:
            previous = tuple(
                tf.concat([first[None], after[:-1]], axis=0)
                for first, after in zip(state, states, strict=True)
            )
            previous = _begun(previous, keep)
            factors = cell.factors(kept, states, previous)
            d_sums, d_state = _run_back(cell, d_outputs, factors, tied, keep, d_last)
            d_weights = _d_weights(tied, previous[0], d_sums[0])
            return cell.d_projected(d_sums), d_weights, d_state

        return (states[0], *last), gradient

    outputs, *last = function(projected, recurrence.weights, state)
    return outputs, tuple(last)


def _run(
    cell: Cell,
    projected: Tensor,
    recurrence: Recurrence,
    state: State,
    keep: Tensor | None,
    widths: tuple[int, ...],
) -> tuple[tuple[Tensor, ...], State]:
    """Keeps as many tensors of each step as there are widths: states first."""
    length = tf.shape(projected)[0]

    def body(time: Tensor, state: State, stores: tuple) -> tuple[Tensor, State, tuple]:
        state = _begun(state, None if keep is None else keep[time])
        recurrent = recurrence.product(state[0])
        state, kept = cell.forward(projected[time], recurrent, state)
        return time + 1, state, _write(stores, time, (*state, *kept))

    _, state, stores = tf.while_loop(
        lambda time, *_: time < length,
        body,
        (0, state, _stores(projected, recurrence, widths)),
        maximum_iterations=length,
    )
    return tuple(store.stack() for store in stores), state


def _run_back(
    cell: Cell,
    d_outputs: Tensor,
    factors: tuple[Tensor, ...],
    recurrence: Recurrence,
    keep: Tensor | None,
    d_last: State,
) -> tuple[tuple[Tensor, ...], State]:
    """Runs back over time.

    Returns:
        What `cell.backward()` says of all steps, `(T, B, ...)`, and the gradients of
        the state before the first step, `(B, U)`.
    """
    length = tf.shape(d_outputs)[0]
    transposed_kernel = tf.transpose(recurrence.kernel)

    def body(
        time: Tensor, d_state: State, stores: tuple
    ) -> tuple[Tensor, State, tuple]:
        d_state = (d_state[0] + d_outputs[time], *d_state[1:])
        d_sums, (d_output, *d_others) = cell.backward(
            d_state, tuple(factor[time] for factor in factors)
        )
        through_product = recurrence.masked(tf.matmul(d_sums[0], transposed_kernel))
        if d_output is not None:
            through_product += d_output
        stores = _write(stores, time, d_sums)
        d_state = (through_product, *d_others)
        d_state = _begun(d_state, None if keep is None else keep[time])
        return time - 1, d_state, stores

    _, d_state, stores = tf.while_loop(
        lambda time, *_: time >= 0,
        body,
        (length - 1, d_last, _stores(factors[0], recurrence, cell.sums_widths)),
        maximum_iterations=length,
    )
    return tuple(store.stack() for store in stores), d_state


def _begun(state: State, keep: Tensor | None) -> State:
    """A state, or its gradients, with zeros where it is not kept."""
    return state if keep is None else tuple(part * keep for part in state)


def _d_weights(
    recurrence: Recurrence, previous_outputs: Tensor, d_recurrent: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of the kernel and, if there is one, the bias."""
    inputs = _rows(recurrence.masked(previous_outputs))
    d_kernel = tf.matmul(inputs, _rows(d_recurrent), transpose_a=True)
    if recurrence.bias is None:
        return (d_kernel,)
    return d_kernel, tf.reduce_sum(d_recurrent, axis=(0, 1))


def _stores(like: Tensor, recurrence: Recurrence, widths: tuple[int, ...]) -> tuple:
    """Room for a tensor of each width, in units, for every step of `like`."""
    # The element shape must be known before the first write where nothing is written.
    batch_size, units = like.shape[1], recurrence.kernel.shape[0]
    return tuple(
        tf.TensorArray(
            like.dtype, tf.shape(like)[0], element_shape=[batch_size, width * units]
        )
        for width in widths
    )


def _write(stores: tuple, time: Tensor, values: tuple[Tensor, ...]) -> tuple:
    """Writes as many values as there are stores."""
    return tuple(
        store.write(time, value) for store, value in zip(stores, values, strict=False)
    )


def _rows(x: Tensor) -> Tensor:
    """`(T, B, D)` as `(T * B, D)`."""
    return tf.reshape(x, [-1, x.shape[-1]])
