"""BERT's tokenizer, for vocabularies that were made for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_text as tf_text
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import Tensor
from .base import symbols_of, text_of
from .word_piece import SUFFIX, PieceTokenizer

# All of Unicode's, but those that count as white space, and malformed bytes.
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\p{Cf}\p{Co}\x{fffd}]"


@keras.saving.register_keras_serializable(package="langzoo")
class BertTokenizer(PieceTokenizer):
    """WordPiece over BERT's words, which do not keep a text as it is.

    Control characters are dropped; if `lowercase`, letters become small and lose their
    accents. Words are cut at white space, around punctuation and around Chinese
    characters. A word that cannot be spelled with the vocabulary's pieces, or has more
    than 100 bytes, is unknown and lost, and spelled where bits per byte are counted.
    Detokenizing puts one space between words and signs. What is dropped and made small
    costs a model nothing, so its bits per byte are too low.

    Args:
        vocabulary: list of the pieces, in the order of their ids.
        special_pieces: those for padding, unknown, start and end. Defaults to BERT's.
        lowercase: bool. Whether the vocabulary is without capitals and accents.
            Defaults to `True`.
        **kwargs: `name`, and `dtype` of the ids, by default `"int32"`.

    Example:
    ```python
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "fox", "##es", "."]
    tokenizer = BertTokenizer(vocabulary)
    assert tokenizer(["The foxes."]) == [[4, 5, 6, 7]]
    assert tokenizer.detokenize([[4, 5, 6, 7]]) == ["the foxes ."]
    ```

    References:
        - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805)
    """

    _splits = True
    _longest_word = 100

    def __init__(
        self,
        vocabulary: Sequence[str] | None = None,
        special_pieces: Sequence[str] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]"),
        lowercase: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(vocabulary, special_pieces, **kwargs)
        self.lowercase = lowercase

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {
            **super().get_config(),
            "special_pieces": self.special_pieces,
            "lowercase": self.lowercase,
        }

    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for: a word begins with a space."""
        return [self._bytes_of(piece) for piece in self._vocabulary]

    def unknown_symbols(self, texts: Tensor) -> Tensor:
        ids, starts, ends = self._op().tokenize_with_offsets(self._normalized(texts))
        return symbols_of(tf.equal(ids, self.unk_token_id), ends - starts)

    @property
    def normalizes(self) -> bool:
        return True

    def _bytes_of(self, piece: str) -> bytes:
        if piece in self.special_pieces:
            return b""
        if piece.startswith(SUFFIX):
            return piece.removeprefix(SUFFIX).encode()
        return f" {piece}".encode()

    @preprocessing_function
    def _tokenize_tf(self, inputs: Tensor) -> Tensor:
        inputs = tf.convert_to_tensor(inputs)
        ids = self._op().tokenize(self._normalized(tf.reshape(inputs, [-1])))
        return ids.values if inputs.shape.rank == 0 else ids

    def _normalized(self, texts: Tensor) -> Tensor:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        texts = tf.strings.regex_replace(texts, _CONTROL, "")
        if not self.lowercase:
            return texts
        decomposed = tf_text.normalize_utf8(texts, "NFD")
        plain = tf.strings.regex_replace(decomposed, r"\p{Mn}", "")
        # A sigma becomes the same small one wherever it stands, unlike Unicode's.
        plain = tf.strings.regex_replace(plain, "\u03a3", "\u03c3")
        return tf.strings.lower(plain, encoding="utf-8")

    @preprocessing_function
    def _detokenize_tf(self, inputs: Tensor) -> Tensor:
        return tf.strings.regex_replace(text_of(self.token_bytes(), inputs), "^ ", "")
