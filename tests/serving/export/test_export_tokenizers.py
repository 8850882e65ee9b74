"""Signatures work, and count right, with every tokenizer.

An export tokenizes texts to score in one graph, and prompts in another, whatever the
signature: one of each kind is asked. All of them are, of two tokenizers, in
test_export.py.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
import unchecked
from hypothesis import given, settings
from hypothesis import strategies as st
from langzoo.models import (
    SentencePieceTokenizer,
    build_causal_lm,
    character_tokenizer,
    train_word_piece,
    word_tokenizer,
)
from langzoo.models.tasks.scoring import spelling_nll
from langzoo.models.tokenizers.bert import BertTokenizer
from langzoo.models.tokenizers.words import count_words
from langzoo.serving.export.checks import example_of
from langzoo.serving.server.servable import load_servable

CONTEXT = 64
KNOWN = "two words, two more words."
# White space and characters that no vocabulary here lists.
UNKNOWING = ("words", "spaced", "bert", "sentencepiece")
TEXTS = [KNOWN, "", "naïve \t  Ünseen €\0 𝄞\n", KNOWN * 3]


def make_tokenizer(kind: str) -> Any:
    if kind == "characters":
        return character_tokenizer(sorted(set(KNOWN)))
    if kind == "words":
        return word_tokenizer(sorted(count_words([KNOWN])))
    if kind == "spaced":
        return word_tokenizer(sorted(set(KNOWN.split())), spaced=True)
    if kind == "bert":
        pieces = ["two", "word", "##s", "more", ",", "."]
        return BertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces])
    if kind == "sentencepiece":
        return brought_sentencepiece()
    return train_word_piece([KNOWN] * 9, vocabulary_size=540)


def brought_sentencepiece() -> SentencePieceTokenizer:
    """As most of those around: it normalizes, and has no bytes for the unknown."""
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([KNOWN] * 9), model_writer=proto, vocab_size=40,
        model_type="unigram", normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    specials = ["</s>", "<unk>", "<s>", "</s>"]
    return SentencePieceTokenizer(proto.getvalue(), special_pieces=specials)


class Exported(NamedTuple):
    """A tokenizer, a model that reads with it, and that model's export."""

    kind: str
    tokenizer: Any
    model: Any
    servable: Any

    def ask(self, signature: str, **rows: Any) -> dict[str, np.ndarray]:
        return self.servable.signature(signature).run(rows)

    def ask_texts(self, signature: str) -> dict[str, np.ndarray]:
        texts = np.array([text.encode() for text in TEXTS], object)
        return self.ask(signature, text=texts)


@pytest.fixture(
    scope="module",
    params=["characters", "words", "spaced", "word_piece", "bert", "sentencepiece"],
)
def exported(request: Any, tmp_path_factory: Any) -> Iterator[Exported]:
    tokenizer = make_tokenizer(request.param)
    model = build_causal_lm("lstm", tokenizer, CONTEXT, hidden_dim=8)
    generator = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    path = tmp_path_factory.mktemp(request.param) / "1"
    # Each signature is called below, in a TF1 session.
    asked = ["serving_default", "score", "token_scores", "generate", "evaluate"]
    unchecked.export(model, path, asked)
    servable = load_servable(1, path, config=unchecked.AS_IT_IS)
    yield Exported(request.param, tokenizer, model, servable)
    servable.close()


def test_scores_are_the_models_own_and_count_what_was_written(exported: Exported):
    score, tokenizer = exported.ask_texts("score"), exported.tokenizer
    nll = [-float(tf.reduce_sum(scores)) for scores in exported.model.score(TEXTS)]
    np.testing.assert_allclose(score["nll"], nll, rtol=1e-4)
    np.testing.assert_array_equal(
        score["spelling_nll"], spelling_nll(tokenizer, tf.constant(TEXTS))
    )
    assert (score["spelling_nll"][2] > 0) == (exported.kind in UNKNOWING)
    assert score["spelling_nll"][0] == 0
    ids = tokenizer.tokenize(tf.constant(TEXTS))
    assert score["tokens"].tolist() == (ids.row_lengths() + 1).numpy().tolist()
    assert score["bytes"].tolist() == [len(text.encode()) for text in TEXTS]
    assert score["words"].tolist() == [len(text.split()) for text in TEXTS]


def test_examples_are_evaluated_as_their_texts(exported: Exported):
    score = exported.ask_texts("score")
    examples = np.array([example_of(text) for text in TEXTS], object)
    evaluated = exported.ask("evaluate", examples=examples)
    np.testing.assert_allclose(evaluated["nll"], score["nll"])
    np.testing.assert_array_equal(evaluated["spelling_nll"], score["spelling_nll"])


def test_tokens_are_shown_and_proposed_as_text(exported: Exported):
    tokens, tokenizer = exported.ask_texts("token_scores")["token"], exported.tokenizer
    shown = tokenizer.detokenize(tokenizer.tokenize([KNOWN]))[0]
    assert (shown == KNOWN) == (exported.kind not in ("bert", "spaced"))
    assert b"".join(tokens[0]).decode().removeprefix(" ") == f"{shown}</s>".lstrip()
    proposed = exported.ask_texts("serving_default")["token"].ravel()
    assert not {b"<pad>", b"<unk>", b"<s>"}.intersection(proposed)


def test_greedy_text_is_the_models_own(exported: Exported):
    model, tokenizer = exported.model, exported.tokenizer
    (text,) = exported.ask(
        "generate",
        prompt=np.array([KNOWN.encode()], object),
        max_new_tokens=np.array([6], np.int32),
        temperature=np.zeros(1, np.float32),
    )["text"]
    model.compile(sampler="greedy")
    length = 1 + len(tokenizer.tokenize([KNOWN])[0]) + 6
    shown = tokenizer.detokenize(tokenizer.tokenize([KNOWN]))[0]
    assert model.generate([KNOWN], max_length=length) == [shown + text.decode()]


@settings(max_examples=10, deadline=None)
@given(texts=st.lists(st.binary(max_size=20), min_size=1, max_size=3))
def test_no_bytes_stop_a_signature(exported: Exported, texts: list[bytes]):
    """Wherever they stand."""
    rows, few = np.array(texts, object), np.array([3], np.int32)
    stop = np.array([[*texts, b"", b"", b""][:4]], object)
    for name in ("serving_default", "score"):
        exported.ask(name, text=rows)
    outputs = exported.ask("generate", prompt=rows, max_new_tokens=few, stop=stop)
    for text in outputs["text"].ravel():
        text.decode("utf-8")
