"""The logits of a step of generation, from weights laid out for it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...models.families import family_of_model
from ...models.tasks.causal_lm import CausalLM

_BLOCK = 64
# With fewer tokens the product is too small to gain.
_MIN_VOCABULARY = 2048


class OutputProjection:
    """A causal model's output weights, in blocks of tokens.

    A step of generation multiplies a few states by a large matrix. On a CPU such a
    product copies the matrix into another layout first, each time anew, which takes
    longer than the product itself. Here the layout is made once, for the price of a
    second copy of the output weights in an export: with up to 32 rows the product of
    2,000 to 32,000 tokens is then 1.5 to 4 times as fast.

    Args:
        model: a model that `is_worth_it()` for.

    Attributes:
        weights: variable `[blocks, hidden_dim, _BLOCK]`, of the model's compute dtype;
            tokens that fill up the last block have zeros.
    """

    def __init__(self, model: CausalLM) -> None:
        embedding = model.backbone.token_embedding
        if embedding.tie_weights:
            kernel = np.transpose(keras.ops.convert_to_numpy(embedding.embeddings))
        else:
            kernel = keras.ops.convert_to_numpy(embedding.reverse_embeddings)
        self._finish = model.backbone.finish_logits
        dim, self._size = kernel.shape
        kernel = np.pad(kernel, [[0, 0], [0, -self._size % _BLOCK]])
        blocks = kernel.reshape(dim, -1, _BLOCK).transpose(1, 0, 2)
        self.weights = tf.Variable(
            tf.cast(blocks, embedding.compute_dtype),
            trainable=False,
            name="output_projection",
        )

    @staticmethod
    def is_worth_it(model: Any) -> bool:
        """Whether a model's logits are such a product, and a large one."""
        return (
            family_of_model(model).multiplies_output_weights
            and model.backbone.vocabulary_size >= _MIN_VOCABULARY
        )

    def __call__(self, hidden_states: tf.Tensor) -> tf.Tensor:
        """float32 logits `[b, 1, vocabulary]` of hidden states `[b, 1, hidden_dim]`."""
        logits = tf.raw_ops.BatchMatMulV2(x=hidden_states[:, 0], y=self.weights)
        logits = tf.transpose(logits, [1, 0, 2])  # (blocks, b, _BLOCK) before
        logits = tf.reshape(logits, [-1, 1, self.weights.shape[0] * _BLOCK])
        return self._finish(logits[..., : self._size])
