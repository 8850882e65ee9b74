"""The files for Hugging Face's libraries have the ids of the zoo's tokenizers."""

from __future__ import annotations

import json
import pydoc_data.topics
from typing import Any

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import pytest
import tensorflow as tf
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.models import (
    BytePairTokenizer,
    character_tokenizer,
    train_sentencepiece,
    train_word_piece,
    word_tokenizer,
)
from langzoo.models.tokenizers.bert import BertTokenizer
from langzoo.models.tokenizers.byte import ByteTokenizer
from langzoo.models.tokenizers.byte_pair import byte_pair_proto
from langzoo.models.tokenizers.hugging_face_files import hugging_face_files
from langzoo.models.tokenizers.words import count_words

TOPICS = [text for _, text in sorted(pydoc_data.topics.topics.items())]
PIECES = [part.strip() for text in TOPICS for part in text.split("\n\n")]
DOCUMENTS = list(dict.fromkeys(part for part in PIECES if len(part) > 20))[:1000]
LEARNED = TOPICS[:20]


def byte_pairs() -> BytePairTokenizer:
    """As GPT-2's, of a vocabulary that Hugging Face's own trainer has learned."""
    learned = tokenizers.ByteLevelBPETokenizer()
    learned.train_from_iterator(LEARNED, 600, show_progress=False)
    model = json.loads(learned.to_str())["model"]
    vocabulary = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    merges = [" ".join(merge) for merge in model["merges"]]
    return BytePairTokenizer(byte_pair_proto(vocabulary, merges, end="<|endoftext|>"))


def bert() -> BertTokenizer:
    learned = tokenizers.BertWordPieceTokenizer()
    learned.train_from_iterator(LEARNED, 600, show_progress=False)
    vocabulary = learned.get_vocab()
    return BertTokenizer(sorted(vocabulary, key=vocabulary.__getitem__))


def spaced() -> Any:
    words = sorted({word for text in LEARNED for word in text.split()})
    return word_tokenizer([*words[:800], "\n"], spaced=True)


def trained(model_type: str) -> Any:
    return train_sentencepiece(
        LEARNED, vocabulary_size=600, model_type=model_type, seed=0
    )


KINDS = {
    "bytes": ByteTokenizer,
    "bpe": lambda: trained("bpe"),
    "unigram": lambda: trained("unigram"),
    "characters": lambda: character_tokenizer(sorted(set("".join(LEARNED)))),
    "word_piece": lambda: train_word_piece(LEARNED, vocabulary_size=900),
    "words": lambda: word_tokenizer(sorted(count_words(LEARNED))[:800]),
    "spaced": spaced,
    "byte_pairs": byte_pairs,
    "bert": bert,
}


@pytest.fixture(scope="module", params=KINDS)
def both(request: Any) -> tuple[Any, tokenizers.Tokenizer, dict[str, Any]]:
    """A tokenizer, and what its files say."""
    tokenizer = KINDS[request.param]()
    files = hugging_face_files(tokenizer, 64)
    theirs = tokenizers.Tokenizer.from_str(files["tokenizer.json"])
    # The name of a special token in a text is a text.
    theirs.encode_special_tokens = True
    return tokenizer, theirs, json.loads(files["tokenizer_config.json"])


def assert_same_ids(tokenizer: Any, theirs: Any, texts: list[str]) -> None:
    ids = tokenizer.tokenize(tf.constant(texts)).to_list()
    encoded = theirs.encode_batch(texts, add_special_tokens=False)
    for text, own, their in zip(texts, ids, encoded, strict=True):
        assert own == their.ids, text


def test_a_thousand_documents_have_the_same_ids(both: Any) -> None:
    tokenizer, theirs, _ = both
    assert len(DOCUMENTS) == 1000
    assert_same_ids(tokenizer, theirs, DOCUMENTS)


# What joins and parts pieces in odd ways, beside any text.
ODD = st.text("aab \n\t<s>/0x41é€*▁\x00\u0301𝄞", max_size=40)
# No characters, of which the zoo's own tokenizers make use.
TEXTS = st.text(st.characters(exclude_characters="\ufffe\uffff", codec="utf-8"))


@given(texts=st.lists(ODD | TEXTS, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_text_has_the_same_ids(both: Any, texts: list[str]) -> None:
    tokenizer, theirs, _ = both
    assert_same_ids(tokenizer, theirs, texts)


def test_special_tokens_are_named(both: Any) -> None:
    tokenizer, theirs, config = both
    for key, own in {
        "pad_token": tokenizer.pad_token_id,
        "unk_token": tokenizer.unk_token_id,
        "bos_token": tokenizer.start_token_id,
        "eos_token": tokenizer.end_token_id,
    }.items():
        assert theirs.token_to_id(config[key]) == own
        assert own in theirs.get_added_tokens_decoder()
        assert theirs.get_added_tokens_decoder()[own].special
    assert theirs.encode("").ids == [tokenizer.start_token_id]
    assert theirs.get_vocab_size() == tokenizer.vocabulary_size()
    assert config["model_max_length"] == 64


@pytest.mark.parametrize("kind", ["bytes", "bpe", "unigram", "characters", "words"])
def test_texts_come_back(kind: str) -> None:
    tokenizer = KINDS[kind]()
    files = hugging_face_files(tokenizer, 64)
    theirs = tokenizers.Tokenizer.from_str(files["tokenizer.json"])
    ids = tokenizer.tokenize(DOCUMENTS[:50])
    assert theirs.decode_batch(ids) == tokenizer.detokenize(ids)
