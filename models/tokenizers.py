"""Tokenizers that lose nothing: SentencePiece, characters and bytes.

Every tokenizer has the special tokens `<pad>` 0, `<unk>` 1, `<s>` 2 (start) and
`</s>` 3 (end), and gives back any valid UTF-8 text exactly, NUL included, in Python and
in the graph. What is not valid UTF-8 never fails: SentencePiece reads each malformed
byte as U+FFFD, and the byte tokenizer keeps it in its ids and shows U+FFFD in its text.
A SentencePiece model that was trained elsewhere has its own special tokens and keeps
what it keeps.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import keras_hub
import sentencepiece
import tensorflow as tf
import tensorflow_text as tf_text
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from keras_hub.src.utils.tensor_utils import no_convert_scope, preprocessing_function

from .backbone import AnyOf, CausalBackbone, require

Tensor = Any

SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>")
"""Padding, unknown, start and end of the tokenizers made here; a place is an id."""

MODEL_TYPES = ("bpe", "unigram")
"""The kinds of SentencePiece model that `train_sentencepiece` trains."""

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""The types of a SentencePiece model's pieces."""

UNIGRAM_MODEL, BPE_MODEL, WORD_MODEL, CHARACTER_MODEL = 1, 2, 3, 4
"""Types of a SentencePiece model."""

_SPECIAL_NAMES = ("pad_token", "unk_token", "start_token", "end_token")
_BYTES = [bytes([value]) for value in range(256)]
_SPACE_SYMBOL = "\u2581"
_MODEL_CONFIG_FILE = "config.json"
# SentencePiece's trainer drops a sentence of more than 4192 bytes, and a character
# takes at most four.
_MAX_SENTENCE_CHARACTERS = 1000


class TextTokenizer(keras_hub.tokenizers.Tokenizer):
    """What both tokenizers share: tensors in, tensors out; strings in, lists out."""

    backbone_cls = AnyOf(CausalBackbone, keras_hub.tokenizers.Tokenizer)

    def __init__(self, **kwargs: Any) -> None:
        # KerasHub's pure Python path decodes strictly, so that malformed text raises,
        # and gives lists even for tensors. Both worlds go through the same ops here.
        kwargs["_allow_python_workflow"] = False
        super().__init__(**kwargs)

    @property
    def special_token_ids(self) -> list[int]:
        return sorted({getattr(self, f"{name}_id") for name in _SPECIAL_NAMES})

    def tokenize(self, inputs: Tensor) -> Tensor:
        """Turns text into token ids.

        Args:
            inputs: string tensor of shape `(batch_size,)` or `()`, a string, or a list
                of strings.

        Returns:
            For a batch of strings an int32 RaggedTensor of shape
            `(batch_size, None)`, for one string an int32 tensor of shape `(None,)`.
            Python strings give lists of lists instead of a RaggedTensor.
        """
        with _conversion_of(inputs):
            return self._tokenize_tf(inputs)

    def detokenize(self, inputs: Tensor) -> Tensor:
        """Turns token ids into text; special tokens become nothing.

        Args:
            inputs: int32 tensor or RaggedTensor of shape `(batch_size, length)` or
                `(length,)`, or lists of such shapes.

        Returns:
            A string tensor of shape `(batch_size,)` or `()`; for lists, Python
            strings. Always valid UTF-8: a character whose bytes are not all there
            becomes U+FFFD.
        """
        with _conversion_of(inputs):
            return self._detokenize_tf(inputs)

    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for in a text.

        Joined over the ids of a valid UTF-8 text, they are exactly that text. The
        special tokens stand for `b""`.
        """
        raise NotImplementedError

    def unknown_symbols(self, texts: Tensor) -> Tensor:
        """How many symbols spell what the tokens of texts leave out.

        An unknown piece is one token, whatever bytes it has. Those bytes and an end,
        257 symbols to choose from, make its token and its spelling say what it is; see
        `langzoo.models.scoring.spelling_nll`.

        Args:
            texts: string tensor of shape `(batch_size,)`.

        Returns:
            An int64 tensor of that shape; zeros where no piece can be unknown.
        """
        return tf.zeros(tf.shape(texts), tf.int64)

    @property
    def normalizes(self) -> bool:
        """Whether white space, signs or letters are changed before a text is cut.

        What is dropped so costs a model nothing: its bits per byte are too low.
        """
        return False

    def save_to_preset(self, preset_dir: str) -> None:
        """Saves the tokenizer, alone or beside a model, for `from_preset()`."""
        super().save_to_preset(preset_dir)
        path = os.path.join(preset_dir, _MODEL_CONFIG_FILE)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                if "Tokenizer" not in json.load(file).get("registered_name", ""):
                    return
        # `from_preset()` reads the kind of preset from a model's config, and a
        # tokenizer alone has none.
        with open(path, "w", encoding="utf-8") as file:
            json.dump(keras.saving.serialize_keras_object(self), file, indent=4)


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
        for name, piece in zip(_SPECIAL_NAMES, self.special_pieces, strict=True):
            self._add_special_token(piece, name)
        super().__init__(proto=proto, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """See `keras.layers.Layer.get_config`."""
        return {**super().get_config(), "special_pieces": self.special_pieces}

    def _set_proto_tf(self, proto: bytes) -> None:
        self._sentence_piece = LastingOp(
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
        removes_spaces = (
            not spec.HasField("remove_extra_whitespaces")
            or spec.remove_extra_whitespaces
        )
        return bool(removes_spaces or spec.precompiled_charsmap)

    def _piece_bytes(self, index: int, piece: str) -> bytes:
        model = self._sentence_piece_spm
        if model.IsControl(index) or model.IsUnknown(index):
            return b""
        if model.IsByte(index):
            return bytes([int(piece[1:-1], 16)])
        return self._bytes_of_text(piece)

    def _bytes_of_text(self, piece: str) -> bytes:
        return piece.replace(_SPACE_SYMBOL, " ").encode()


class LastingOp:
    """A TF Text tokenizer that outlives `keras.utils.set_random_seed`.

    TF Text's holds its model in a resource that TensorFlow's cache of eager kernels
    owns, and seeding empties that cache. So a graph gets an op of its own, and an
    eager call that finds its resource lost makes it anew.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._eager = make()

    def tokenize(self, inputs: Tensor) -> Tensor:
        return self._call("tokenize", inputs)

    def tokenize_with_offsets(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._call("tokenize_with_offsets", inputs)

    def detokenize(self, inputs: Tensor) -> Tensor:
        return self._call("detokenize", inputs)

    def string_to_id(self, inputs: Tensor) -> Tensor:
        return self._call("string_to_id", inputs)

    def _call(self, method: str, inputs: Tensor) -> Any:
        if not tf.executing_eagerly():
            return getattr(self._make(), method)(inputs)
        try:
            return getattr(self._eager, method)(inputs)
        except tf.errors.NotFoundError:
            self._eager = self._make()
            return getattr(self._eager, method)(inputs)


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
        return len(SPECIAL_TOKENS) + len(_BYTES)

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
        return [b""] * len(SPECIAL_TOKENS) + _BYTES

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


def bytes_of(texts: Tensor) -> tf.RaggedTensor:
    """The bytes of `texts`, string `(n,)`, as a uint8 RaggedTensor `(n, None)`."""
    values = tf.io.decode_raw(tf.strings.reduce_join(texts), tf.uint8)
    # Transform wants row splits to be int64.
    lengths = tf.cast(tf.strings.length(texts), tf.int64)
    return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)


