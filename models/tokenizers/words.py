"""Words: what a word is, how they are counted, and a tokenizer with a list of them."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf
import tensorflow_text as tf_text
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import Tensor
from .base import symbols_left_out, text_of
from .byte_pair import NUL
from .sentence_piece import SentencePieceTokenizer
from .sentence_piece_model import WORD_MODEL, listed_proto

_LETTER = r"\p{L}\p{M}\p{N}"
_WORD = rf" ?[{_LETTER}]+| ?[^\s{_LETTER}]|(?s:.)"


def words_of(texts: Tensor) -> tf.RaggedTensor:
    """Cuts `texts`, string `(batch_size,)`, into words `(batch_size, None)`.

    A word is a run of letters, marks and digits of any script, or any other character;
    a space belongs to the word behind it. Joined, the words are the text, but for NUL,
    in whose place the non-character U+FFFE stands: the op takes it for the text's end.
    """
    marked = tf.strings.regex_replace(texts, r"\x00", NUL)
    return tf_text.regex_split(marked, _WORD, _WORD)


def count_words(texts: Sequence[str]) -> collections.Counter[str]:
    """How often each word stands in `texts`; words with NUL are not counted."""
    words = words_of(tf.constant(texts)).values.numpy().tolist()
    counts = collections.Counter(word.decode() for word in words)
    del counts[NUL], counts[f" {NUL}"]
    return counts


@keras.saving.register_keras_serializable(package="langzoo")
class WordTokenizer(SentencePieceTokenizer):
    """A tokenizer with a token for each word of a list, and `<unk>` for all others.

    A text of listed words comes back exactly. Of another text each word that is not
    listed is lost, with the space before it: `<unk>` stands for nothing. It is one
    token to predict in place of many, so `unknown_symbols` are counted on top of it in
    a model's bits per byte and word perplexity, not in its perplexity.

    Args:
        proto: bytes of the model that `word_tokenizer()` makes: its pieces are the
            words.
        **kwargs: arguments of `SentencePieceTokenizer`.

    Example:
    ```python
    tokenizer = word_tokenizer(["the", " fox", " dog", "."])
    assert tokenizer(["the fox."]) == [[4, 5, 7]]
    assert tokenizer.detokenize(tokenizer(["the red fox."])) == ["the fox."]
    ```
    """

    def unknown_symbols(self, texts: Tensor) -> Tensor:
        return symbols_left_out(self, texts)

    def _bytes_of_text(self, piece: str) -> bytes:
        return piece.encode()

    @preprocessing_function
    def _tokenize_tf(self, inputs: Tensor) -> Tensor:
        inputs = tf.convert_to_tensor(inputs)
        words = words_of(tf.reshape(inputs, [-1]))
        ids = words.with_values(self._sentence_piece.string_to_id(words.values))
        return ids.values if inputs.shape.rank == 0 else ids

    @preprocessing_function
    def _detokenize_tf(self, inputs: Tensor) -> Tensor:
        return text_of(self.token_bytes(), inputs)


def word_tokenizer(words: Iterable[str]) -> WordTokenizer:
    """A `WordTokenizer` of words as `words_of` cuts them, in the order of their ids."""
    return WordTokenizer(listed_proto(words, model_type=WORD_MODEL))
