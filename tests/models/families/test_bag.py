"""A bag of words and n-grams: what a classifier on it says is a product of means."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from langzoo.models import ByteTokenizer, build
from langzoo.models.families import FAMILIES
from langzoo.models.tasks import TASKS

LABELS = ["question", "statement"]
TEXTS = ["to be, or not to be?", "it is so", ""]


def built(**options):
    keras.utils.set_random_seed(0)
    model = build(
        *("bag", ByteTokenizer(), 24),
        task="text_classifier",
        of_task={"labels": LABELS},
        **{"hidden_dim": 8, "ngram_buckets": 64, **options},
    )
    for weight in model.trainable_variables:
        weight.assign(keras.random.normal(weight.shape, seed=len(weight.shape)))
    return model


@pytest.mark.parametrize("length", [1, 3])
def test_a_classifier_is_linear_in_the_mean_of_the_embeddings(length):
    model = built(ngram_embeddings=length)
    backbone = model.backbone
    features = model.preprocessor(TEXTS)
    table = backbone.token_embedding.get_weights()[0]
    means = []
    for ids, inside in zip(
        features["token_ids"].numpy(), features["padding_mask"].numpy(), strict=True
    ):
        vectors = table[ids[inside]]
        if length > 1:
            rows = backbone.ngram_embedding.rows(ids[None], None, None)
            [ngrams] = backbone.ngram_embedding.table.get_weights()
            vectors = vectors + sum(ngrams[row.numpy()[0][inside]] for row in rows)
        means.append(vectors.mean(axis=0))
    kernel, bias = model.head.get_weights()
    expected = np.stack(means) @ kernel + bias
    np.testing.assert_allclose(model.predict(TEXTS, verbose=0), expected, atol=1e-4)


def test_words_decide_wherever_they_stand():
    model = built()
    first, second = model.predict(["so it is", "is so it"], verbose=0)
    # The spaces are tokens as the letters are.
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_it_learns_and_is_saved(tmp_path, shakespeare):
    model = built(dropout=0.1, embedding_dropout=0.1, ngram_embeddings=2)
    texts = [f"{line}{'?.'[i % 2]}" for i, line in enumerate(shakespeare)]
    labels = np.arange(len(texts)) % 2
    for weight in model.trainable_variables:
        weight.assign(weight * 0.02)
    model.fit(texts, labels, batch_size=8, epochs=30, verbose=0)
    assert model.evaluate(texts, labels, verbose=0)[1] > 0.9
    model.save_to_preset(str(tmp_path / "bag"))
    same = type(model).from_preset(str(tmp_path / "bag"))
    assert same.classify("is it?") == pytest.approx(model.classify("is it?"))


def test_it_classifies_and_does_nothing_else():
    can = [name for name, task in TASKS.items() if FAMILIES["bag"].can(task)]
    assert "text_classifier" in can
    assert not {"causal_lm", "masked_lm"} & {*can}
