"""All signatures work, and count right, with every tokenizer."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tensorflow as tf
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
from langzoo.serving.export.saved_model import export_causal_lm
from langzoo.serving.server.servable import load_servable

CONTEXT = 64
KNOWN = "two words, two more words."
# White space and characters that no vocabulary here lists.
UNKNOWING = ("words", "bert", "sentencepiece")
TEXTS = [KNOWN, "", "naïve \t  Ünseen €\0 𝄞\n", KNOWN * 3]


def make_tokenizer(kind: str) -> Any:
    if kind == "characters":
        return character_tokenizer(sorted(set(KNOWN)))
    if kind == "words":
        return word_tokenizer(sorted(count_words([KNOWN])))
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


@pytest.mark.parametrize(
    "kind", ["characters", "words", "word_piece", "bert", "sentencepiece"]
)
def test_every_signature_works_with_the_tokenizer(kind, tmp_path):
    tokenizer = make_tokenizer(kind)
    model = build_causal_lm("lstm", tokenizer, CONTEXT, hidden_dim=8)
    generator = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    # It checks the ops, and every signature in a TF1 session.
    export_causal_lm(model, tmp_path / "1")
    servable = load_servable(1, tmp_path / "1")

    def ask(signature: str, **rows: Any) -> dict[str, np.ndarray]:
        return servable.signature(signature).run(rows)

    texts = np.array([text.encode() for text in TEXTS], object)
    score = ask("score", text=texts)
    ids = tokenizer.tokenize(tf.constant(TEXTS))
    nll = [-float(tf.reduce_sum(scores)) for scores in model.score(TEXTS)]
    np.testing.assert_allclose(score["nll"], nll, rtol=1e-4)
    np.testing.assert_array_equal(
        score["spelling_nll"], spelling_nll(tokenizer, tf.constant(TEXTS))
    )
    assert (score["spelling_nll"][2] > 0) == (kind in UNKNOWING)
    assert score["spelling_nll"][0] == 0
    assert score["tokens"].tolist() == (ids.row_lengths() + 1).numpy().tolist()
    assert score["bytes"].tolist() == [len(text.encode()) for text in TEXTS]
    assert score["words"].tolist() == [len(text.split()) for text in TEXTS]

    examples = [
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "text": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[text.encode()])
                    )
                }
            )
        ).SerializeToString()
        for text in TEXTS
    ]
    evaluated = ask("evaluate", examples=np.array(examples, object))
    np.testing.assert_allclose(evaluated["nll"], score["nll"])
    np.testing.assert_array_equal(evaluated["spelling_nll"], score["spelling_nll"])

    tokens = ask("token_scores", text=texts)["token"]
    shown = tokenizer.detokenize(tokenizer.tokenize([KNOWN]))[0]
    assert (shown == KNOWN) == (kind != "bert")
    assert b"".join(tokens[0]).decode().removeprefix(" ") == f"{shown}</s>"

    proposed = ask("serving_default", text=texts)["token"].ravel()
    assert not {b"<pad>", b"<unk>", b"<s>"}.intersection(proposed)
    (text,) = ask(
        "generate",
        prompt=np.array([KNOWN.encode()], object),
        max_new_tokens=np.array([6], np.int32),
        temperature=np.zeros(1, np.float32),
    )["text"]
    model.compile(sampler="greedy")
    length = 1 + len(tokenizer.tokenize([KNOWN])[0]) + 6
    assert model.generate([KNOWN], max_length=length) == [shown + text.decode()]
    check_arbitrary_bytes(servable)
    servable.close()


def check_arbitrary_bytes(servable: Any) -> None:
    """No bytes, wherever they stand, stop a signature."""

    @settings(max_examples=10, deadline=None)
    @given(texts=st.lists(st.binary(max_size=20), min_size=1, max_size=3))
    def check(texts: list[bytes]) -> None:
        rows, few = np.array(texts, object), np.array([3], np.int32)
        stop = np.array([[*texts, b"", b"", b""][:4]], object)
        for name in ("serving_default", "score", "token_alternatives"):
            servable.signature(name).run({"text": rows})
        for name in ("generate", "beam_search"):
            inputs = {"prompt": rows, "max_new_tokens": few, "stop": stop}
            for text in servable.signature(name).run(inputs)["text"].ravel():
                text.decode("utf-8")

    check()
