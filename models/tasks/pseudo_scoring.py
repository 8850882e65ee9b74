"""What masked language models say of documents of any length, in bounded memory.

A document longer than the context is read in the windows of `both_ways`.

A pseudo-log-likelihood is the sum over the tokens of a text of the log-probability of
each where it alone is hidden. It is no logarithm of a probability of the text, and so
no length of a code of it.

References:
    - [Salazar et al., 2020](https://arxiv.org/abs/1910.14659)
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..backbone import require
from .both_ways import told_windows
from .scoring import ScoreFunction, checked_stride, of_texts
from .windows import Chunk, Inputs, Windows, map_windows


def token_log_probabilities(
    model: Any, documents: tf.RaggedTensor, *, stride: int
) -> tf.RaggedTensor:
    """Natural logarithm of the probability of every token where it alone is hidden.

    Args:
        model: a `MaskedLM`.
        documents: int32 `[b, (t + 2)]`: `<s> ... </s>`.
        stride: int in [1, context length]. Distance between windows.

    Returns:
        float32 `[b, (t)]`.
    """
    ids, lengths = documents.flat_values, documents.row_lengths()
    mask_id = int(model.preprocessor.tokenizer.mask_token_id)
    told = told_windows(documents, model.context_length, stride)
    # A window for each token that one tells.
    count = told.last - told.first
    window = tf.repeat(tf.range(tf.size(count, tf.int64)), count)
    column = tf.ragged.range(told.first, told.last).flat_values
    begin, length = (
        tf.gather(part, window) for part in (told.windows.begin, told.windows.length)
    )
    document = tf.gather(documents.value_rowids(), begin)
    place = begin + column - tf.gather(documents.row_starts(), document)
    is_token = (place > 0) & (place < tf.gather(lengths, document) - 1)
    begin, length, column = (part[is_token] for part in (begin, length, column))

    def of_chunk(features: Inputs, chunk: Chunk) -> tuple[tf.Tensor, ...]:
        at = tf.gather(column, chunk.rows)  # [c]
        token_ids = features["token_ids"]
        is_hidden = tf.range(tf.shape(token_ids, tf.int64)[1]) == at[:, tf.newaxis]
        hidden = {**features, "token_ids": tf.where(is_hidden, mask_id, token_ids)}
        states = tf.gather(model.hidden_states(hidden), at, axis=1, batch_dims=1)
        target = tf.gather(token_ids, at, axis=1, batch_dims=1)
        return chunk.rows, log_probability(model.logits(states), target)

    specs = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.float32))
    windows = Windows(ids, begin, length)
    rows, scores = map_windows(model, windows, of_chunk, specs)
    scores = tf.gather(scores, tf.argsort(rows))
    return tf.RaggedTensor.from_row_lengths(scores, lengths - 2, validate=False)


def log_probability(logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """That of tokens, int32 `[m]`, by logits `[m, v]`: float32 `[m]`."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)


def score_texts(model: Any, texts: Any, *, stride: int | None = None) -> Any:
    """See `MaskedLM.score`."""
    stride = checked_stride(model, stride)
    require(stride > 0, "`stride` must be above 0 for a masked model.", stride=stride)
    scores = ScoreFunction.of(
        model,
        "score_function",
        (stride,),
        lambda documents: token_log_probabilities(model, documents, stride=stride),
    )
    return of_texts(model, texts, scores)
