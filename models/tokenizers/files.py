"""Tokenizers that were made elsewhere, from their files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sentencepiece
from keras_hub.src.tokenizers.byte_pair_tokenizer import SPLIT_PATTERN_TOKENIZERS

from ..backbone import require
from .base import TextTokenizer
from .bert import BertTokenizer
from .byte_pair import BytePairTokenizer, byte_pair_proto
from .corpus import Corpus
from .hugging_face import is_sentence_piece, sentence_piece_proto, unknown_piece
from .keras_hub import preset_tokenizer
from .sentence_piece import SentencePieceTokenizer
from .word_piece import SUFFIX

_HUGGING_FACE = "tokenizer.json"
_HUGGING_FACE_CONFIG = "tokenizer_config.json"
_PIECES = "vocab.txt"
# The keys of the configuration, and what they usually are.
_TOKENS = {
    "pad": ("pad_token",),
    "unknown": ("unk_token",),
    "start": ("bos_token", "<|begin_of_text|>", "<|startoftext|>", "<s>"),
    "end": ("eos_token", "<|endoftext|>", "<|end_of_text|>", "</s>"),
}
_BERT_TOKENS = {
    "pad": ("pad_token", "[PAD]"),
    "unknown": ("unk_token", "[UNK]"),
    "start": ("cls_token", "[CLS]"),
    "end": ("sep_token", "[SEP]"),
}


def load_tokenizer(path: str | os.PathLike[str]) -> TextTokenizer:
    """A tokenizer of the zoo with the vocabulary of a file, and the file's ids.

    Args:
        path: a SentencePiece model; a `tokenizer.json` of Hugging Face, byte-pair of
            GPT-2's, Llama 2's or Llama 3's kind, Unigram of T5's or WordPiece of
            BERT's; a `vocab.txt` of BERT's; or a folder with one of these two, or that
            of a KerasHub preset. A `tokenizer_config.json` beside them names the tokens
            for start, end and padding, and of a `vocab.txt` says whether letters are
            made small.

    Raises:
        ValueError: naming the path, and what of it is not supported.

    Example:
    ```python
    tokenizer = load_tokenizer("gpt2/tokenizer.json")
    ```
    """
    path = Path(path).expanduser()
    try:
        file = path
        if path.is_dir():
            file = path / _HUGGING_FACE
            if not _is_hugging_face(file):
                file = path / _PIECES
            if not file.is_file():
                return preset_tokenizer(str(path))
        if file.suffix == ".json":
            return _hugging_face(file)
        if file.name == _PIECES:
            return _pieces(file)
        return _sentence_piece(file.read_bytes())
    except KeyError as error:
        raise ValueError(f"tokenizer {path} cannot be used: no key {error}") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"tokenizer {path} cannot be used: {reason}") from error


def tokenizer_of(preset: str) -> TextTokenizer:
    """The tokenizer of a preset, or of a folder of Hugging Face's.

    That is `preset_tokenizer`'s; but WordPiece of Hugging Face's is `load_tokenizer`'s,
    as KerasHub reads `vocab.txt` alone.

    Raises:
        ValueError: as those two do.
    """
    folder = Path(preset).expanduser()
    file = folder / _HUGGING_FACE
    try:
        model = _content(file)["model"] if _is_hugging_face(file) else {}
    except ValueError as error:
        raise ValueError(f"tokenizer {file} cannot be used: {error}") from error
    if model.get("type") == "WordPiece" or (folder / _PIECES).is_file():
        return load_tokenizer(folder)
    return preset_tokenizer(preset)


def _content(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _is_hugging_face(file: Path) -> bool:
    # A KerasHub preset has a file of the same name.
    return file.is_file() and "model" in _content(file)


def _sentence_piece(proto: bytes) -> SentencePieceTokenizer:
    model = sentencepiece.SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(proto)
    except RuntimeError as error:
        raise ValueError("it is no SentencePiece model") from error
    unknown, end = model.unk_id(), model.eos_id()
    require(end >= 0, "The model must have a piece for the end of a text.", eos_id=end)
    start, pad = (
        found if found >= 0 else end for found in (model.bos_id(), model.pad_id())
    )
    pieces = [model.IdToPiece(index) for index in (pad, unknown, start, end)]
    return SentencePieceTokenizer(proto, special_pieces=pieces)


def _hugging_face(file: Path) -> TextTokenizer:
    content = _content(file)
    require(
        isinstance(content, dict) and isinstance(content.get("model"), dict),
        "It must be a tokenizer.json of Hugging Face.",
        content=json.dumps(content)[:100],
    )
    model = content["model"]
    kind = model.get("type", "BPE")
    require(
        kind in ("BPE", "Unigram", "WordPiece"),
        "Only models of type BPE, Unigram and WordPiece are supported.",
        type=kind,
    )
    added = content.get("added_tokens", ())
    named = [token["content"] for token in added if not token["special"]]
    require(
        not named,
        "Added tokens that are not special are not supported.",
        tokens=named[:5],
    )
    pieces = model["vocab"]
    if kind == "Unigram":
        pieces = {piece: index for index, (piece, _) in enumerate(pieces)}
    vocabulary = {**pieces, **{token["content"]: token["id"] for token in added}}
    if kind == "WordPiece":
        specials = _special_tokens(file.parent, vocabulary, _BERT_TOKENS)
        return _bert(content, vocabulary, specials)
    specials = _special_tokens(file.parent, vocabulary, _TOKENS)
    if is_sentence_piece(model):
        pad, unknown, start, end = specials
        unknown = unknown_piece(model) or unknown
        proto = sentence_piece_proto(content, vocabulary, unknown=unknown)
        return SentencePieceTokenizer(proto, [pad, unknown, start, end])
    return _byte_pair(content, vocabulary, specials)


def _byte_pair(
    content: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    special_pieces: Sequence[str],
) -> BytePairTokenizer:
    model = content["model"]
    split = _split_of(content)
    merges = [
        merge if isinstance(merge, str) else " ".join(merge)
        for merge in model["merges"]
    ]
    tokenizer = BytePairTokenizer(
        byte_pair_proto(vocabulary, merges, end=special_pieces[-1]),
        special_pieces=special_pieces,
        split=split,
    )
    if model.get("ignore_merges"):
        _check_merges(tokenizer, model["vocab"])
    return tokenizer


def _bert(
    content: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    special_pieces: Sequence[str],
) -> BertTokenizer:
    normalizer = dict(content.get("normalizer") or {})
    lowercase: Any = normalizer.get("lowercase")
    if normalizer.get("strip_accents") is None:
        normalizer["strip_accents"] = lowercase
    require(
        isinstance(lowercase, bool)
        and normalizer
        == {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": lowercase,
            "lowercase": lowercase,
        },
        "The normalizer must be BERT's, and strip accents if it makes letters small.",
        normalizer=content.get("normalizer"),
    )
    words = content.get("pre_tokenizer")
    require(
        words == {"type": "BertPreTokenizer"},
        "The pre_tokenizer must be BERT's.",
        pre_tokenizer=words,
    )
    prefix = content["model"].get("continuing_subword_prefix", SUFFIX)
    require(
        prefix == SUFFIX,
        f"model.continuing_subword_prefix must be {SUFFIX}.",
        prefix=prefix,
    )
    tokens = {index: token for token, index in vocabulary.items()}
    return BertTokenizer(
        [tokens.get(index, f"[unused {index}]") for index in range(max(tokens) + 1)],
        special_pieces=special_pieces,
        lowercase=lowercase,
    )


def _pieces(file: Path) -> BertTokenizer:
    """BERT's WordPiece, of the pieces of a file, a line each in the order of ids."""
    pieces = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    config = file.parent / _HUGGING_FACE_CONFIG
    told = _content(config) if config.is_file() else {}
    normalizer = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": told.get("tokenize_chinese_chars", True),
        "strip_accents": told.get("strip_accents"),
        "lowercase": told.get("do_lower_case", True),
    }
    content = {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {},
    }
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    specials = _special_tokens(file.parent, vocabulary, _BERT_TOKENS)
    return _bert(content, vocabulary, specials)


