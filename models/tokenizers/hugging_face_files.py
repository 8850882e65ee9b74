"""The zoo's tokenizers as files of Hugging Face's `tokenizers` and `transformers`.

The ids of `tokenizer.json` are those of the tokenizer. Where a text has the name of a
special token, Hugging Face's reads that token, and the zoo's reads a text, as
Hugging Face's does with `encode_special_tokens` (`split_special_tokens` of
`transformers`). Of two cuts of a Unigram model that are equally likely either may come.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from .base import SPECIAL_ATTRIBUTES, TextTokenizer
from .bert import BertTokenizer
from .byte import ByteTokenizer
from .byte_pair import BYTE_OF, NUL, BytePairTokenizer
from .files import SPLIT_STEPS
from .sentence_piece import SentencePieceTokenizer
from .sentence_piece_model import (
    NORMAL,
    SPACE_SYMBOL,
    UNIGRAM_MODEL,
    USER_DEFINED,
    model_proto_class,
)
from .word_piece import SUFFIX, WordPieceTokenizer
from .words import LETTER, SpacedWordTokenizer, WordTokenizer

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
_ANY_LENGTH = 2**31 - 1
_NAMES = ("pad_token", "unk_token", "bos_token", "eos_token")


def hugging_face_files(tokenizer: TextTokenizer, context_length: int) -> dict[str, str]:
    """What `transformers.AutoTokenizer.from_pretrained` reads, by the files' names.

    Args:
        tokenizer: of the zoo.
        context_length: of its model.

    Returns:
        Nothing for a SentencePiece model with settings that Hugging Face has not, and
        for a tokenizer of the user's own.
    """
    made = hugging_face_tokenizer(tokenizer)
    if made is None:
        return {}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict(zip(_NAMES, _special_tokens(tokenizer), strict=True)),
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
    }
    return {
        TOKENIZER_FILE: made.to_str(pretty=True),
        CONFIG_FILE: json.dumps(config, ensure_ascii=False, indent=2),
    }


def hugging_face_tokenizer(tokenizer: TextTokenizer) -> tokenizers.Tokenizer | None:
    """The same as a tokenizer of Hugging Face; see `hugging_face_files`."""
    makers = (make for kind, make in _MAKERS.items() if isinstance(tokenizer, kind))
    make = next(makers, None)
    found = make and make(tokenizer)
    if found is None:
        return None
    names = dict.fromkeys(_special_tokens(tokenizer))
    found.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in names]
    )
    start = _special_tokens(tokenizer)[SPECIAL_ATTRIBUTES.index("start_token")]
    found.post_processor = processors.TemplateProcessing(
        single=[start, "$A"],
        pair=[start, "$A", start, "$B"],
        special_tokens=[(start, tokenizer.start_token_id)],
    )
    return found


def _special_tokens(tokenizer: TextTokenizer) -> list[str]:
    names = tokenizer.get_vocabulary()
    return [names[getattr(tokenizer, f"{name}_id")] for name in SPECIAL_ATTRIBUTES]


def _ids(tokenizer: TextTokenizer) -> dict[str, int]:
    return {piece: index for index, piece in enumerate(tokenizer.get_vocabulary())}


def _bytes(tokenizer: ByteTokenizer) -> tokenizers.Tokenizer:
    names = {value: character for character, value in BYTE_OF.items()}
    special = enumerate(_special_tokens(tokenizer))
    ids = {name: index for index, name in special}
    for index, value in enumerate(tokenizer.token_bytes()):
        if value:
            ids[names[value]] = index
    made = tokenizers.Tokenizer(models.BPE(ids, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    made.decoder = decoders.ByteLevel()
    return made


def _byte_pair(tokenizer: BytePairTokenizer) -> tokenizers.Tokenizer:
    proto = model_proto_class().FromString(tokenizer.proto)
    made = tokenizers.Tokenizer(models.BPE(_ids(tokenizer), _merges(proto)))
    content = json.loads(made.to_str())
    content["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"trim_offsets": True, **step} for step in SPLIT_STEPS[tokenizer.split]
        ],
    }
    made = tokenizers.Tokenizer.from_str(json.dumps(content))
    made.decoder = decoders.ByteLevel()
    return made


def _sentence_piece(
    tokenizer: SentencePieceTokenizer,
) -> tokenizers.Tokenizer | None:
    proto = model_proto_class().FromString(tokenizer.proto)
    spec = proto.normalizer_spec
    prefixes, removes = spec.add_dummy_prefix, spec.remove_extra_whitespaces
    escapes = spec.escape_whitespaces
    steps = _spaces(prefixes, removes, escapes)
    pieces = [piece.piece for piece in proto.pieces if piece.type == NORMAL]
    crosses = any(SPACE_SYMBOL in piece[1:] for piece in pieces)
    if steps is None or (prefixes and removes and crosses):
        return None
    is_unigram = proto.trainer_spec.model_type == UNIGRAM_MODEL
    made = tokenizers.Tokenizer(
        _unigram(tokenizer, proto) if is_unigram else _bpe(tokenizer, proto)
    )
    if spec.precompiled_charsmap:
        steps.insert(0, normalizers.Precompiled(spec.precompiled_charsmap))
    if steps:
        made.normalizer = normalizers.Sequence(steps)
    if prefixes and removes:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    elif is_unigram and (apart := _characters_apart(tokenizer, proto)):
        made.pre_tokenizer = pre_tokenizers.Split(Regex(apart), "isolated")
    shown = [decoders.ByteFallback(), decoders.Fuse()]
    if escapes:
        shown = [decoders.Replace(SPACE_SYMBOL, " "), *shown]
    if prefixes:
        shown.append(decoders.Strip(" ", 1, 0))
    made.decoder = decoders.Sequence(shown)
    longer = [
        piece.piece
        for piece in proto.pieces
        if piece.type == USER_DEFINED and len(piece.piece) > 1
    ]
    made.add_tokens([AddedToken(piece, normalized=False) for piece in longer])
    return made


def _spaces(prefixes: bool, removes: bool, escapes: bool) -> list[Any] | None:
    """The steps of SentencePiece's settings; `hugging_face` reads them back."""
    escape = normalizers.Replace(" ", SPACE_SYMBOL)
    known: dict[tuple[bool, bool, bool], list[Any]] = {
        (False, False, False): [],
        (False, False, True): [escape],
        (True, False, True): [normalizers.Prepend(SPACE_SYMBOL), escape],
        (True, True, True): [
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), SPACE_SYMBOL),
        ],
    }
    return known.get((prefixes, removes, escapes))


