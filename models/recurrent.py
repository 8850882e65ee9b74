"""The LSTM language model, on an LSTM layer that is fast without cuDNN."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from .backbone import Cache, CausalBackbone, Tensor, normal_initializer, token_inputs

_EPSILON = 1e-6


@keras.saving.register_keras_serializable(package="langzoo")
class LSTM(keras.layers.Layer):
    """A long short-term memory layer over whole sequences.

    The same function as `keras.layers.LSTM(units, return_sequences=True)`, with the
    same weights in the same layout (gates in the order input, forget, cell, output),
    but with everything that does not depend on the previous step taken out of the
    time loop: the input projection is one matrix product, and so is the gradient of
    the recurrent kernel. Each step is left with one matrix product in each direction.

    Args:
        units: int. Width of the output and of the state.
        kernel_initializer: initializer of the input kernel. Defaults to
            `"glorot_uniform"`.
        recurrent_initializer: initializer of the recurrent kernel. Defaults to
            `"orthogonal"`.
        unit_forget_bias: bool. Whether the forget gate's bias starts at 1. Defaults
            to `True`.

    Call arguments:
        inputs: tensor of shape `(batch_size, sequence_length, input_dim)`.
        training: bool. Whether to keep what the fast gradient needs. Without it the
            gradient is TensorFlow's own, of a plain loop.

    Returns:
        A tensor of shape `(batch_size, sequence_length, units)`.

    Example:
    ```python
    outputs = LSTM(8)(np.ones((2, 5, 3), "float32"))
    assert outputs.shape == (2, 5, 8)
    ```

    References:
        - [Hochreiter and Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
        - [Appleyard et al., 2016](https://arxiv.org/abs/1604.01946) (what to hoist)
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.unit_forget_bias = unit_forget_bias

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], 4 * self.units),
            initializer=self.kernel_initializer,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, 4 * self.units),
            initializer=self._initial_recurrent_kernel,
        )
        self.bias = self.add_weight(
            name="bias", shape=(4 * self.units,), initializer=self._initial_bias
        )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        projected = self._project(ops.swapaxes(inputs, 0, 1))  # (T, B, 4U)
        recurrent_kernel = self._in_compute_dtype(self.recurrent_kernel)
        state = ops.zeros((ops.shape(inputs)[0], self.units), projected.dtype)
        if training:
            outputs = _outputs_with_fast_gradient(
                projected, recurrent_kernel, state, state
            )
        else:
            outputs, *_ = _run(projected, recurrent_kernel, state, state)
        return ops.swapaxes(outputs, 0, 1)

    def step(self, inputs: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """Consumes one position.

        Args:
            inputs: tensor of shape `(batch_size, input_dim)`.
            state: the pair of output and cell state, each `(batch_size, units)`.

        Returns:
            The output `(batch_size, units)` and the next state.
        """
        output, cell = state
        recurrent_kernel = self._in_compute_dtype(self.recurrent_kernel)
        sums = self._project(inputs) + tf.matmul(output, recurrent_kernel)
        output, cell, _ = _cell(sums, cell)
        return output, (output, cell)

    def _project(self, inputs: Tensor) -> Tensor:
        kernel = self._in_compute_dtype(self.kernel)
        return ops.matmul(inputs, kernel) + self._in_compute_dtype(self.bias)

    def _in_compute_dtype(self, weight: Any) -> Tensor:
        # Keras casts weights only inside `call()`.
        return ops.cast(weight, self.compute_dtype)

    def _initial_recurrent_kernel(
        self, shape: tuple[int, ...], dtype: Any = None
    ) -> Tensor:
        # TensorFlow has no orthogonal matrices in bfloat16.
        return ops.cast(self.recurrent_initializer(shape, "float32"), dtype)

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        forget = ops.full((self.units,), float(self.unit_forget_bias), dtype)
        others = ops.zeros((self.units,), dtype)
        return ops.concatenate([others, forget, others, others])

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
            "unit_forget_bias": self.unit_forget_bias,
        }


