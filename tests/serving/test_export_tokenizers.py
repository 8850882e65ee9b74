"""All signatures work, and count right, with every tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from langzoo.models import (
    build_causal_lm,
    character_tokenizer,
    train_word_piece,
    word_tokenizer,
)
from langzoo.models.bert import BertTokenizer
from langzoo.models.words import count_words
from langzoo.serving.export import export_causal_lm

CONTEXT = 64
KNOWN = "two words, two more words."
# White space and characters that no vocabulary here lists.
TEXTS = [KNOWN, "", "naïve \t  Ünseen €\0 𝄞\n", KNOWN * 3]


def make_tokenizer(kind: str) -> Any:
    if kind == "characters":
        return character_tokenizer(sorted(set(KNOWN)))
    if kind == "words":
        return word_tokenizer(sorted(count_words([KNOWN])))
    if kind == "bert":
        pieces = ["two", "word", "##s", "more", ",", "."]
        return BertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces])
    return train_word_piece([KNOWN] * 9, vocabulary_size=540)


@pytest.mark.parametrize("kind", ["characters", "words", "word_piece", "bert"])
def test_every_signature_works_with_the_tokenizer(kind, tmp_path):
    tokenizer = make_tokenizer(kind)
    model = build_causal_lm("lstm", tokenizer, CONTEXT, hidden_dim=8)
    generator = np.random.default_rng(7)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))
    # It checks the ops, and every signature in a TF1 session.
    export_causal_lm(model, tmp_path / "1")
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    texts = tf.constant(TEXTS)

    score = signatures["score"](text=texts)
    ids = tokenizer.tokenize(texts)
    nll = [-float(tf.reduce_sum(scores)) for scores in model.score(TEXTS)]
    np.testing.assert_allclose(score["nll"], nll, rtol=1e-4)
    assert score["tokens"].numpy().tolist() == (ids.row_lengths() + 1).numpy().tolist()
    assert score["bytes"].numpy().tolist() == [len(text.encode()) for text in TEXTS]
    assert score["words"].numpy().tolist() == [len(text.split()) for text in TEXTS]

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
    evaluated = signatures["evaluate"](examples=tf.constant(examples))
    np.testing.assert_allclose(evaluated["nll"], score["nll"])

    tokens = signatures["token_scores"](text=texts)["token"].numpy()
    shown = tokenizer.detokenize(tokenizer.tokenize([KNOWN]))[0]
    assert (shown == KNOWN) == (kind != "bert")
    assert b"".join(tokens[0]).decode().removeprefix(" ") == f"{shown}</s>"

    proposed = signatures["serving_default"](text=texts)["token"].numpy().ravel()
    assert not {b"<pad>", b"<unk>", b"<s>"}.intersection(proposed)
    options = {"max_new_tokens": 6, "temperature": 0.0, "top_k": 0, "top_p": 1.0}
    inputs = {key: tf.constant([value]) for key, value in options.items()}
    (text,) = signatures["generate"](
        prompt=tf.constant([KNOWN]), seed=tf.constant([0]), **inputs
    )["text"].numpy()
    model.compile(sampler="greedy")
    length = 1 + len(tokenizer.tokenize([KNOWN])[0]) + 6
    assert model.generate([KNOWN], max_length=length) == [shown + text.decode()]
