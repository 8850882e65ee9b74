"""WordPiece: words spelled with the longest pieces that a list has.

The words are those of `words.words_of`, their bytes written as printable characters,
and every byte is a piece, so that any word can be spelled and none is unknown.

References:
    - [Schuster and Nakajima, 2012](https://research.google/pubs/pub37842/)
    - [Song et al., 2021](https://arxiv.org/abs/2012.15524) (in linear time)
"""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_text as tf_text
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import Tensor, require
from .base import SPECIAL_TOKENS, TextTokenizer, text_of
from .byte_pair import BYTE_OF, written_bytes
from .corpus import Corpus
from .words import count_words, words_of

SUFFIX = "##"
_VOCABULARY_FILE = "vocabulary.txt"
# Every byte at the start of a word, and behind another.
_BYTE_PIECES = [*BYTE_OF, *(f"{SUFFIX}{character}" for character in BYTE_OF)]
_SMALLEST = len(SPECIAL_TOKENS) + len(_BYTE_PIECES)
_LONGEST_WORD = 2**31 - 1  # in bytes; the op's default would make them unknown
_BATCH = 256
_WORDS = 1_000_000  # different ones of a corpus that pieces are learned from
# Words are repeated for the trainer as often as they were counted, so often in all.
_WORDS_TO_LEARN_FROM = 20_000_000
_REPETITIONS = 10_000  # in one string
_WRITTEN = {value[0]: character for character, value in BYTE_OF.items()}


class PieceTokenizer(TextTokenizer):
    """What tokenizers with a list of WordPiece pieces share.

    Args:
        vocabulary: list of the pieces, in the order of their ids.
        special_pieces: those for padding, unknown, start and end.
        **kwargs: `name`, and `dtype` of the ids, by default `"int32"`.
    """

    # Whether the op itself cuts a text into words.
    _splits = False
    _longest_word = _LONGEST_WORD

    def __init__(
        self,
        vocabulary: Sequence[str] | None,
        special_pieces: Sequence[str],
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "int32", **kwargs})
        self.file_assets = [_VOCABULARY_FILE]
        self.special_pieces = tuple(special_pieces)
        self._vocabulary: list[str] = []
        if vocabulary is not None:
            self._set_vocabulary(vocabulary)

    def _set_vocabulary(self, vocabulary: Sequence[str]) -> None:
        missing = set(self.special_pieces).difference(vocabulary)
        require(
            not missing, "`vocabulary` lacks a special piece.", missing=sorted(missing)
        )
        self._vocabulary = list(vocabulary)
        self._ids = {piece: index for index, piece in enumerate(vocabulary)}
        self.pad_token_id, self.unk_token_id, self.start_token_id, self.end_token_id = (
            self._ids[piece] for piece in self.special_pieces
        )
        with tf.init_scope():
            op = tf_text.FastWordpieceTokenizer(
                vocab=self._vocabulary,
                suffix_indicator=SUFFIX,
                max_bytes_per_word=self._longest_word,
                unknown_token=self.special_pieces[1],
                no_pretokenization=not self._splits,
            )
            # A tensor would belong to one graph only, and compiling takes a while.
            self._compiled = op._model.numpy()

    def _op(self) -> tf_text.FastWordpieceTokenizer:
        return tf_text.FastWordpieceTokenizer(
            model_buffer=tf.constant(self._compiled),
            token_out_type=tf.as_dtype(self.compute_dtype),
        )

    def vocabulary_size(self) -> int:
        """The number of ids."""
        return len(self._vocabulary)

    def get_vocabulary(self) -> list[str]:
        """The pieces in the order of their ids."""
        return list(self._vocabulary)

    def id_to_token(self, id: int) -> str:
        """The piece of an id."""
        require(
            0 <= id < self.vocabulary_size(),
            f"`id` must be in range [0, {self.vocabulary_size() - 1}].",
            id=id,
        )
        return self._vocabulary[id]

    def token_to_id(self, token: str) -> int:
        """The id of a piece; that of the unknown for another string."""
        return self._ids.get(token, self.unk_token_id)

    def save_assets(self, dir_path: str) -> None:
        """Writes the vocabulary, a piece a line."""
        path = os.path.join(dir_path, _VOCABULARY_FILE)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{piece}\n" for piece in self._vocabulary)

    def load_assets(self, dir_path: str) -> None:
        """Reads what `save_assets` has written."""
        path = os.path.join(dir_path, _VOCABULARY_FILE)
        with open(path, encoding="utf-8") as file:
            self._set_vocabulary(file.read().removesuffix("\n").split("\n"))