def _cell(sums: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step from the gates' sums `(B, 4U)`: output, cell state and gates."""
    input_forget, candidate, output_gate = tf.split(sums, _gate_widths(sums), axis=-1)
    input_forget = tf.sigmoid(input_forget)
    candidate = tf.tanh(candidate)
    output_gate = tf.sigmoid(output_gate)
    input_gate, forget_gate = tf.split(input_forget, 2, axis=-1)
    cell = forget_gate * cell + input_gate * candidate
    gates = tf.concat([input_forget, candidate, output_gate], axis=-1)
    return output_gate * tf.tanh(cell), cell, gates


def _gate_widths(sums: Tensor) -> list[int]:
    units = sums.shape[-1] // 4
    return [2 * units, units, units]


def _run(
    projected: Tensor,
    recurrent_kernel: Tensor,
    output: Tensor,
    cell: Tensor,
    keep: bool = False,
) -> tuple[Tensor, ...]:
    """Runs over time.

    Args:
        projected: inputs times kernel plus bias, `(T, B, 4U)`.
        recurrent_kernel: `(U, 4U)`.
        output: output before the first step, `(B, U)`.
        cell: cell state before the first step, `(B, U)`.
        keep: whether to return the gates and cell states too.

    Returns:
        The outputs `(T, B, U)` and, if kept, the gates `(T, B, 4U)` and the cell
        states `(T, B, U)`.
    """
    length = tf.shape(projected)[0]
    # The element shape must be known before the first write where nothing is written.
    widths = [1, 4, 1] if keep else [1]
    stores = tuple(
        tf.TensorArray(
            projected.dtype,
            length,
            element_shape=[*output.shape[:-1], width * output.shape[-1]],
        )
        for width in widths
    )

    def body(
        time: Tensor, output: Tensor, cell: Tensor, stores: tuple
    ) -> tuple[Tensor, Tensor, Tensor, tuple]:
        sums = projected[time] + tf.matmul(output, recurrent_kernel)
        output, cell, gates = _cell(sums, cell)
        kept = (output, gates, cell)[: len(stores)]
        stores = tuple(
            store.write(time, value) for store, value in zip(stores, kept, strict=True)
        )
        return time + 1, output, cell, stores

    *_, stores = tf.while_loop(
        lambda time, *_: time < length,
        body,
        (0, output, cell, stores),
        maximum_iterations=length,
    )
    return tuple(store.stack() for store in stores)


@tf.custom_gradient
def _outputs_with_fast_gradient(
    projected: Tensor, recurrent_kernel: Tensor, output: Tensor, cell: Tensor
) -> tuple[Tensor, Any]:
    """The outputs of `_run`, with a gradient that has one product a step."""
    outputs, gates, cells = _run(projected, recurrent_kernel, output, cell, keep=True)

    def gradient(d_outputs: Tensor) -> tuple[Tensor, ...]:
        previous_cells = tf.concat([cell[None], cells[:-1]], axis=0)
        to_sums, to_cell, forget_gates = _factors(gates, cells, previous_cells)
        d_sums, d_cell = _run_back(
            d_outputs, to_sums, to_cell, forget_gates, tf.transpose(recurrent_kernel)
        )
        previous_outputs = tf.concat([output[None], outputs[:-1]], axis=0)
        d_recurrent_kernel = tf.matmul(
            _rows(previous_outputs), _rows(d_sums), transpose_a=True
        )
        d_output = tf.matmul(d_sums[0], recurrent_kernel, transpose_b=True)
        return d_sums, d_recurrent_kernel, d_output, d_cell

    return outputs, gradient


def _factors(
    gates: Tensor, cells: Tensor, previous_cells: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The element-wise factors of the chain rule, for all steps at once.

    Returns:
        What the gates' sums take of the gradients of the cell state (three times) and
        of the output, `(T, B, 4U)`; what the cell state takes of the output's
        gradient, `(T, B, U)`; and the forget gates, `(T, B, U)`.
    """
    i, f, g, o = tf.split(gates, 4, axis=-1)
    squashed = tf.tanh(cells)
    to_sums = tf.concat(
        [
            g * i * (1 - i),
            previous_cells * f * (1 - f),
            i * (1 - g * g),
            squashed * o * (1 - o),
        ],
        axis=-1,
    )
    return to_sums, o * (1 - squashed * squashed), f


def _run_back(
    d_outputs: Tensor,
    to_sums: Tensor,
    to_cell: Tensor,
    forget_gates: Tensor,
    transposed_kernel: Tensor,
) -> tuple[Tensor, Tensor]:
    """Runs back over time.

    Args:
        d_outputs: gradient of the outputs, `(T, B, U)`.
        to_sums, to_cell, forget_gates: what `_factors` returned.
        transposed_kernel: the recurrent kernel, transposed, `(4U, U)`.

    Returns:
        The gradients of the gates' sums, `(T, B, 4U)`, and of the cell state before
        the first step, `(B, U)`.
    """
    length = tf.shape(d_outputs)[0]
    store = tf.TensorArray(to_sums.dtype, length, element_shape=to_sums.shape[1:])

    def body(
        time: Tensor, d_sums: Tensor, d_cell: Tensor, store: Any
    ) -> tuple[Tensor, Tensor, Tensor, Any]:
        d_output = d_outputs[time] + tf.matmul(d_sums, transposed_kernel)
        d_cell = d_cell + d_output * to_cell[time]
        d_sums = tf.concat([d_cell, d_cell, d_cell, d_output], -1) * to_sums[time]
        return (
            time - 1,
            d_sums,
            d_cell * forget_gates[time],
            store.write(time, d_sums),
        )

    _, _, d_cell, store = tf.while_loop(
        lambda time, *_: time >= 0,
        body,
        (
            length - 1,
            tf.zeros_like(to_sums[0]),
            tf.zeros_like(to_cell[0]),
            store,
        ),
        maximum_iterations=length,
    )
    return store.stack(), d_cell


def _rows(x: Tensor) -> Tensor:
    """`(T, B, D)` as `(T * B, D)`."""
    return tf.reshape(x, [-1, x.shape[-1]])


@keras.saving.register_keras_serializable(package="langzoo")
class LSTMBackbone(CausalBackbone):
    """A stack of LSTM layers over tied embeddings.

    RMSNorm before every layer and after the last departs from the references: with
    embeddings that are tied, and so begin small, it makes the first steps count.

    Args:
        vocabulary_size: int. Number of token ids.
        num_layers: int. LSTM layers. Defaults to 1.
        hidden_dim: int. Width of the embeddings and of every layer. Defaults to 256.
        dropout: float. Dropout on the embeddings and on the output of every layer.
            Defaults to 0.
        max_sequence_length: int. Longest input that the model is made for; no weight
            depends on it. Defaults to 128.
        dtype: string or `keras.DTypePolicy`. Of computations and weights.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, hidden_dim)`.

    Example:
    ```python
    backbone = LSTMBackbone(vocabulary_size=260, num_layers=2)
    hidden_states = backbone(
        {
            "token_ids": np.ones((1, 12), "int32"),
            "padding_mask": np.ones((1, 12), "bool"),
        }
    )
    ```

    References:
        - [Sundermeyer et al., 2012](https://doi.org/10.21437/Interspeech.2012-65)
        - [Zaremba et al., 2014](https://arxiv.org/abs/1409.2329) (where to drop out)
        - [Press and Wolf, 2016](https://arxiv.org/abs/1608.05859) (tied embeddings)
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int = 1,
        hidden_dim: int = 256,
        dropout: float = 0.0,
        max_sequence_length: int = 128,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.token_embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer=normal_initializer(),
            dtype=dtype,
            name="token_embedding",
        )
        self.dropout_layer = keras.layers.Dropout(dropout, dtype=dtype, name="dropout")
        self.norms = [
            keras.layers.RMSNormalization(
                epsilon=_EPSILON, dtype=dtype, name=f"norm_{i}"
            )
            for i in range(num_layers)
        ]
        self.lstm_layers = [
            LSTM(hidden_dim, dtype=dtype, name=f"lstm_{i}") for i in range(num_layers)
        ]
        self.final_norm = keras.layers.RMSNormalization(
            epsilon=_EPSILON, dtype=dtype, name="final_norm"
        )

        # === Functional Model ===
        inputs = token_inputs()
        x = self.dropout_layer(self.token_embedding(inputs["token_ids"]))
        for norm, layer in zip(self.norms, self.lstm_layers, strict=True):
            x = self.dropout_layer(layer(norm(x)))
        super().__init__(
            inputs=inputs, outputs=self.final_norm(x), dtype=dtype, **kwargs
        )

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """The state of each layer.

        Returns:
            A tuple of pairs (output, cell state), each `(batch_size, hidden_dim)`.
        """
        zeros = ops.zeros((batch_size, self.hidden_dim), self.compute_dtype)
        return tuple((zeros, zeros) for _ in self.lstm_layers)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        x = self.token_embedding(token_ids[:, 0])
        states = []
        for norm, layer, state in zip(self.norms, self.lstm_layers, cache, strict=True):
            x, state = layer.step(norm(x), state)
            states.append(state)
        return self.final_norm(x)[:, None], tuple(states)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout,
            "max_sequence_length": self.max_sequence_length,
        }
