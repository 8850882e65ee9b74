"""Tokenizers that lose nothing: SentencePiece, characters and bytes.

Every tokenizer has the special tokens `<pad>` 0, `<unk>` 1, `<s>` 2 (start) and
`</s>` 3 (end), and gives back any valid UTF-8 text exactly, NUL included, in Python and
in the graph. What is not valid UTF-8 never fails: SentencePiece reads each malformed
byte as U+FFFD, and the byte tokenizer keeps it in its ids and shows U+FFFD in its text.
A SentencePiece model that was trained elsewhere has its own special tokens and keeps
what it keeps.
"""

from __future__ import annotations

import collections
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
import keras_hub
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text

from ..backbone import require
from .base import (
    BYTES,
    SPECIAL_ATTRIBUTES,
    SPECIAL_TOKENS,
    LastingOp,
    Tensor,
    TextTokenizer,
    symbols_of,
)
from .corpus import Corpus
from .long_texts import LineByLineOp
from .sentence_piece_model import (
    CHARACTER_MODEL,
    NORMAL,
    SPACE_SYMBOL,
    USER_DEFINED,
    ends_with_lines,
    listed_proto,
    model_proto_class,
)

MODEL_TYPES = ("bpe", "unigram")
"""The kinds of SentencePiece model that `train_sentencepiece` trains."""

# SentencePiece's trainer drops a sentence of more than 4192 bytes, and a character
# takes at most four.
_MAX_SENTENCE_CHARACTERS = 1000


@keras.saving.register_keras_serializable(package="langzoo")
class SentencePieceTokenizer(
    TextTokenizer, keras_hub.tokenizers.SentencePieceTokenizer
):
    """A SentencePiece tokenizer.

    Args:
        proto: bytes of a SentencePiece model, or a path to one. `train_sentencepiece`
            trains one.
        special_pieces: the model's pieces for padding, unknown, start and end, wherever
            in the vocabulary they stand. Defaults to `SPECIAL_TOKENS`.
        **kwargs: arguments of `keras_hub.tokenizers.SentencePieceTokenizer`.

    Example:
    ```python
    tokenizer = train_sentencepiece(
        ["the quick brown fox", "jumped over the dog"],
        vocabulary_size=300,
        model_type="bpe",
        seed=0,
    )
    ids = tokenizer(["the fox"])
    assert tokenizer.detokenize(ids) == ["the fox"]
    tokenizer.save_to_preset("tokenizer")
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset("tokenizer")
    ```

    References:
        - [Kudo and Richardson, 2018](https://arxiv.org/abs/1808.06226)
    """

    def __init__(
        self,
        proto: bytes | str | None = None,
        special_pieces: Sequence[str] = SPECIAL_TOKENS,
        **kwargs: Any,
    ) -> None:
        self.special_pieces = tuple(special_pieces)
        for name, piece in zip(SPECIAL_ATTRIBUTES, self.special_pieces, strict=True):
            self._add_special_token(piece, name)
        super().__init__(proto=proto, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "special_pieces": self.special_pieces}

    def _set_proto_tf(self, proto: bytes) -> None:
        kind = LineByLineOp if ends_with_lines(proto) else LastingOp
        self._sentence_piece = kind(
            lambda: tf_text.SentencepieceTokenizer(
                model=proto,
                out_type=self.compute_dtype,
                add_bos=self.add_bos,
                add_eos=self.add_eos,
            )
        )

    def token_bytes(self) -> list[bytes]:
        return [
            self._piece_bytes(index, piece)
            for index, piece in enumerate(self.get_vocabulary())
        ]

    def unknown_symbols(self, texts: Tensor) -> Tensor:
        model = self._sentence_piece_spm
        if any(map(model.IsByte, range(model.GetPieceSize()))):
            return super().unknown_symbols(texts)
        ids, starts, ends = self._sentence_piece.tokenize_with_offsets(texts)
        return symbols_of(tf.equal(ids, self.unk_token_id), ends - starts)

    @property
    def normalizes(self) -> bool:
        spec = model_proto_class().FromString(self.proto).normalizer_spec
        return bool(spec.remove_extra_whitespaces or spec.precompiled_charsmap)

    def _piece_bytes(self, index: int, piece: str) -> bytes:
        model = self._sentence_piece_spm
        if model.IsControl(index) or model.IsUnknown(index):
            return b""
        if model.IsByte(index):
            return bytes([int(piece[1:-1], 16)])
        return self._bytes_of_text(piece)

    def _bytes_of_text(self, piece: str) -> bytes:
        return piece.replace(SPACE_SYMBOL, " ").encode()


# In a nat of a Unigram model's scores: a float32 holds sums of 2**18 nats exactly.
_SCORE_STEPS = 64

# Any text comes back as it was; what no piece covers is spelled in bytes.
_TRAINING: dict[str, Any] = {
    "hard_vocab_limit": False,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "byte_fallback": True,
    "user_defined_symbols": ["\n"],
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": 2,
    "eos_id": 3,
    # Fixed, as the sums of the unigram model depend on it.
    "num_threads": 2,
    "minloglevel": 2,
}


