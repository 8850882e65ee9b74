"""The `preprocessing_fn` of Transform.

TFX reloads the module of a function that it is given by name, so no class may live
here: it would exist twice.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...models.tasks.words import tokens_of_words, words_of
from ...models.tokenizers.table import restored
from ..text_example_gen.settings import TARGET, TARGET_IDS, WORD_TOKENS


def preprocessing_fn(
    inputs: dict[str, Any], custom_config: dict[str, Any]
) -> dict[str, tf.RaggedTensor]:
    """Tokenizes documents; labels go with them as they are.

    Args:
        inputs: `text`, string `[batch, 1]`, and where documents have such `target`,
            likewise; any other feature, such as a label, of one value a document, or
            sparse or ragged where it may be missing.
        custom_config: `tokenizer`, the folder of a KerasHub tokenizer preset, and
            `has_tags`, whether words have tags.

    Returns:
        `token_ids`, ragged int64 `[batch, None]`, without start and end tokens, and the
        other features, ragged `[batch, None]`: no value where one is missing. Where
        words have tags, also `word_tokens`, how many tokens each has; where documents
        have targets, in their place `target_ids`, as `token_ids` are of texts.
    """
    tokenizer = restored(custom_config["tokenizer"])
    tokenized = ("text", TARGET)
    others = {name: _ragged(inputs[name]) for name in inputs if name not in tokenized}
    text = tf.reshape(inputs["text"], [-1])
    if TARGET in inputs:
        target_ids = tokenizer(tf.reshape(inputs[TARGET], [-1]))
        others[TARGET_IDS] = tf.cast(target_ids, tf.int64)
    if custom_config.get("has_tags"):
        token_ids, others[WORD_TOKENS] = tokens_of_words(tokenizer, words_of(text))
    else:
        token_ids = tokenizer(text)
    return {**others, "token_ids": tf.cast(token_ids, tf.int64)}


def _ragged(values: Any) -> tf.RaggedTensor:
    """Of `[batch, n]`: however the schema says that a feature is read."""
    if isinstance(values, tf.RaggedTensor):
        return values
    if isinstance(values, tf.SparseTensor):
        return tf.RaggedTensor.from_sparse(values)
    # `from_tensor` notes that the rows are equally long, which Transform cannot prune.
    rows, columns = tf.unstack(tf.shape(values, tf.int64))
    return tf.RaggedTensor.from_row_lengths(
        tf.reshape(values, [-1]), tf.fill([rows], columns), validate=False
    )
