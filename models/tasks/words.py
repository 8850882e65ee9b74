"""Words of texts, what stands between white space, and their tokens."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .scoring import joined


def words_of(text: tf.Tensor) -> tf.RaggedTensor:
    """The words of texts, string `[b]`: string `[b, (w)]`; white space is ASCII's."""
    return tf.strings.split(text).with_row_splits_dtype(tf.int64)


def tokens_of_words(
    tokenizer: Any, words: tf.RaggedTensor
) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """The tokens of words, each by itself, so that it is known which are whose.

    All but the first word of a text have a blank before them. A word of which the
    tokenizer leaves nothing is `<unk>`.

    Args:
        tokenizer: a tokenizer of `langzoo.models`.
        words: string `[b, (w)]`.

    Returns:
        The tokens, int32 `[b, (t)]`, and how many each word has, int64 `[b, (w)]`.
    """
    flat = words.flat_values
    place = tf.range(tf.size(flat, tf.int64))
    is_first = place == tf.gather(words.row_starts(), words.value_rowids())
    pieces = tokenizer.tokenize(tf.where(is_first, flat, tf.strings.join([" ", flat])))
    pieces = tf.cast(pieces, tf.int32).with_row_splits_dtype(tf.int64)
    lacks = tf.cast(pieces.row_lengths() == 0, tf.int64)
    unknown = tf.fill([tf.reduce_sum(lacks)], int(tokenizer.unk_token_id))
    pieces = joined(
        pieces, tf.RaggedTensor.from_row_lengths(unknown, lacks, validate=False)
    )
    splits = tf.gather(pieces.row_splits, words.row_splits)
    tokens = tf.RaggedTensor.from_row_splits(pieces.flat_values, splits, validate=False)
    return tokens, words.with_flat_values(pieces.row_lengths())
