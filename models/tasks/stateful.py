"""Training that goes on from batch to batch.

A backbone can be trained so if its cache has one shape whatever the length, and it has
a method

    call_with_state(token_ids, state, training=None)

that returns the hidden states `(batch_size, sequence_length, hidden_dim)` of int32
tokens `(batch_size, sequence_length)` after a state, and the next state.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ..backbone import Cache, CausalBackbone, Tensor, require
from .packed import PackedNetwork


class StatefulNetwork(keras.Model):
    """A recurrent language model that goes on where its last batch ended.

    Row `i` of a batch is taken for the continuation of row `i` of the batch before:
    the layers begin with the states that they ended with, and no gradient flows back
    into the batch before (truncated backpropagation through time). The weights are
    the backbone's, so training this network trains every model with that backbone;
    those models stay without memory of earlier calls.

    Training and evaluation have states of their own. They are forgotten at the end of
    every epoch of `fit()`, around every `evaluate()`, and by `reset_state()`.

    Args:
        backbone: a backbone that has such a state.
        batch_size: int. Rows of every batch.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and, not read, `padding_mask` (bool),
            both `(batch_size, sequence_length)`. The output is float32 logits
            `(batch_size, sequence_length, vocabulary_size)`.
        training: bool. Whether to drop out, and which of the states to go on from.

    Example:
    ```python
    x, y, sample_weight = contiguous_windows(token_ids, 4, sequence_length=16)
    network = StatefulNetwork(model.backbone, batch_size=4)
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    network.compile(optimizer="adam", loss=loss)
    network.fit(x, y, batch_size=4, sample_weight=sample_weight, shuffle=False)
    ```

    References:
        - [Mikolov et al., 2010](https://doi.org/10.21437/Interspeech.2010-343)
    """

    def __init__(
        self, backbone: CausalBackbone, batch_size: int, **kwargs: Any
    ) -> None:
        super().__init__(dtype=backbone.dtype_policy, **kwargs)
        self.backbone = backbone
        self.batch_size = batch_size
        self.training_state = self._new_state("training_state")
        self.evaluation_state = self._new_state("evaluation_state")
        # Else `compile()` by default has XLA compile the step, and cuDNN is not called.
        self.supports_jit = not trains_on_cudnn(self)
        self.built = True

    def _new_state(self, name: str) -> list[keras.Variable]:
        return [
            self.add_weight(
                name=f"{name}_{i}",
                shape=zeros.shape,
                initializer="zeros",
                dtype=zeros.dtype,
                trainable=False,
            )
            for i, zeros in enumerate(keras.tree.flatten(self._empty_state()))
        ]

    def _empty_state(self) -> Cache:
        return self.backbone.empty_cache(self.batch_size, 0)

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        variables = self.training_state if training else self.evaluation_state
        values = [ops.convert_to_tensor(variable) for variable in variables]
        # (B, T, D)
        hidden_states, state = self.backbone.call_with_state(
            self._with_known_rows(inputs["token_ids"]),
            keras.tree.pack_sequence_as(self._empty_state(), values),
            training,
        )
        for variable, value in zip(variables, keras.tree.flatten(state), strict=True):
            variable.assign(value)
        return self.backbone.logits(hidden_states)  # (B, T, V)

    def _with_known_rows(self, token_ids: Tensor) -> Tensor:
        require(
            token_ids.shape[0] in (None, self.batch_size),
            f"Every batch must have `batch_size` rows, {self.batch_size}.",
            shape=tuple(token_ids.shape),
        )
        return ops.reshape(token_ids, (self.batch_size, ops.shape(token_ids)[1]))

    def reset_state(self) -> None:
        """Forgets what was read, in training and in evaluation."""
        _forget(self.training_state)
        _forget(self.evaluation_state)

    def fit(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """`keras.Model.fit`, for batches that continue each other: do not shuffle."""
        callbacks = [*(callbacks or []), _ForgetBetweenReadings()]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    def evaluate(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`, for batches that continue each other."""
        # Within `fit()`, Keras hands on its own list, and ours is in it.
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [*(callbacks or []), _ForgetBetweenReadings()]
        return super().evaluate(*args, callbacks=callbacks, **kwargs)


def trains_on_cudnn(network: keras.Model) -> bool:
    """Whether the training step of a network calls cuDNN, if XLA does not compile it.

    Args:
        network: a model with a backbone among its `layers`.
    """
    # What begins anew within a row is not for cuDNN.
    return not isinstance(network, PackedNetwork) and any(
        getattr(layer, "trains_on_cudnn", False) for layer in network.layers
    )


def contiguous_windows(
    token_ids: np.ndarray, batch_size: int, sequence_length: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Cuts a text into windows that a `StatefulNetwork` reads batch after batch.

    The windows are dealt out to the rows of a batch in equal runs, so that row `i`
    goes on where row `i` of the batch before ended. Every token but the first is a
    target once; what the last rows lack is padding of weight zero.

    Args:
        token_ids: integer array `(num_tokens,)`.
        batch_size: int. Rows of a batch.
        sequence_length: int. Tokens of a window.

    Returns:
        A tuple `(x, y, sample_weight)` for `fit()` with this `batch_size` and without
        shuffling. All are `(num_batches * batch_size, sequence_length)`.
    """
    num_windows = -(-(len(token_ids) - 1) // sequence_length)
    steps = -(-num_windows // batch_size)
    window = np.arange(steps)[:, None] + np.arange(batch_size) * steps
    position = window.reshape(-1, 1) * sequence_length + np.arange(sequence_length + 1)
    inside = position < len(token_ids)
    ids = np.where(inside, np.take(token_ids, position, mode="clip"), 0)
    x = {"token_ids": ids[:, :-1], "padding_mask": inside[:, :-1]}
    return x, ids[:, 1:], inside[:, 1:].astype("float32")


class _ForgetBetweenReadings(keras.callbacks.Callback):
    """Makes every epoch and every evaluation begin without a past."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # Not when an epoch begins: a training that goes on from a checkpoint goes on
        # with its state.
        self.model.reset_state()

    def on_test_begin(self, logs: Any = None) -> None:
        _forget(self.model.evaluation_state)

    def on_test_end(self, logs: Any = None) -> None:
        _forget(self.model.evaluation_state)


def _forget(variables: list[keras.Variable]) -> None:
    for variable in variables:
        variable.assign(ops.zeros_like(variable))
