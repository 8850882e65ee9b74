"""The `preprocessing_fn` of Transform.

TFX reloads the module of a function that it is given by name, so no class may live
here: it would exist twice.
"""

from __future__ import annotations

from typing import Any

import keras_hub
import tensorflow as tf

from ...models import tokenizer_files, words  # noqa: F401  (register all tokenizers)


def preprocessing_fn(
    inputs: dict[str, tf.Tensor], custom_config: dict[str, Any]
) -> dict[str, tf.RaggedTensor]:
    """Tokenizes documents.

    Args:
        inputs: `text`, string `[batch, 1]`.
        custom_config: `tokenizer`, the folder of a KerasHub tokenizer preset.

    Returns:
        `token_ids`, ragged int64 `[batch, None]`, without start and end tokens.
    """
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(custom_config["tokenizer"])
    token_ids = tokenizer(tf.reshape(inputs["text"], [-1]))
    return {"token_ids": tf.cast(token_ids, tf.int64)}
