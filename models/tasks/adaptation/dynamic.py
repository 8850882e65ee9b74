"""Scores of a model that goes on learning from what it has scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...backbone import require
from .settings import DynamicEvaluation

_CLIP_NORM = 1.0


class _Segment(NamedTuple):
    """Columns `begin` to `end` of a document, the first `seen` of them for context."""

    begin: int
    end: int
    seen: int


class DynamicScores:
    """As `token_log_probabilities` of a model, with a gradient step after each segment.

    Each token has the context that it has there, so that with a learning rate of 0 the
    numbers are the same. Every document begins with the weights that the model has when
    this is made, and they are the model's again afterwards.

    Args:
        model: a `CausalLM` that learns by gradient.
        settings: how it learns.
        stride: as of `token_log_probabilities`.

    Call arguments:
        documents: int32 `[b, (t + 1)]`, each row at least 2 long: `<s> ... </s>`.

    Returns:
        float32 `[b, (t)]`.

    Raises:
        ValueError: if the model has no weights that learn by gradient, or the stride is
            0 and it has no state that goes on.
    """

    def __init__(self, model: Any, settings: DynamicEvaluation, *, stride: int) -> None:
        self._weights = [weight.value for weight in model.trainable_variables]
        require(
            bool(self._weights),
            "Dynamic evaluation is for models that learn by gradient.",
            model=type(model.backbone).__name__,
        )
        require(
            stride > 0 or hasattr(model.backbone, "call_with_state"),
            "A stride of 0 is for recurrent models, whose state goes on.",
            backbone=model.backbone.name,
        )
        self._trained = [tf.identity(weight) for weight in self._weights]
        self._model, self._settings, self._stride = model, settings, stride
        self._step = tf.function(self._learn, autograph=False, reduce_retracing=True)

    def __call__(self, documents: tf.RaggedTensor) -> tf.RaggedTensor:
        ids = np.split(documents.flat_values.numpy(), documents.row_splits[1:-1])
        scores = [self._score(row) for row in ids]
        flat = np.concatenate([*scores, np.zeros(0, np.float32)])
        return tf.RaggedTensor.from_row_lengths(
            flat, tf.constant([*map(len, scores)], tf.int64)
        )

    def _score(self, ids: np.ndarray) -> np.ndarray:
        """Of one document."""
        state = () if self._stride else self._model.backbone.empty_cache(1)
        scores = []
        try:
            for begin, end, seen in self._segments(len(ids) - 1):
                score, state = self._step(
                    tf.constant(ids[np.newaxis, begin : end + 1], tf.int32),
                    tf.constant(seen),
                    state,
                )
                scores.append(score.numpy())
        finally:
            for weight, trained in zip(self._weights, self._trained, strict=True):
                weight.assign(trained)
        return np.concatenate(scores)

    def _segments(self, length: int) -> Iterator[_Segment]:
        """The segments of the windows of `map_tokens`, as far as they are new."""
        size, context = self._settings.segment_length, self._model.context_length
        if not self._stride:
            for begin in range(0, length, size):
                yield _Segment(begin, min(begin + size, length), 0)
            return
        scored = offset = 0
        while scored < length:
            window_end = min(offset + context, length)
            while scored < window_end:
                end = min(scored + size, window_end)
                yield _Segment(offset, end, scored - offset)
                scored = end
            offset += self._stride

    def _learn(
        self, ids: tf.Tensor, seen: tf.Tensor, state: Any
    ) -> tuple[tf.Tensor, Any]:
        """Scores what is new of a segment, int32 `[1, t + 1]`, and learns from it."""
        model, settings = self._model, self._settings
        read, following = ids[:, :-1], ids[:, 1:]
        with tf.GradientTape() as tape:
            if self._stride:
                padding_mask = tf.ones_like(read, tf.bool)
                inputs = {"token_ids": read, "padding_mask": padding_mask}
                logits = model(inputs, training=False)
            else:
                hidden, state = model.backbone.call_with_state(
                    read, state, training=False
                )
                logits = model.backbone.logits(hidden)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                following[:, seen:], tf.cast(logits, tf.float32)[:, seen:]
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, self._weights, unconnected_gradients="zero")
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        gradients, _ = tf.clip_by_global_norm(gradients, _CLIP_NORM)
        for weight, gradient, trained in zip(
            self._weights, gradients, self._trained, strict=True
        ):
            back = settings.decay * (weight - trained)
            weight.assign_sub(settings.learning_rate * gradient + back)
        return -losses[0], state
