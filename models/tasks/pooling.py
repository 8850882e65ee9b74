"""One vector of all hidden states of a text."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..backbone import Tensor, require
from .classifying import POOLINGS


@keras.saving.register_keras_serializable(package="langzoo")
class Pooling(keras.layers.Layer):
    """A vector for each text: of its first state, its last, their mean, or a choice.

    Args:
        pooling: one of `POOLINGS`: `"mean"`, of all tokens alike; `"last"` and
            `"first"`, of that token; `"attention"`, a mean by weights that a learned
            query gives the tokens.

    Call arguments:
        states: tensor of shape `(batch_size, sequence_length, hidden_dim)`.
        padding_mask: bool tensor of shape `(batch_size, sequence_length)`, true for
            tokens, of which each row has one.

    Returns:
        A tensor of shape `(batch_size, hidden_dim)`.

    References:
        - [Yang et al., 2016](https://aclanthology.org/N16-1174/) (attention)
    """

    def __init__(self, pooling: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require(
            pooling in POOLINGS,
            f"`pooling` must be one of {', '.join(POOLINGS)}.",
            pooling=pooling,
        )
        self.pooling = pooling

    def build(self, states_shape: Any, *_: Any) -> None:
        if self.pooling == "attention":
            self.query = self.add_weight(
                shape=(states_shape[-1],), initializer="zeros", name="query"
            )

    def call(self, states: Tensor, padding_mask: Tensor) -> Tensor:
        weights = self._weights(states, padding_mask)  # (B, T)
        return ops.einsum("bt,btd->bd", ops.cast(weights, states.dtype), states)

    def _weights(self, states: Tensor, padding_mask: Tensor) -> Tensor:
        inside = ops.cast(padding_mask, "float32")
        if self.pooling == "attention":
            scores = ops.cast(ops.einsum("btd,d->bt", states, self.query), "float32")
            return ops.softmax(ops.where(padding_mask, scores, -1e9), axis=-1)
        length = ops.sum(inside, axis=-1, keepdims=True)  # (B, 1)
        if self.pooling == "mean":
            return inside / ops.maximum(length, 1)
        column = ops.arange(ops.shape(inside)[1], dtype="float32")  # (T,)
        wanted = 0.0 if self.pooling == "first" else length - 1
        return ops.cast(ops.equal(column[None], wanted), "float32") * inside

    def compute_output_shape(self, states_shape: Any, *_: Any) -> Any:
        return states_shape[0], states_shape[-1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pooling": self.pooling}
