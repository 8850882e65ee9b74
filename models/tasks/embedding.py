"""Vectors of whole texts, from the hidden states of a model, in bounded memory."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .hidden_states import hidden_dim, hidden_states
from .windows import Chunk, Inputs, Windows, map_windows, overlapping_windows


def embed_sequences(
    model: Any, sequences: tf.RaggedTensor, pooling: str
) -> tf.RaggedTensor:
    """A vector for each sequence: the mean of its hidden states, or the last of them.

    One that is longer than the context is read in windows that overlap by half, as
    texts are scored; the last state is that of its last tokens.

    Args:
        model: a `CausalLM`, or what stands for one.
        sequences: int32 `[b, (t)]`, none of them empty.
        pooling: `mean` or `last`.

    Returns:
        float32 `[b, hidden_dim]`.
    """
    lengths, starts = sequences.row_lengths(), sequences.row_starts()
    if pooling == "last":
        seen = tf.minimum(lengths, model.context_length)
        text = tf.range(tf.size(lengths, tf.int64))
        windows = Windows(sequences.flat_values, starts + lengths - seen, seen)
        first = seen - 1
    else:
        windows, text, first = overlapping_windows(
            sequences.flat_values,
            starts,
            lengths,
            context=model.context_length,
            stride=max(model.context_length // 2, 1),
        )

    def added(features: Inputs, chunk: Chunk) -> tuple[tf.Tensor, tf.Tensor]:
        states = tf.cast(
            hidden_states(model.backbone, features, training=False), tf.float32
        )
        counted = chunk.inside_from(first)[..., tf.newaxis]  # [c, w, 1]
        return chunk.rows, tf.reduce_sum(tf.where(counted, states, 0.0), axis=1)

    dim = hidden_dim(model.backbone)
    specs = (tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, dim], tf.float32))
    rows, sums = map_windows(model, windows, added, specs)
    of = tf.gather(text, rows)
    total = tf.math.unsorted_segment_sum(sums, of, tf.size(lengths))  # [b, D]
    if pooling == "last":
        return total
    return total / tf.cast(lengths, tf.float32)[:, tf.newaxis]
