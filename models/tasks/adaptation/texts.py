"""Scores of texts by a model that adapts to them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..scoring import ScoreFunction, checked_stride, of_texts
from .cache import CacheInputs, cached_log_probabilities
from .dynamic import DynamicScores
from .settings import DynamicEvaluation, NeuralCache


def adapted_scores(
    model: Any,
    texts: Any,
    adapt: NeuralCache | DynamicEvaluation,
    *,
    stride: int | None = None,
) -> Any:
    """As `score_texts`, of a model that adapts to each text by itself.

    Args:
        model: a `CausalLM` with a preprocessor.
        texts: a string, a list of `b` strings, or a string tensor `[b]`.
        adapt: how.
        stride: as of `score_texts`.

    Raises:
        ValueError: as of `score_texts`, or if the model cannot adapt so.
    """
    stride = checked_stride(model, stride)
    if isinstance(adapt, DynamicEvaluation):
        return of_texts(model, texts, DynamicScores(model, adapt, stride=stride))

    def cached(documents: tf.RaggedTensor) -> tf.RaggedTensor:
        cache = CacheInputs.of(adapt, documents.nrows(tf.int32))
        return cached_log_probabilities(model, documents, cache, stride=stride)

    name, settings = "cached_score_function", (stride, adapt)
    return of_texts(model, texts, ScoreFunction.of(model, name, settings, cached))