def _split_of(content: Mapping[str, Any]) -> str:
    """The split of a byte-pair `tokenizer.json`, the rest of which is honoured."""
    model = content["model"]
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    for key in ("dropout", *affixes):
        value = model.get(key)
        require(not value, f"model.{key} is not supported.", value=value)
    normalizer = content.get("normalizer")
    require(not normalizer, "A normalizer is not supported.", normalizer=normalizer)
    pre_tokenizer = content.get("pre_tokenizer")
    for name, steps in SPLIT_STEPS.items():
        if _steps(pre_tokenizer) == steps:
            return name
    raise ValueError(
        "its pre_tokenizer must be that of GPT-2 (ByteLevel without a prefix space) or "
        f"of Llama 3. Received: {json.dumps(pre_tokenizer)[:300]}"
    )


SPLIT_STEPS: dict[str, list[dict[str, Any]]] = {
    "gpt2": [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}],
    "llama3": [
        {
            "type": "Split",
            "pattern": {"Regex": SPLIT_PATTERN_TOKENIZERS},
            "behavior": "Isolated",
            "invert": False,
        },
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ],
}
"""By the names of `byte_pair.SPLITS`: the steps of a `tokenizer.json`."""


def _steps(pre_tokenizer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    # Whether offsets are trimmed does not change the ids.
    return [
        {
            **({"use_regex": True} if step["type"] == "ByteLevel" else {}),
            **{key: value for key, value in step.items() if key != "trim_offsets"},
        }
        for step in steps
    ]


def _special_tokens(
    folder: Path, vocabulary: Mapping[str, int], usual: Mapping[str, tuple[str, ...]]
) -> list[str]:
    """Those for padding, unknown, start and end; that for the end where none is."""
    file = folder / _HUGGING_FACE_CONFIG
    named = _content(file) if file.is_file() else {}

    def known(name: str) -> list[str]:
        key, *tokens = usual[name]
        value = named.get(key)
        value = value["content"] if isinstance(value, dict) else value
        given = [value] if isinstance(value, str) else []
        return [token for token in (*given, *tokens) if token in vocabulary]

    ends = known("end")
    if not ends:
        raise ValueError(
            "no token for the end of a text is known: name it as "
            f"{usual['end'][0]} in {file}"
        )
    return [(known(name) + ends)[0] for name in ("pad", "unknown", "start", "end")]


def _check_merges(tokenizer: BytePairTokenizer, vocabulary: Mapping[str, int]) -> None:
    """Checks that the merges make each token, as those of Llama 3 do.

    Hugging Face's `ignore_merges` takes a word that is a token as it is.
    """
    spelled = tokenizer._sentence_piece_spm.encode(list(vocabulary))
    other = [
        token
        for (token, index), ids in zip(vocabulary.items(), spelled, strict=True)
        if ids != [index] and token not in tokenizer.special_pieces
    ]
    require(not other, "model.ignore_merges is not supported.", unmerged=other[:5])


def learn_preset(settings: Any, corpus: Corpus) -> TextTokenizer:
    """The type `preset` of `TOKENIZERS`."""
    del settings
    try:
        return tokenizer_of(corpus.preset)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error


def learn(settings: Any, corpus: Corpus) -> TextTokenizer:
    """The type `file` of `TOKENIZERS`."""
    del corpus
    return load_tokenizer(settings.path)