def text_of(token_bytes: list[bytes], ids: Tensor) -> Tensor:
    """The texts of ids `(..., length)`, given each id's bytes: valid UTF-8 `(...)`."""
    if not isinstance(ids, tf.RaggedTensor):
        ids = tf.convert_to_tensor(ids)
    characters = tf.gather(tf.constant(token_bytes), tf.cast(ids, "int32"))
    texts = tf.strings.reduce_join(characters, axis=-1)
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")


def symbols_of(is_unknown: tf.RaggedTensor, lengths: tf.RaggedTensor) -> Tensor:
    """The bytes of unknown pieces and an end for each, int64 `(n,)`.

    Args:
        is_unknown: bool `(n, None)`, a piece each.
        lengths: integer `(n, None)`. The bytes of the pieces.
    """
    symbols = tf.cast(lengths, tf.int64) + 1
    return tf.reduce_sum(tf.cast(is_unknown, tf.int64) * symbols, axis=1)


def symbols_left_out(tokenizer: TextTokenizer, texts: Tensor) -> Tensor:
    """What `symbols_of` gives, where all but unknown pieces stand for their bytes.

    Args:
        tokenizer: its `token_bytes()`, joined, are a text without its unknown pieces.
        texts: string `(n,)`.
    """
    ids = tokenizer.tokenize(texts)
    lengths = tf.constant([len(piece) for piece in tokenizer.token_bytes()], tf.int64)
    said = tf.reduce_sum(tf.ragged.map_flat_values(tf.gather, lengths, ids), axis=1)
    left_out = tf.cast(tf.strings.length(texts), tf.int64) - said
    unknown = tf.cast(tf.equal(ids, tokenizer.unk_token_id), tf.int64)
    # A malformed byte is read as the three of U+FFFD.
    return tf.maximum(left_out, 0) + tf.reduce_sum(unknown, axis=1)


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
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            user_defined_symbols=["\n"],
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            # Fixed, as the sums of the unigram model depend on it.
            num_threads=2,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_training_advice(vocabulary_size, str(error))) from error
    return SentencePieceTokenizer(proto=_with_literal_spaces(proto.getvalue()))


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    """Cuts texts into what the trainer takes: lines that are neither long nor odd.

    Line breaks are tokens of their own, NUL makes the trainer skip the sentence, and
    U+2581 is its mark for a space; none of them can be learned from.
    """
    for text in texts:
        for line in re.split(f"[\n\0{_SPACE_SYMBOL}]+", text):
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


