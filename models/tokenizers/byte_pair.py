"""Byte-pair tokenizers of GPT-2's kind, out of ops that every model server has.

GPT-2's tokenizer cuts a text into words with a regular expression, writes the bytes of
a word as printable characters, and merges pairs of them in the order of a list. The
merging is what SentencePiece's BPE does when a piece's score is the place of its merge
in the list, so the vocabulary becomes a SentencePiece model and no table is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_text as tf_text
from keras_hub.src.tokenizers.byte_pair_tokenizer import bytes_to_unicode
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import Tensor, require
from .base import bytes_of, symbols_left_out, text_of
from .sentence_piece import SentencePieceTokenizer
from .sentence_piece_model import (
    BPE_MODEL,
    CONTROL,
    NORMAL,
    UNKNOWN,
    model_proto_class,
    take_texts_as_they_are,
)

# What \s is in the patterns of the originals; in RE2 it is ASCII's.
_SPACE = r"\t-\r\x{85}\p{Z}"
# RE2 cannot look ahead, as `\s+(?!\S)` does to leave the last space of a run to the
# word behind it. This mark, no character of any text, is put before that space.
_MARK = "\uffff"
# The op that splits takes NUL for the end of a text, so this stands for it, which is no
# character either, until its three bytes are written as characters.
NUL = "\ufffe"
_WRITTEN_NUL, _NUL_CHARACTER = "\u00ef\u00bf\u00be", "\u0100"
_SYMBOL = rf"[^{_SPACE}\p{{L}}\p{{N}}{_MARK}]"

SPLITS: dict[str, tuple[str, str]] = {
    "gpt2": (
        rf"[{_SPACE}]",
        rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?{_SYMBOL}+|[{_SPACE}]+",
    ),
    "llama3": (
        r"[\t\x{0b}\f\x{85}\p{Z}]",
        rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}{_MARK}]?\p{{L}}+|"
        rf"\p{{N}}{{1,3}}| ?{_SYMBOL}+[\r\n]*|[{_SPACE}]*[\r\n]+|[{_SPACE}]+",
    ),
}
"""By name: the spaces that a following word may take from a run, and the words.

References:
    - [GPT-2](https://github.com/openai/gpt-2/blob/master/src/encoder.py)
    - [Llama 3](https://github.com/meta-llama/llama3/blob/main/llama/tokenizer.py)
"""

_VALUES, _CHARACTERS = bytes_to_unicode()
BYTE_OF: dict[str, bytes] = dict(zip(_CHARACTERS, _VALUES, strict=True))
"""The bytes by the printable characters that stand for them."""

_CODE_POINTS = [ord(_CHARACTERS[_VALUES.index(bytes([n]))]) for n in range(256)]


@keras.saving.register_keras_serializable(package="langzoo")
class BytePairTokenizer(SentencePieceTokenizer):
    """A tokenizer with the vocabulary, the merges and the words of GPT-2's kind.

    It gives back any valid UTF-8 text but the non-characters U+FFFE and U+FFFF. Where a
    byte has no token in the vocabulary, it is unknown and lost.

    Args:
        proto: bytes of the model that `byte_pair_proto()` makes.
        special_pieces: see `SentencePieceTokenizer`.
        split: a key of `SPLITS`. Defaults to `"gpt2"`.
        **kwargs: arguments of `SentencePieceTokenizer`.

    Example:
    ```python
    proto = byte_pair_proto(vocabulary, merges, end="<|endoftext|>")
    tokenizer = BytePairTokenizer(proto, ["<|endoftext|>"] * 4)
    ```

    References:
        - [Radford et al., 2019](https://github.com/openai/gpt-2)
    """

    def __init__(
        self,
        proto: bytes | str | None = None,
        special_pieces: Sequence[str] = ("<|endoftext|>",) * 4,
        split: str = "gpt2",
        **kwargs: Any,
    ) -> None:
        require(split in SPLITS, f"`split` must be one of {[*SPLITS]}.", split=split)
        super().__init__(proto=proto, special_pieces=special_pieces, **kwargs)
        self.split = split

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "split": self.split}

    def unknown_symbols(self, texts: Tensor) -> Tensor:
        if BYTE_OF.keys() <= {*self.get_vocabulary()}:
            return tf.zeros(tf.shape(texts), tf.int64)
        return symbols_left_out(self, texts)

    def _bytes_of_text(self, piece: str) -> bytes:
        return b"".join(BYTE_OF[character] for character in piece)

    @preprocessing_function
    def _tokenize_tf(self, inputs: Tensor) -> Tensor:
        inputs = tf.convert_to_tensor(inputs)
        words = self._words(tf.reshape(inputs, [-1]))
        ids = self._sentence_piece.tokenize(written_bytes(words.values))
        ids = tf.RaggedTensor.from_row_splits(
            ids.values, tf.gather(ids.row_splits, words.row_splits), validate=False
        )
        return ids.values if inputs.shape.rank == 0 else ids

    @preprocessing_function
    def _detokenize_tf(self, inputs: Tensor) -> Tensor:
        return text_of(self.token_bytes(), inputs)

    def _words(self, texts: Tensor) -> tf.RaggedTensor:
        """Cuts `texts`, string `(batch_size,)`, into words `(batch_size, None)`."""
        space, word = SPLITS[self.split]
        last_space = rf"({space})([^{_SPACE}])"
        marked = tf.strings.regex_replace(texts, r"\x00", NUL)
        marked = tf.strings.regex_replace(marked, last_space, rf"{_MARK}\1\2")
        return tf_text.regex_split(marked, f"{_MARK}|{word}", word)


def written_bytes(words: Tensor) -> Tensor:
    """Words, string `(n,)`, their bytes written as printable characters.

    `NUL` in a word is written as the byte 0.
    """
    values = tf.cast(bytes_of(words), tf.int32)
    symbols = tf.gather(tf.constant(_CODE_POINTS), values)
    written = tf.strings.unicode_encode(symbols, "UTF-8")
    return tf.strings.regex_replace(written, _WRITTEN_NUL, _NUL_CHARACTER)


def byte_pair_proto(
    vocabulary: Mapping[str, int], merges: Iterable[str], *, end: str
) -> bytes:
    """A byte-pair vocabulary as a SentencePiece model with the same ids.

    Args:
        vocabulary: the tokens, their bytes written as printable characters, and ids.
        merges: pairs of tokens, joined by a space, the first to be merged first.
        end: the token for the end of a text. No token can be unknown, and SentencePiece
            wants one for it: this.
    """
    scores = dict.fromkeys(BYTE_OF, 0.0)
    for rank, merge in enumerate(merges):
        scores.setdefault(merge.replace(" ", ""), -1.0 - rank)
    tokens = {index: token for token, index in vocabulary.items()}
    model = model_proto_class()()
    for index in range(max(tokens) + 1):
        token = tokens.get(index, f"<unused {index}>")
        kind = UNKNOWN if token == end else NORMAL if token in scores else CONTROL
        model.pieces.add(piece=token, score=scores.get(token, 0.0), type=kind)
    model.trainer_spec.model_type = BPE_MODEL
    take_texts_as_they_are(model)
    return model.SerializeToString()
