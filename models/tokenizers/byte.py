"""Bytes as tokens."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import require
from .base import BYTES, SPECIAL_TOKENS, Tensor, TextTokenizer, bytes_of, text_of
from .corpus import Corpus


@keras.saving.register_keras_serializable(package="langzoo")
class ByteTokenizer(TextTokenizer):
    """A tokenizer without a vocabulary to learn: the byte of value v has id v + 4.

    Args:
        **kwargs: `name`, and `dtype` of the ids, by default `"int32"`.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    assert tokenizer(["hi"]) == [[108, 109]]
    assert tokenizer.detokenize([[108, 109]]) == ["hi"]
    ```
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "int32", **kwargs})
        self.file_assets: list[str] = []
        self.pad_token_id, self.unk_token_id = 0, 1
        self.start_token_id, self.end_token_id = 2, 3

    def vocabulary_size(self) -> int:
        """The number of ids: 256 bytes and the special tokens."""
        return len(SPECIAL_TOKENS) + len(BYTES)

    def get_vocabulary(self) -> list[str]:
        """The special tokens, then the bytes written as `<0x00>` to `<0xFF>`."""
        return [*SPECIAL_TOKENS, *(f"<0x{value:02X}>" for value in range(256))]

    def id_to_token(self, id: int) -> str:
        """The name of an id in `get_vocabulary()`."""
        require(
            0 <= id < self.vocabulary_size(),
            f"`id` must be in range [0, {self.vocabulary_size() - 1}].",
            id=id,
        )
        return self.get_vocabulary()[id]

    def token_to_id(self, token: str) -> int:
        """The id of a name in `get_vocabulary()`; that of `<unk>` for another."""
        vocabulary = self.get_vocabulary()
        return vocabulary.index(token) if token in vocabulary else self.unk_token_id

    def token_bytes(self) -> list[bytes]:
        return [b""] * len(SPECIAL_TOKENS) + BYTES

    @preprocessing_function
    def _tokenize_tf(self, inputs: Tensor) -> Tensor:
        inputs = tf.convert_to_tensor(inputs)
        values = bytes_of(tf.reshape(inputs, [-1]))
        ids = tf.cast(values, self.compute_dtype) + len(SPECIAL_TOKENS)
        return ids.values if inputs.shape.rank == 0 else ids

    @preprocessing_function
    def _detokenize_tf(self, inputs: Tensor) -> Tensor:
        return text_of(self.token_bytes(), inputs)

    def load_preset_assets(self, preset: str) -> None:
        """Does nothing: there is nothing to load."""

    def save_assets(self, dir_path: str) -> None:
        """Does nothing: there is nothing to save."""

    def load_assets(self, dir_path: str) -> None:
        """Does nothing: there is nothing to load."""


def learn(settings: Any, corpus: Corpus) -> ByteTokenizer:
    """The type `bytes` of `TOKENIZERS`."""
    del settings, corpus
    return ByteTokenizer()
