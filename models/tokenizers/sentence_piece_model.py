"""The file of a SentencePiece model, as far as it is written here."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from .base import BYTES, SPECIAL_TOKENS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""The types of a SentencePiece model's pieces."""

UNIGRAM_MODEL, BPE_MODEL, WORD_MODEL, CHARACTER_MODEL = 1, 2, 3, 4
"""Types of a SentencePiece model."""

SPACE_SYMBOL = "\u2581"


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
    for value in range(len(BYTES) if byte_fallback else 0):
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


def ends_with_lines(proto: bytes) -> bool:
    """Whether a model cuts each line of a text alike alone and among the others."""
    model = model_proto_class().FromString(proto)
    normalizer, pieces = model.normalizer_spec, model.pieces
    knows_ends = model.trainer_spec.byte_fallback or any(
        piece.piece == "\n" and piece.type in (NORMAL, USER_DEFINED) for piece in pieces
    )
    changes_texts = (
        normalizer.precompiled_charsmap
        or normalizer.add_dummy_prefix
        or normalizer.remove_extra_whitespaces
    )
    goes_on = any("\n" in piece.piece[:-1] for piece in pieces)
    return knows_ends and not changes_texts and not goes_on


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

    def message(name: str, **fields: tuple[int, int, str]) -> None:
        nested = model.nested_type.add(name=name)
        for key, (number, kind, default) in fields.items():
            nested.field.add(
                name=key,
                number=number,
                type=kind,
                label=field.LABEL_OPTIONAL,
                default_value=default,
            )

    def member(name: str, number: int, of: str, label: int) -> None:
        of = f".langzoo.ModelProto.{of}"
        kind = field.TYPE_MESSAGE
        model.field.add(name=name, number=number, type=kind, type_name=of, label=label)

    message(
        "SentencePiece",
        piece=(1, field.TYPE_STRING, ""),
        score=(2, field.TYPE_FLOAT, "0"),
        type=(3, field.TYPE_INT32, str(NORMAL)),
    )
    message(
        "TrainerSpec",
        model_type=(3, field.TYPE_INT32, str(UNIGRAM_MODEL)),
        byte_fallback=(35, field.TYPE_BOOL, "false"),
    )
    message(
        "NormalizerSpec",
        precompiled_charsmap=(2, field.TYPE_BYTES, ""),
        add_dummy_prefix=(3, field.TYPE_BOOL, "true"),
        remove_extra_whitespaces=(4, field.TYPE_BOOL, "true"),
        escape_whitespaces=(5, field.TYPE_BOOL, "true"),
    )
    member("pieces", 1, "SentencePiece", field.LABEL_REPEATED)
    member("trainer_spec", 2, "TrainerSpec", field.LABEL_OPTIONAL)
    member("normalizer_spec", 3, "NormalizerSpec", field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("langzoo.ModelProto")
    )
