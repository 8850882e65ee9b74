"""SentencePiece models out of Hugging Face's `tokenizer.json` for such models.

That file has the pieces, and in place of a SentencePiece normalizer a list of steps.
The lists that Hugging Face's converter writes for SentencePiece's own settings are
known here. The ids are those of the file's tokenizer, but where two cuts of a Unigram
model are equally likely, and where characters are normalized together with the marks
behind them: there SentencePiece takes the longest entry of the table, as it did when
the model was trained, and Hugging Face the shortest.

References:
    - [Kudo and Richardson, 2018](https://arxiv.org/abs/1808.06226)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import sentencepiece

from ..backbone import require
from .sentence_piece_model import (
    BPE_MODEL,
    BYTE,
    CONTROL,
    NORMAL,
    UNIGRAM_MODEL,
    UNKNOWN,
    model_proto_class,
)

_SPACE = "\u2581"
_BYTES = [f"<0x{value:02X}>" for value in range(256)]
_COLLAPSED = [
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": _SPACE},
]
_ESCAPED = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
_SINGLE_SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
_WORDS = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always"}
_OLDER_WORDS = [{"type": "WhitespaceSplit"}, _WORDS]
# Spaces are gone when it comes to this, so that it never applies.
_NO_SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}


class _Spaces(NamedTuple):
    """What is done to spaces, as in SentencePiece's `NormalizerSpec`."""

    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def is_sentence_piece(model: Mapping[str, Any]) -> bool:
    """Whether the model of a `tokenizer.json` is one that SentencePiece has."""
    return model.get("type") == "Unigram" or bool(model.get("byte_fallback"))


def unknown_piece(model: Mapping[str, Any]) -> str | None:
    """The piece for what is unknown to the model of a `tokenizer.json`, if any is."""
    if model.get("type") != "Unigram":
        return model.get("unk_token")
    index = model.get("unk_id")
    return None if index is None else model["vocab"][index][0]


def sentence_piece_proto(
    content: Mapping[str, Any], vocabulary: Mapping[str, int], *, unknown: str
) -> bytes:
    """The SentencePiece model with the ids of a `tokenizer.json`.

    Args:
        content: the file's, of type Unigram, or BPE with `byte_fallback`.
        vocabulary: its pieces and ids, added tokens among them.
        unknown: the piece for what is unknown.

    Raises:
        ValueError: naming what SentencePiece does not do.
    """
    model = content["model"]
    spaces, charsmap = _normalizer(content)
    scores = _scores(model)
    special = {token["content"] for token in content.get("added_tokens", ())}
    byte_fallback = bool(model.get("byte_fallback"))
    missing = set(_BYTES).difference(vocabulary) if byte_fallback else ()
    require(
        not missing,
        "model.byte_fallback needs a token for every byte.",
        missing=sorted(missing)[:5],
    )
    proto = model_proto_class()()
    tokens = {index: token for token, index in vocabulary.items()}
    for index in range(max(tokens) + 1):
        token = tokens.get(index, f"<unused {index}>")
        if token == unknown:
            kind = UNKNOWN
        elif byte_fallback and token in _BYTES:
            kind = BYTE
        else:
            kind = CONTROL if token in special or token not in scores else NORMAL
        proto.pieces.add(piece=token, score=scores.get(token, 0.0), type=kind)
    is_unigram = model.get("type") == "Unigram"
    proto.trainer_spec.model_type = UNIGRAM_MODEL if is_unigram else BPE_MODEL
    proto.trainer_spec.byte_fallback = byte_fallback
    proto.normalizer_spec.precompiled_charsmap = charsmap
    proto.normalizer_spec.add_dummy_prefix = spaces.add_dummy_prefix
    proto.normalizer_spec.remove_extra_whitespaces = spaces.remove_extra_whitespaces
    proto.normalizer_spec.escape_whitespaces = True
    serialized = proto.SerializeToString()
    if spaces.remove_extra_whitespaces:
        _check_words(serialized, scores)
    return serialized


def _scores(model: Mapping[str, Any]) -> dict[str, float]:
    """The scores of the pieces that can stand in a text."""
    if model.get("type") == "Unigram":
        return dict(model["vocab"])
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        value = model.get(key)
        require(not value, f"model.{key} is not supported.", value=value)
    require(
        not model.get("ignore_merges"),
        "model.ignore_merges is not supported.",
        value=model.get("ignore_merges"),
    )
    scores = {token: 0.0 for token in model["vocab"] if len(token) == 1}
    for rank, merge in enumerate(model["merges"]):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        # SentencePiece merges what makes the piece of the best score.
        scores.setdefault("".join(pair), -1.0 - rank)
    return scores


def _normalizer(content: Mapping[str, Any]) -> tuple[_Spaces, bytes]:
    """What the steps of the file do to spaces, and their table of characters."""
    before = _steps(content.get("normalizer"), "normalizers")
    words = _steps(content.get("pre_tokenizer"), "pretokenizers")
    charsmap = b""
    if before and before[0]["type"] == "Precompiled":
        charsmap = base64.b64decode(before.pop(0)["precompiled_charsmap"] or "")
    cut = list(map(_metaspace, words))
    if before == _COLLAPSED and cut == [_WORDS]:
        return _Spaces(True, True), charsmap
    if before in ([], [_SINGLE_SPACES]) and cut == _OLDER_WORDS:
        return _Spaces(True, True), charsmap
    if words in ([], [_NO_SPLIT]):
        if before == [{"type": "Prepend", "prepend": _SPACE}, _ESCAPED]:
            return _Spaces(True, False), charsmap
        if before == [_ESCAPED]:
            return _Spaces(False, False), charsmap
    raise ValueError(
        "its normalizer and pre_tokenizer must be those of a SentencePiece model, as "
        "of T5's, Llama 2's or Gemma's kind; else take the file tokenizer.model. "
        f"Received: {json.dumps(before)[:300]} and {json.dumps(words)[:300]}"
    )


def _steps(node: Mapping[str, Any] | None, key: str) -> list[dict[str, Any]]:
    return [dict(step) for step in node.get(key, [node])] if node else []


def _metaspace(step: dict[str, Any]) -> dict[str, Any]:
    """A `Metaspace` that cuts words, in today's form."""
    step = dict(step)
    if step.pop("add_prefix_space", False):
        step.setdefault("prepend_scheme", "always")
    return step if step.pop("split", True) else {}


def _check_words(proto: bytes, scores: Mapping[str, float]) -> None:
    """Checks that cutting a text into words first makes no difference."""
    inside = [piece for piece in scores if _SPACE in piece[1:]]
    require(not inside, "Pieces across words are not supported.", pieces=inside[:5])
    require(_SPACE in scores, f"There must be a piece {_SPACE!r}.", pieces=len(scores))
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    kept = [space for space in "\t\n\v\f\r" if space in model.normalize(f"a{space}b")]
    require(
        not kept,
        "A normalization that keeps white space other than the space is not supported.",
        kept=kept,
    )
