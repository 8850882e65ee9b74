"""What the signature `evaluate` says of a document: sums, of which metrics are made."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...models.tasks.results import Results, Summed
from ...models.tasks.scoring import OUTCOME_SPECS, map_logits, outcomes, spelling_nll
from .contract import CALIBRATION_BINS
from .vocabulary import Vocabulary


def document_sums(
    vocabulary: Vocabulary, text: tf.Tensor, nll: tf.Tensor, tokens: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What the signature `score` says of documents.

    Args:
        vocabulary: the model's.
        text: string `[b]`.
        nll: float64 `[b]`, nats of all tokens and of `</s>`.
        tokens: int64 `[b]`, how many these are.
    """
    return {
        "nll": tf.cast(nll, tf.float32),
        "spelling_nll": spelling_nll(vocabulary.tokenizer, text),
        "tokens": tokens,
        "bytes": tf.cast(tf.strings.length(text), tf.int64),
        "words": tf.strings.split(text).row_lengths(),
    }


def total(scores: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`nll` and `tokens` of log-probabilities of all tokens, float32 `[b, (t)]`."""
    # A long document's float32 sum would lose digits that a gate compares.
    nll = -tf.reduce_sum(tf.cast(scores, tf.float64), axis=1)
    return nll, scores.row_lengths()


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
    into = Summed(outcome_sums, *OUTCOME_SPECS)
    sums = map_logits(model, documents, outcomes, into, stride=stride)
    return told_sums(vocabulary, text, documents, sums, documents.row_lengths() - 1)


def told_sums(
    vocabulary: Vocabulary,
    text: tf.Tensor,
    documents: tf.RaggedTensor,
    sums: dict[str, tf.Tensor],
    tokens: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """What `evaluate` says of documents.

    Args:
        vocabulary: the model's.
        text: string `[b]`.
        documents: int32 `[b, (t + 2)]`: `<s> ... </s>`.
        sums: see `outcome_sums`.
        tokens: int64 `[b]`, of how many tokens they are.
    """
    tokenizer = vocabulary.tokenizer
    unknown = int(tokenizer.unk_token_id)
    framing = [tokenizer.start_token_id, tokenizer.end_token_id].count(unknown)
    characters = tf.strings.length(text, unit="UTF8_CHAR")
    return {
        **sums,
        **document_sums(vocabulary, text, sums["nll"], tokens),
        "calibration": tf.cast(sums["calibration"], tf.float32),
        "characters": tf.cast(characters, tf.int64),
        "unknown_tokens": tf.reduce_sum(tf.cast(documents == unknown, tf.int64), axis=1)
        - framing,
    }


def outcome_sums(
    outcomes: Results, rows: tf.Tensor, count: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Sums by document of how tokens were predicted, each `[b, ...]`.

    A long document's float32 sums would lose digits that a gate compares.

    Args:
        outcomes: each `[k]`; see `models.tasks.scoring.outcomes`.
        rows: int64 `[k]`. Which document each is of.
        count: int64 scalar, b.
    """
    score, rank, confidence = outcomes

    def sum_of(values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(tf.cast(values, dtype), rows, count)

    return {
        "nll": -sum_of(score, tf.float64),
        "correct_at_1": sum_of(rank < 1, tf.int64),
        "correct_at_5": sum_of(rank < 5, tf.int64),
        "calibration": binned(tf.cast(confidence, tf.float64), rank < 1, rows, count),
    }


def binned(
    confidence: tf.Tensor, right: tf.Tensor, rows: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
    """Answers, confidence and right ones by bin of the confidence, `[b, 15, 3]`.

    Args:
        confidence: `[n]`. The probability of each answer, in the sums' dtype.
        right: bool `[n]`.
        rows: int64 `[n]`. Which row each answer is of.
        count: int64 scalar, b.
    """
    bins = tf.cast(confidence * CALIBRATION_BINS, tf.int64)
    bins = tf.clip_by_value(bins, 0, CALIBRATION_BINS - 1)
    told = [tf.ones_like(confidence), confidence, tf.cast(right, confidence.dtype)]
    sums = tf.math.unsorted_segment_sum(
        tf.stack(told, axis=1),
        rows * CALIBRATION_BINS + bins,
        count * CALIBRATION_BINS,
    )
    return tf.reshape(sums, [count, CALIBRATION_BINS, 3])
