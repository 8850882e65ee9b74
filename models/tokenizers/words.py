"""Words: what a word is, how they are counted, and a tokenizer with a list of them."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_text as tf_text
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import Tensor
from .base import SPECIAL_TOKENS, symbols_left_out, symbols_of, text_of
from .byte_pair import NUL
from .corpus import Corpus
from .sentence_piece import SentencePieceTokenizer
from .sentence_piece_model import WORD_MODEL, listed_proto

LETTER = r"\p{L}\p{M}\p{N}"
"""What a word is made of, in a class of a regular expression."""

_WORD = rf" ?[{LETTER}]+| ?[^\s{LETTER}]|(?s:.)"


def words_of(texts: Tensor) -> tf.RaggedTensor:
    """Cuts `texts`, string `(batch_size,)`, into words `(batch_size, None)`.

    A word is a run of letters, marks and digits of any script, or any other character;
    a space belongs to the word behind it. Joined, the words are the text, but for NUL,
    in whose place the non-character U+FFFE stands: the op takes it for the text's end.
    """
    marked = tf.strings.regex_replace(texts, r"\x00", NUL)
    return tf_text.regex_split(marked, _WORD, _WORD)


def spaced_words_of(texts: Tensor) -> tf.RaggedTensor:
    r"""Cuts `texts`, string `(batch_size,)`, at white space of ASCII.

    The end of a line, `"\n"`, is a word; other white space is left out.
    """
    marked = tf.strings.regex_replace(texts, r"\x00", NUL)
    return tf_text.regex_split(marked, r"[\t\n\v\f\r ]", r"\n")


def count_words(
    texts: Sequence[str], cut: Callable[[Tensor], tf.RaggedTensor] = words_of
) -> collections.Counter[str]:
    """How often each word stands in `texts`; those that cannot be listed do not count.

    Args:
        texts: The texts.
        cut: `words_of` or `spaced_words_of`.
    """
    words = cut(tf.constant(texts)).values.numpy().tolist()
    counts = collections.Counter(word.decode() for word in words)
    for word in [word for word in counts if NUL in word or word in SPECIAL_TOKENS]:
        del counts[word]
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

    def _ids_of(self, texts: Tensor) -> tf.RaggedTensor:
        words = words_of(texts)
        return words.with_values(self._sentence_piece.string_to_id(words.values))

    @preprocessing_function
    def _tokenize_tf(self, inputs: Tensor) -> Tensor:
        inputs = tf.convert_to_tensor(inputs)
        ids = self._ids_of(tf.reshape(inputs, [-1]))
        return ids.values if inputs.shape.rank == 0 else ids

    @preprocessing_function
    def _detokenize_tf(self, inputs: Tensor) -> Tensor:
        return text_of(self.token_bytes(), inputs)


@keras.saving.register_keras_serializable(package="langzoo")
class SpacedWordTokenizer(WordTokenizer):
    r"""A tokenizer with a token for each word between white space, and for `"\n"`.

    So word-level benchmarks count their tokens (Penn Treebank: 10,000 words and the end
    of each line). White space is lost: a text comes back with one space before each
    word. The name of a special token that is written in a text, such as the `<unk>` of
    such benchmarks, is an unknown word.

    Args:
        proto: bytes of the model that `word_tokenizer()` makes with `spaced=True`.
        **kwargs: arguments of `SentencePieceTokenizer`.

    Example:
    ```python
    tokenizer = word_tokenizer(["the", "fox", "\n"], spaced=True)
    assert tokenizer(["the  <unk> fox\n"]) == [[4, 1, 5, 6]]
    assert tokenizer.detokenize([[4, 5, 6]]) == [" the fox\n"]
    ```

    References:
        - [Mikolov et al., 2010](https://doi.org/10.21437/Interspeech.2010-343)
    """

    @property
    def normalizes(self) -> bool:
        return True

    def unknown_symbols(self, texts: Tensor) -> Tensor:
        words = spaced_words_of(texts)
        lengths = words.with_values(tf.strings.length(words.values))
        return symbols_of(tf.equal(self._ids_of(texts), self.unk_token_id), lengths)

    def _bytes_of_text(self, piece: str) -> bytes:
        return piece.encode() if piece == "\n" else f" {piece}".encode()

    def _ids_of(self, texts: Tensor) -> tf.RaggedTensor:
        words = spaced_words_of(texts)
        ids = self._sentence_piece.string_to_id(words.values)
        unknown = tf.cast(self.unk_token_id, ids.dtype)
        return words.with_values(tf.where(ids < len(SPECIAL_TOKENS), unknown, ids))


def word_tokenizer(words: Iterable[str], *, spaced: bool = False) -> WordTokenizer:
    """A tokenizer of words, in the order of their ids.

    Args:
        words: as `words_of` cuts them, or `spaced_words_of`.
        spaced: whether they stand between white space.
    """
    kind = SpacedWordTokenizer if spaced else WordTokenizer
    return kind(listed_proto(words, model_type=WORD_MODEL))


def learn(settings: Any, corpus: Corpus) -> WordTokenizer:
    """The type `words` of `TOKENIZERS`."""
    spaced = settings.words == "white_space"
    cut = spaced_words_of if spaced else words_of
    count = functools.partial(count_words, cut=cut)
    listed = corpus.listed(count, settings.vocabulary_size - len(SPECIAL_TOKENS))
    return word_tokenizer(listed, spaced=spaced)