def train_sentencepiece(
    texts: Iterable[str], *, vocabulary_size: int, model_type: str, seed: int
) -> SentencePieceTokenizer:
    """Trains a SentencePiece tokenizer that round-trips any text.

    The text is taken as it is: no normalization, no dummy prefix, every space and
    line break kept, and a character that has no piece is spelled in bytes, so that
    `<unk>` does not arise. A line break is always a token of its own.

    Args:
        texts: the documents, read once.
        vocabulary_size: int. The largest number of ids. Fewer come out when the
            texts do not hold enough different pieces.
        model_type: `"bpe"` or `"unigram"`.
        seed: int. Seeds SentencePiece. As trained here, on all of `texts`, the same
            texts in the same order give the same model under any seed.

    Returns:
        A `SentencePieceTokenizer`.

    Raises:
        ValueError: if the texts hold nothing to learn from, if `vocabulary_size` is
            too small for the bytes, the special tokens and the characters of the
            texts, or if `model_type` is unknown.

    References:
        - [Kudo and Richardson, 2018](https://arxiv.org/abs/1808.06226)
        - [Sennrich et al., 2016](https://arxiv.org/abs/1508.07909) (BPE)
        - [Kudo, 2018](https://arxiv.org/abs/1804.10959) (unigram)
    """
    require(
        model_type in MODEL_TYPES,
        f"`model_type` must be one of {MODEL_TYPES}.",
        model_type=model_type,
    )
    sentences = _sentences(texts)
    first = next(sentences, None)
    if first is None:
        raise ValueError(
            "There is no text to train a tokenizer on: give at least one document "
            "that is not empty. Received: texts without a character"
        )
    sentencepiece.set_random_generator_seed(seed)
    proto = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_chain(first, sentences),
            model_writer=proto,
            model_type=model_type,
            vocab_size=vocabulary_size,
            **_TRAINING,
        )
    except RuntimeError as error:
        raise ValueError(_training_advice(vocabulary_size, str(error))) from error
    return SentencePieceTokenizer(proto=_as_served(proto.getvalue()))


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Cuts texts into what the trainer takes: lines that are neither long nor odd.

    Line breaks are tokens of their own, NUL makes the trainer skip the sentence, and
    U+2581 is its mark for a space; none of them can be learned from.
    """
    for text in texts:
        for line in re.split(f"[\n\0{SPACE_SYMBOL}]+", text):
            for start in range(0, len(line), _MAX_SENTENCE_CHARACTERS):
                yield line[start : start + _MAX_SENTENCE_CHARACTERS]


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _training_advice(vocabulary_size: int, message: str) -> str:
    needed = re.search(r"(\d+) vs (\d+)", message)
    if needed is None:
        return (
            "SentencePiece could not be trained on these texts: "
            f"{message.strip()} Received: vocabulary_size={vocabulary_size}"
        )
    return (
        f"`vocabulary_size` must be at least {needed.group(2)} for these texts: 256 "
        "bytes, the special tokens, the line break and one piece for each common "
        f"character. Received: vocabulary_size={vocabulary_size}"
    )


def _as_served(proto: bytes) -> bytes:
    """Makes a trained model write a space as a space, and rounds its scores.

    SentencePiece trains with U+2581 in place of the space, and decodes it to a space
    even where the text had that very character. With spaces in the pieces and the
    escaping off, U+2581 is a character like any other and round-trips, in bytes.
    """
    model = model_proto_class().FromString(proto)
    for piece in model.pieces:
        piece.piece = piece.piece.replace(SPACE_SYMBOL, " ")
        # Sums of these are exact, so that whoever adds them up cuts a text alike: cuts
        # of the same pieces in another order are equally likely.
        piece.score = round(piece.score * _SCORE_STEPS) / _SCORE_STEPS
        if piece.type == USER_DEFINED:
            # The line break: no other piece has it, and its own score is no such one.
            piece.type = NORMAL
    model.normalizer_spec.escape_whitespaces = False
    return model.SerializeToString()


def character_tokenizer(characters: Iterable[str]) -> SentencePieceTokenizer:
    """A tokenizer with a token for each of `characters`; others are spelled in bytes.

    Args:
        characters: the characters, in the order of their ids, without repetition. The
            ids are those of the special tokens, of the 256 bytes, and then theirs.

    Example:
    ```python
    tokenizer = character_tokenizer("abc")
    assert tokenizer(["abé"]) == [[260, 261, 4 + 0xC3, 4 + 0xA9]]
    assert tokenizer.detokenize(tokenizer(["abé"])) == ["abé"]
    ```
    """
    # SentencePiece reads a piece as ended by NUL, and decodes U+2581 to a space.
    listed = [c for c in characters if c not in ("\0", SPACE_SYMBOL)]
    proto = listed_proto(listed, model_type=CHARACTER_MODEL, byte_fallback=True)
    return SentencePieceTokenizer(proto)


def count_characters(texts: Iterable[str]) -> collections.Counter[str]:
    """How often each character stands in `texts`."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(text)
    return counts


def learn(settings: Any, corpus: Corpus) -> SentencePieceTokenizer:
    """The types `bpe` and `unigram` of `TOKENIZERS`."""
    return train_sentencepiece(
        corpus.sample(),
        vocabulary_size=settings.vocabulary_size,
        model_type=settings.type,
        seed=settings.seed,
    )


def learn_characters(settings: Any, corpus: Corpus) -> SentencePieceTokenizer:
    """The type `characters` of `TOKENIZERS`."""
    most = settings.vocabulary_size - len(SPECIAL_TOKENS) - len(BYTES)
    return character_tokenizer(corpus.listed(count_characters, most))
