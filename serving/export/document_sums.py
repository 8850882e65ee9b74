"""What the signature `evaluate` says of a document: sums, of which metrics are made."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...models.tasks.scoring import TokenOutcomes, spelling_nll, token_outcomes
from .contract import CALIBRATION_BINS
from .vocabulary import Vocabulary


def document_sums(
    vocabulary: Vocabulary, text: tf.Tensor, scores: tf.RaggedTensor
) -> dict[str, tf.Tensor]:
    """What the signature `score` says of documents.

    Args:
        vocabulary: the model's.
        text: string `[b]`.
        scores: float32 `[b, (t)]`, the log-probability of every token and of `</s>`.
    """
    # A long document's float32 sum would lose digits that a gate compares.
    nll = -tf.reduce_sum(tf.cast(scores, tf.float64), axis=1)
    return {
        "nll": tf.cast(nll, tf.float32),
        "spelling_nll": spelling_nll(vocabulary.tokenizer, text),
        "tokens": scores.row_lengths(),
        "bytes": tf.cast(tf.strings.length(text), tf.int64),
        "words": tf.strings.split(text).row_lengths(),
    }


def evaluation_sums(
    model: Any, vocabulary: Vocabulary, text: tf.Tensor, stride: int
) -> dict[str, tf.Tensor]:
    """What the signature `evaluate` says of documents.

    Args:
        model: a `langzoo.models.CausalLM`.
        vocabulary: the model's.
        text: string `[b]`.
        stride: distance between the windows in which a long document is scored.
    """
    documents = vocabulary.documents(text)
    outcomes = token_outcomes(model, documents, stride=stride)
    return outcome_sums(vocabulary, text, documents, outcomes)


def outcome_sums(
    vocabulary: Vocabulary,
    text: tf.Tensor,
    documents: tf.RaggedTensor,
    outcomes: TokenOutcomes,
) -> dict[str, tf.Tensor]:
    """Those sums, by how tokens of the documents were predicted."""
    unknown = documents[:, 1:-1] == int(vocabulary.tokenizer.unk_token_id)
    characters = tf.strings.length(text, unit="UTF8_CHAR")
    return {
        **document_sums(vocabulary, text, outcomes.log_probability),
        "characters": tf.cast(characters, tf.int64),
        "unknown_tokens": _count(unknown),
        "correct_at_1": _count(outcomes.rank < 1),
        "correct_at_5": _count(outcomes.rank < 5),
        "calibration": binned(
            outcomes.confidence.flat_values,
            outcomes.rank.flat_values < 1,
            outcomes.rank.value_rowids(),
            outcomes.rank.nrows(),
        ),
    }


def _count(mask: tf.RaggedTensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.int64), axis=1)


def binned(
    confidence: tf.Tensor, right: tf.Tensor, rows: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Answers, confidence and right ones by bin of the confidence, `[b, 15, 3]`.

    Args:
        confidence: float32 `[n]`. The probability of each answer.
        right: bool `[n]`.
        rows: int64 `[n]`. Which row each answer is of.
        count: int64 scalar, b.
    """
    bins = tf.cast(confidence * CALIBRATION_BINS, tf.int64)
    bins = tf.clip_by_value(bins, 0, CALIBRATION_BINS - 1)
    told = [tf.ones_like(confidence), confidence, tf.cast(right, tf.float32)]
    sums = tf.math.unsorted_segment_sum(
        tf.stack(told, axis=1),
        rows * CALIBRATION_BINS + bins,
        count * CALIBRATION_BINS,
    )
    return tf.reshape(sums, [count, CALIBRATION_BINS, 3])