def _bpe(tokenizer: SentencePieceTokenizer, proto: Any) -> models.BPE:
    return models.BPE(
        _ids(tokenizer),
        _merges(proto),
        unk_token=_special_tokens(tokenizer)[1],
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
    )


def _merges(proto: Any) -> list[tuple[str, str]]:
    """Every pair that makes a piece, the piece of the highest score first.

    SentencePiece merges whatever makes a piece, of overlapping pairs the one to the
    left. That is, of one piece's pairs, the one with the longer left part: the right
    part of the pair to the left is the left part of the other.
    """
    scores = {p.piece: p.score for p in proto.pieces if p.type == NORMAL}
    if proto.trainer_spec.model_type == UNIGRAM_MODEL:
        return []
    single = {p.piece for p in proto.pieces if p.type == USER_DEFINED}
    parts = {*scores, *single}
    merges = [
        (-score, -end, piece[:end], piece[end:])
        for piece, score in scores.items()
        for end in range(1, len(piece))
        if piece[:end] in parts and piece[end:] in parts
    ]
    return [(left, right) for *_, left, right in sorted(merges)]


def _unigram(tokenizer: SentencePieceTokenizer, proto: Any) -> models.Unigram:
    scores = [piece.score for piece in proto.pieces if piece.type == NORMAL]
    # What is no piece of a text must not be found in one, if its name is spelled.
    longest = max(len(piece.piece) for piece in proto.pieces)
    never = (longest + 1) * min([*scores, -1.0])
    textual = (NORMAL, USER_DEFINED)
    return models.Unigram(
        [(p.piece, p.score if p.type in textual else never) for p in proto.pieces],
        tokenizer.unk_token_id,
        proto.trainer_spec.byte_fallback,
    )