@keras.saving.register_keras_serializable(package="langzoo")
class WordPieceTokenizer(PieceTokenizer):
    """A WordPiece tokenizer that gives back any valid UTF-8 text but U+FFFE.

    Args:
        vocabulary: list of the pieces, in the order of their ids: the special tokens,
            then pieces of bytes written as GPT-2 does, those that continue a word
            behind `##`. `train_word_piece` learns one.
        **kwargs: `name`, and `dtype` of the ids, by default `"int32"`.

    Example:
    ```python
    tokenizer = train_word_piece(["the fox", "the dog"], vocabulary_size=520)
    assert tokenizer.detokenize(tokenizer(["the frog"])) == ["the frog"]
    ```
    """

    def __init__(self, vocabulary: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(vocabulary, SPECIAL_TOKENS, **kwargs)

    def _set_vocabulary(self, vocabulary: Sequence[str]) -> None:
        missing = {*SPECIAL_TOKENS, *_BYTE_PIECES}.difference(vocabulary)
        require(
            tuple(vocabulary[: len(SPECIAL_TOKENS)]) == SPECIAL_TOKENS and not missing,
            "`vocabulary` must begin with the special tokens and have every byte.",
            missing=sorted(missing)[:5],
        )
        super()._set_vocabulary(vocabulary)

    def token_bytes(self) -> list[bytes]:
        pieces = self._vocabulary[len(SPECIAL_TOKENS) :]
        return [b""] * len(SPECIAL_TOKENS) + [
            b"".join(BYTE_OF[character] for character in piece.removeprefix(SUFFIX))
            for piece in pieces
        ]

    @preprocessing_function
    def _tokenize_tf(self, inputs: Tensor) -> Tensor:
        inputs = tf.convert_to_tensor(inputs)
        words = words_of(tf.reshape(inputs, [-1]))
        ids = self._op().tokenize(written_bytes(words.values))
        ids = tf.RaggedTensor.from_row_splits(
            ids.values, tf.gather(ids.row_splits, words.row_splits), validate=False
        )
        return ids.values if inputs.shape.rank == 0 else ids

    @preprocessing_function
    def _detokenize_tf(self, inputs: Tensor) -> Tensor:
        return text_of(self.token_bytes(), inputs)


def train_word_piece(
    texts: Iterable[str], *, vocabulary_size: int
) -> WordPieceTokenizer:
    """Learns a `WordPieceTokenizer`; the same texts give the same one.

    Args:
        texts: the documents, read once.
        vocabulary_size: int. The largest number of ids. Fewer come out when the
            texts do not hold enough different pieces.

    Raises:
        ValueError: if `vocabulary_size` is too small for the bytes.
    """
    documents = iter(texts)
    counts: collections.Counter[str] = collections.Counter()
    while batch := list(itertools.islice(documents, _BATCH)):
        counts.update(count_words(batch))
    return word_piece_of_counts(counts, vocabulary_size=vocabulary_size)


def word_piece_of_counts(
    counts: Mapping[str, int], *, vocabulary_size: int
) -> WordPieceTokenizer:
    """Learns a `WordPieceTokenizer` from words, as `words_of` cuts them, and counts.

    Of a corpus of more than 20 million words a share of every count is taken, so that
    this takes bounded time; words that are rarer than that share have no part in it.

    Args:
        counts: how often each word stands in the texts.
        vocabulary_size: see `train_word_piece`.
    """
    # The package is large, and whoever applies a tokenizer does not need it.
    import tokenizers as hugging_face

    require(
        vocabulary_size >= _SMALLEST,
        f"`vocabulary_size` must be at least {_SMALLEST}: the special tokens, and the "
        "256 bytes at the start of a word and within it.",
        vocabulary_size=vocabulary_size,
    )
    base = [*SPECIAL_TOKENS, *_BYTE_PIECES]
    model = hugging_face.Tokenizer(hugging_face.models.WordPiece())
    model.pre_tokenizer = hugging_face.pre_tokenizers.WhitespaceSplit()
    trainer = hugging_face.trainers.WordPieceTrainer(
        vocab_size=vocabulary_size,
        # All that there is at the start, as the order in which the trainer meets the
        # rest is not the same in every run, and ties are broken by it.
        special_tokens=base,
        continuing_subword_prefix=SUFFIX,
        show_progress=False,
    )
    model.train_from_iterator(_written_words(counts), trainer)
    learned = model.get_vocab()
    return WordPieceTokenizer(sorted(learned, key=learned.__getitem__))


def _written_words(counts: Mapping[str, int]) -> Iterator[str]:
    """Words as often as they count, bytes as printable characters, between spaces."""
    share = min(1.0, _WORDS_TO_LEARN_FROM / max(sum(counts.values()), 1))
    for word, count in counts.items():
        written = word.encode().decode("latin-1").translate(_WRITTEN)
        for left in range(round(count * share), 0, -_REPETITIONS):
            yield " ".join([written] * min(left, _REPETITIONS))


def learn(settings: Any, corpus: Corpus) -> WordPieceTokenizer:
    """The type `word_piece` of `TOKENIZERS`."""
    counts = corpus.commonest(count_words, _WORDS)
    return word_piece_of_counts(counts, vocabulary_size=settings.vocabulary_size)
