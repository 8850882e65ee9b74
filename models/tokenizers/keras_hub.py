"""The tokenizers of KerasHub's presets, as tokenizers of the zoo."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterator
from typing import Any

import keras_hub

from ..backbone import require
from .base import TextTokenizer
from .bert import BertTokenizer
from .byte_pair import BytePairTokenizer, byte_pair_proto
from .sentence_piece import SentencePieceTokenizer

# The byte-pair tokenizers whose way of splitting a text into words is known.
_SPLITS = {
    "GPT2Tokenizer": "gpt2",
    "GPTNeoXTokenizer": "gpt2",
    "OPTTokenizer": "gpt2",
    "BartTokenizer": "gpt2",
    "Llama3Tokenizer": "llama3",
}

# Those of them that have a token for padding.
_PADDED = {"BartTokenizer"}

KINDS = {
    "causal": keras_hub.models.CausalLM,
    "masked": keras_hub.models.MaskedLM,
    "sequence-to-sequence": keras_hub.models.Seq2SeqLM,
}
"""The tasks of KerasHub whose presets are taken, by the kind of language model."""


def preset_tokenizer(preset: str) -> TextTokenizer:
    """The tokenizer of a KerasHub preset as a tokenizer of the zoo, with the same ids.

    One of the zoo, in the preset of one of its models, is taken as it is.

    A byte-pair tokenizer splits texts as the model's authors do. Of KerasHub's two ways
    the one for Python strings splits all texts as Llama 3 does, and the other neglects
    some white space.

    Args:
        preset: a folder, or a name or handle that KerasHub's `from_preset` knows.

    Raises:
        ValueError: if the preset cannot be loaded, or its tokenizer is neither
            SentencePiece nor WordPiece of BERT's kind nor a byte-pair tokenizer of
            GPT-2's or Llama 3's.

    Example:
    ```python
    tokenizer = preset_tokenizer("gemma_2b_en")
    model = build_causal_lm(
        "keras_hub", tokenizer, 64, preset="gemma_2b_en", pretrained=True
    )
    ```
    """
    preset = os.path.expanduser(preset)
    with named_preset(preset):
        theirs = keras_hub.tokenizers.Tokenizer.from_preset(preset)
        if isinstance(theirs, TextTokenizer):
            return theirs
        if type(theirs).__name__ in _SPLITS:
            return _byte_pair(theirs)
        if isinstance(theirs, keras_hub.tokenizers.WordPieceTokenizer):
            return _word_piece(theirs)
        require(
            isinstance(theirs, keras_hub.tokenizers.SentencePieceTokenizer),
            f"its tokenizer must be SentencePiece, WordPiece or one of "
            f"{sorted(_SPLITS)}. Learn one instead (type bpe), and draw the weights "
            "anew.",
            tokenizer=type(theirs).__name__,
        )
        return _sentence_piece(theirs)


def _byte_pair(theirs: Any) -> BytePairTokenizer:
    start, end, kind = theirs.start_token, theirs.end_token, type(theirs).__name__
    # Of others KerasHub pads with id 0, which here is a token of the text.
    pad = theirs.pad_token if kind in _PADDED else end
    return BytePairTokenizer(
        byte_pair_proto(theirs.vocabulary, theirs.merges, end=end),
        special_pieces=(pad, end, start, end),
        split=_SPLITS[kind],
    )


def _sentence_piece(theirs: Any) -> SentencePieceTokenizer:
    vocabulary = theirs.get_vocabulary()
    unknown_id = theirs._sentence_piece_spm.unk_id()
    ids = (theirs.pad_token_id, unknown_id, theirs.start_token_id, theirs.end_token_id)
    return SentencePieceTokenizer(
        theirs.proto, special_pieces=[vocabulary[index] for index in ids]
    )


def _word_piece(theirs: Any) -> BertTokenizer:
    special = (theirs.pad_token, theirs.oov_token, theirs.start_token, theirs.end_token)
    return BertTokenizer(theirs.get_vocabulary(), special, theirs.lowercase)


@contextlib.contextmanager
def named_preset(preset: str, kind: str = "") -> Iterator[None]:
    """Says in one line which preset cannot be used, and why.

    What KerasHub raises, and the hubs that it asks, is of any class.

    Args:
        preset: a folder, a name or a handle.
        kind: a key of `KINDS`, if its model must be such a one.
    """
    kinds = [KINDS[kind]] if kind else KINDS.values()
    known = [name for task in kinds for name in task.presets]
    if not (os.path.isdir(preset) or "://" in preset or preset in known):
        close = difflib.get_close_matches(preset, known, n=1)
        model = " ".join(filter(None, (kind, "language model")))
        raise ValueError(
            f"preset {preset!r} is neither a folder nor the name of a {model} of "
            f"KerasHub{f': did you mean {close[0]}?' if close else ''}"
        )
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"preset {preset!r} cannot be used: {reason}") from error