def _characters_apart(tokenizer: SentencePieceTokenizer, proto: Any) -> str:
    """Those of the names of tokens that are no text, which no piece of a text has.

    A name with such a character would be the only piece for it.
    """
    known = {c for p in proto.pieces if p.type == NORMAL for c in p.piece}
    names = {c for p in proto.pieces if p.type != NORMAL for c in p.piece}
    if not proto.trainer_spec.byte_fallback or not names - known:
        return ""
    return f"[{re.escape(''.join(sorted(names - known)))}]"


def _word_piece(tokenizer: WordPieceTokenizer) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(
        models.WordPiece(
            _ids(tokenizer),
            unk_token=_special_tokens(tokenizer)[1],
            max_input_chars_per_word=_ANY_LENGTH,
            continuing_subword_prefix=SUFFIX,
        )
    )
    made.normalizer = normalizers.Replace(NUL, "\0")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_word()), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace(SUFFIX, ""), decoders.ByteLevel()]
    )
    return made


def _bert(tokenizer: BertTokenizer) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(
        models.WordPiece(
            _ids(tokenizer),
            unk_token=_special_tokens(tokenizer)[1],
            max_input_chars_per_word=100,
            continuing_subword_prefix=SUFFIX,
        )
    )
    made.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=tokenizer.lowercase,
        lowercase=tokenizer.lowercase,
    )
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece(prefix=SUFFIX, cleanup=False)
    return made


def _words(tokenizer: WordTokenizer) -> tokenizers.Tokenizer:
    made = _listed_words(tokenizer)
    made.pre_tokenizer = pre_tokenizers.Split(Regex(_word()), "isolated")
    made.decoder = decoders.Fuse()
    return made


def _spaced_words(tokenizer: SpacedWordTokenizer) -> tokenizers.Tokenizer:
    made = _listed_words(tokenizer)
    _, unknown, *_ = names = _special_tokens(tokenizer)
    spelled = "|".join(map(re.escape, names))
    spaces = r"\t\n\x0b\x0c\r "
    made.normalizer = normalizers.Replace(
        Regex(f"(?<![^{spaces}])({spelled})(?![^{spaces}])"), unknown
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Split(Regex(r"[\t\x0b\x0c\r ]"), "removed"),
        ]
    )
    return made


def _listed_words(tokenizer: WordTokenizer) -> tokenizers.Tokenizer:
    unknown = _special_tokens(tokenizer)[1]
    return tokenizers.Tokenizer(models.WordLevel(_ids(tokenizer), unk_token=unknown))


_MAKERS: Mapping[type, Any] = {
    ByteTokenizer: _bytes,
    BytePairTokenizer: _byte_pair,
    SpacedWordTokenizer: _spaced_words,
    WordTokenizer: _words,
    SentencePieceTokenizer: _sentence_piece,
    BertTokenizer: _bert,
    WordPieceTokenizer: _word_piece,
}


@functools.cache
def _word() -> str:
    """What `words.words_of` cuts, for another engine of regular expressions.

    That knows letters of newer versions of Unicode, so they are listed here.
    """
    return rf" ?[{_letters()}]+| ?[^\t\n\f\r {_letters()}]|[\s\S]"


def _letters() -> str:
    surrogates = range(0xD800, 0xE000)
    points = (c for c in range(1, sys.maxunicode + 1) if c not in surrogates)
    every = tf.constant("".join(map(chr, points)))
    letters = tf.strings.regex_replace(every, f"[^{LETTER}]+", "").numpy().decode()
    return "".join(_ranges(letters))


def _ranges(characters: str) -> Iterator[str]:
    """Characters in order, as ranges of a regular expression."""
    numbered = enumerate(map(ord, characters))
    for _, group in itertools.groupby(numbered, lambda pair: pair[1] - pair[0]):
        points = [point for _, point in group]
        yield rf"\x{{{points[0]:x}}}-\x{{{points[-1]:x}}}"
