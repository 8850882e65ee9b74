"""Recurrent layers that read both ways, and a decoder that attends.

In shapes: B sources of S tokens; N targets of T, N a multiple of B, each source's
targets in a row; E width of the embeddings, U `hidden_dim`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras import ops

from ...backbone import Tensor, built
from ...encoder_decoder import by_source
from ..recurrent.layers import GRU, LSTM, RecurrentLayer, SimpleRNN
from ..source_attention import dot_weights, seen, weights_of
from .family import RecurrentEncoderDecoderSettings

CELLS: dict[str, type[RecurrentLayer]] = {"rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}
_EPSILON = 1e-6


class Memory(NamedTuple):
    """What a decoder sees of sources.

    Attributes:
        padding_mask: bool tensor of shape `(B, S)`, false where there is padding.
        keys: tensor of shape `(B, S, U)`, what it is compared with.
        values: tensor of shape `(B, S, U)`, the encoder's states.
        start: tensor of shape `(B, states * U)`, the states that it begins with.
    """

    padding_mask: Tensor
    keys: Tensor
    values: Tensor
    start: Tensor


class BothWays(keras.layers.Layer):
    """A recurrent layer from the beginning on, and one from the end of what is real.

    Args:
        forward: a `RecurrentLayer`.
        backward: one of the same width.

    Call arguments:
        x: tensor of shape `(B, S, input_dim)`.
        padding_mask: bool tensor of shape `(B, S)`, false where there is padding, which
            is on the right.

    Returns:
        A tensor of shape `(B, S, 2 * units)`; it means nothing at padding.

    References:
        - [Schuster and Paliwal, 1997](https://doi.org/10.1109/78.650093)
    """

    def __init__(
        self, forward: RecurrentLayer, backward: RecurrentLayer, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.forward = forward
        self.backward = backward

    def build(self, input_shape: Any, *_: Any) -> None:
        built(self.forward, input_shape[-1])
        built(self.backward, input_shape[-1])
        self.built = True

    def call(
        self, x: Tensor, padding_mask: Tensor, training: bool | None = None
    ) -> Tensor:
        lengths = ops.sum(ops.cast(padding_mask, "int32"), axis=1)  # (B,)
        turned = tf.reverse_sequence(x, lengths, seq_axis=1)
        turned = self.backward(turned, training=training)  # (B, S, U / 2)
        backward = tf.reverse_sequence(turned, lengths, seq_axis=1)
        return ops.concatenate([self.forward(x, training=training), backward], axis=-1)

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return (*input_shape[:-1], 2 * self.forward.units)


class AttentiveDecoder(keras.layers.Layer):
    """A stack of recurrent layers whose last outputs attend to a source.

    With the last output `h` and what it sees, `c`, the state is
    `norm(tanh([c, h] W))`. An RMSNorm is before every layer, too.

    Args:
        settings: resolved.

    Call arguments:
        x: tensor of shape `(B, T, E)`, embeddings.
        states: tensor of shape `(B, S, U)`, the encoder's.
        padding_mask: bool tensor of shape `(B, S)`, false where there is padding.

    Returns:
        A tensor of shape `(B, T, E)`.

    References:
        - [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473) (additive attention)
        - [Luong et al., 2015](https://arxiv.org/abs/1508.04025) (multiplicative
          attention, what is made of it, input feeding)
    """

    def __init__(
        self, settings: RecurrentEncoderDecoderSettings, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        dtype = self.dtype_policy
        numbers = range(settings.depths[1])
        units, layer_cls = settings.hidden_dim, CELLS[settings.cell]
        self.layers = [
            layer_cls(units, dtype=dtype, name=f"recurrent_{i}") for i in numbers
        ]
        self.norms = [make_norm(f"norm_{i}", dtype) for i in numbers]
        self.dropout = keras.layers.Dropout(
            settings.dropout, dtype=dtype, name="dropout"
        )
        self.start = keras.layers.Dense(
            len(numbers) * self.layers[0].cell.num_states * units,
            activation="tanh",
            dtype=dtype,
            name="start",
        )
        self.key = keras.layers.Dense(units, use_bias=False, dtype=dtype, name="key")
        self.is_additive = settings.attention == "additive"
        self.query = keras.layers.Identity(dtype=dtype, name="query")
        if self.is_additive:
            self.query = keras.layers.Dense(
                units, use_bias=False, dtype=dtype, name="query"
            )
        self.combine = keras.layers.Dense(
            settings.width, "tanh", use_bias=False, dtype=dtype, name="combine"
        )
        self.final_norm = make_norm("final_norm", dtype)

    def build(self, *_: Any) -> None:
        units = self.settings.hidden_dim
        inputs = self.settings.decoder_inputs
        for width, norm, layer in zip(inputs, self.norms, self.layers, strict=True):
            built(norm, width)
            built(layer, width)
        built(self.start, units // 2)
        for layer in (self.key, self.query):
            built(layer, units)
        if self.is_additive:
            self.score = self.add_weight(
                shape=(units,), initializer="random_normal", name="score"
            )
        built(self.combine, 2 * units)
        built(self.final_norm, self.settings.width)
        self.built = True

    def call(
        self,
        x: Tensor,
        states: Tensor,
        padding_mask: Tensor,
        training: bool | None = None,
    ) -> Tensor:
        memory = self.memory_of(states, padding_mask)
        first = self.first_states(ops.shape(x)[0], memory)
        x = self.dropout(x, training=training)  # (B, T, E)
        run = self._run_fed if self.settings.input_feeding else self._run
        return run(x, first, memory, training)

    def memory_of(self, states: Tensor, padding_mask: Tensor) -> Memory:
        """What it sees of sources, of the encoder's states `(B, S, U)`."""
        # What the way back knows at the first token, it knows of all of them.
        whole = states[:, 0, self.settings.hidden_dim // 2 :]  # (B, U / 2)
        return Memory(padding_mask, self.key(states), states, self.start(whole))

    def first_states(self, batch_size: Tensor, memory: Memory) -> list[Tensor]:
        """The states of all layers before any token, each `(N, U)`.

        With input feeding what was seen last is behind them, `(N, E)`: zeros.
        """
        rows = ops.maximum(ops.shape(memory.start)[0], 1)
        start = ops.repeat(memory.start, batch_size // rows, axis=0)
        units = self.settings.hidden_dim
        start = ops.reshape(start, (batch_size, self.start.units))
        states = ops.split(start, self.start.units // units, axis=-1)
        if not self.settings.input_feeding:
            return states
        fed = ops.zeros((batch_size, self.settings.width), self.compute_dtype)
        return [*states, fed]

    def step(
        self,
        x: Tensor,
        states: list[Tensor],
        memory: Memory,
        masks: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Consumes one position.

        Args:
            x: tensor of shape `(N, E)`.
            states: what `first_states()` or this method returned.
            memory: what `memory_of()` returned.
            masks: what the outputs of layers are multiplied with, each `(N, U)`.

        Returns:
            The output `(N, E)`, and the next states.
        """
        if self.settings.input_feeding:
            x = ops.concatenate([x, states[-1]], axis=-1)
        after: list[Tensor] = []
        number = self.layers[0].cell.num_states
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            x, state = layer.step(norm(x), tuple(states[i * number : (i + 1) * number]))
            after += state
            x = x if masks is None else x * masks[i]  # (N, U)
        x = self._look(x, memory)  # (N, E)
        return x, [*after, x] if self.settings.input_feeding else after

    def attention_weights(self, query: Tensor, memory: Memory) -> Tensor:
        """How much outputs, `(N, T, U)` or `(N, U)`, attend to each token.

        Returns:
            A tensor of shape `(B, N / B * T, S)`; the last axis sums to one.
        """
        query = self.query(query)
        if not self.is_additive:
            return dot_weights(query, memory.keys, memory.padding_mask)
        query = by_source(query, memory.keys)  # (B, R, U)
        sums = ops.tanh(query[:, :, None] + memory.keys[:, None])  # (B, R, S, U)
        score = ops.cast(self.score, sums.dtype)  # (U,)
        # Of a product of a tensor and a vector, XLA cannot do the gradient in a loop.
        scores = ops.einsum("brsu,u->brs", sums, score)
        return weights_of(scores, memory.padding_mask)

    def _look(self, x: Tensor, memory: Memory) -> Tensor:
        """The states, `(N, T, E)` or `(N, E)`, of the last layer's outputs."""
        context = seen(self.attention_weights(x, memory), memory.values, x)
        return self.final_norm(self.combine(ops.concatenate([context, x], axis=-1)))

    def _run(
        self, x: Tensor, states: list[Tensor], memory: Memory, training: bool | None
    ) -> Tensor:
        number = self.layers[0].cell.num_states
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            state = tuple(states[i * number : (i + 1) * number])
            x, _ = layer.run(norm(x), state, training)  # (B, T, U)
            x = self.dropout(x, training=training)
        return self._look(x, memory)  # (B, T, E)

    def _run_fed(
        self, x: Tensor, states: list[Tensor], memory: Memory, training: bool | None
    ) -> Tensor:
        rows, units = ops.shape(x)[0], self.settings.hidden_dim
        masks = None
        if training and self.settings.dropout:
            # The same for all positions.
            ones = ops.ones((rows, units), self.compute_dtype)
            masks = [self.dropout(ones, training=True) for _ in self.layers]
        columns = ops.swapaxes(x, 0, 1)  # (T, B, E)
        length = tf.shape(columns)[0]
        written = tf.TensorArray(x.dtype, length, element_shape=(None, x.shape[-1]))

        def body(time: Tensor, states: list[Tensor], written: Any) -> tuple[Any, ...]:
            output, states = self.step(columns[time], states, memory, masks)
            return time + 1, states, written.write(time, output)

        _, _, written = tf.while_loop(
            lambda time, *_: time < length,
            body,
            (0, states, written),
            maximum_iterations=length,
        )
        return ops.swapaxes(written.stack(), 0, 1)  # (B, T, E)

    def compute_output_shape(self, x_shape: Any, *_: Any) -> Any:
        return (*x_shape[:-1], self.settings.width)


def make_norm(name: str, dtype: Any) -> keras.layers.Layer:
    """A normalization."""
    return keras.layers.RMSNormalization(epsilon=_EPSILON, dtype=dtype, name=name)