def _with_literal_spaces(proto: bytes) -> bytes:
    """Makes a trained model write a space as a space.

    SentencePiece trains with U+2581 in place of the space, and decodes it to a space
    even where the text had that very character. With spaces in the pieces and the
    escaping off, U+2581 is a character like any other and round-trips, in bytes.
    """
    model = model_proto_class().FromString(proto)
    for piece in model.pieces:
        piece.piece = piece.piece.replace(_SPACE_SYMBOL, " ")
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
    listed = [c for c in characters if c not in ("\0", _SPACE_SYMBOL)]
    proto = listed_proto(listed, model_type=CHARACTER_MODEL, byte_fallback=True)
    return SentencePieceTokenizer(proto)


def listed_proto(
    pieces: Iterable[str], *, model_type: int, byte_fallback: bool = False
) -> bytes:
    """A SentencePiece model that takes texts as they are and has given pieces.

    Args:
        pieces: they come after the special tokens and, if they are there, the bytes.
        model_type: one of the types above.
        byte_fallback: bool. Whether what has no piece is spelled in bytes.
    """
    model = model_proto_class()()
    for index, token in enumerate(SPECIAL_TOKENS):
        kind = UNKNOWN if index == SPECIAL_TOKENS.index("<unk>") else CONTROL
        model.pieces.add(piece=token, type=kind)
    for value in range(len(_BYTES) if byte_fallback else 0):
        model.pieces.add(piece=f"<0x{value:02X}>", type=BYTE)
    for piece in pieces:
        model.pieces.add(piece=piece, type=NORMAL)
    model.trainer_spec.model_type = model_type
    model.trainer_spec.byte_fallback = byte_fallback
    take_texts_as_they_are(model)
    return model.SerializeToString()


def take_texts_as_they_are(model: Message) -> None:
    """Has a `model_proto_class()` neither add nor remove nor escape spaces."""
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = False


@functools.cache
def model_proto_class() -> type[Message]:
    """The part of SentencePiece's `ModelProto` that is written here; the rest is kept.

    Written out because the class in the sentencepiece package is generated for a newer
    protobuf than TFX allows. Source: sentencepiece_model.proto.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="langzoo_sentencepiece.proto", package="langzoo", syntax="proto2"
    )
    model = file.message_type.add(name="ModelProto")

    def message(name: str, **fields: tuple[int, int]) -> None:
        nested = model.nested_type.add(name=name)
        for key, (number, kind) in fields.items():
            optional = field.LABEL_OPTIONAL
            nested.field.add(name=key, number=number, type=kind, label=optional)

    def member(name: str, number: int, of: str, label: int) -> None:
        of = f".langzoo.ModelProto.{of}"
        kind = field.TYPE_MESSAGE
        model.field.add(name=name, number=number, type=kind, type_name=of, label=label)

    message(
        "SentencePiece",
        piece=(1, field.TYPE_STRING),
        score=(2, field.TYPE_FLOAT),
        type=(3, field.TYPE_INT32),
    )
    message(
        "TrainerSpec",
        model_type=(3, field.TYPE_INT32),
        byte_fallback=(35, field.TYPE_BOOL),
    )
    message(
        "NormalizerSpec",
        precompiled_charsmap=(2, field.TYPE_BYTES),
        add_dummy_prefix=(3, field.TYPE_BOOL),
        remove_extra_whitespaces=(4, field.TYPE_BOOL),
        escape_whitespaces=(5, field.TYPE_BOOL),
    )
    member("pieces", 1, "SentencePiece", field.LABEL_REPEATED)
    member("trainer_spec", 2, "TrainerSpec", field.LABEL_OPTIONAL)
    member("normalizer_spec", 3, "NormalizerSpec", field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("langzoo.ModelProto")
    )


def _conversion_of(inputs: object) -> contextlib.AbstractContextManager:
    """Keeps tensors tensors; lets KerasHub turn Python values into Python values."""
    if isinstance(inputs, (tf.Tensor, tf.RaggedTensor)):
        return no_convert_scope()
    return contextlib.nullcontext()
