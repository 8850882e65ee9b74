"""Text classifiers: poolings, labels, presets, and the floor of n-grams."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models import zoo
from langzoo.models.learning.precision import in_precision
from langzoo.models.tasks.pooling import POOLINGS, Pooling
from langzoo.models.tasks.text_classifier import (
    TextClassifier,
    TextClassifierPreprocessor,
)
from scipy import special
from tiny_models import TINY

LABELS = ["question", "statement"]


def built(family="gated_conv", sizes=None, context=24, **options):
    keras.utils.set_random_seed(0)
    return zoo.build(
        family,
        models.ByteTokenizer(),
        context,
        task="text_classifier",
        of_task={"labels": LABELS, **options},
        **(TINY[family] if sizes is None else sizes),
    )


@pytest.fixture(scope="module")
def sentences(shakespeare):
    """Pieces of lines as questions and as statements: the end says which."""
    pieces = [line[begin : begin + 14] for begin in (0, 14) for line in shakespeare]
    labels = np.arange(len(pieces)) % 2
    return [
        f"{p}{'?.'[label]}" for p, label in zip(pieces, labels, strict=True)
    ], labels


def pooled(pooling, states, mask, query=None):
    """What a pooling should give, in NumPy."""
    rows = []
    for row, inside in zip(states, mask, strict=True):
        real = row[inside]
        weights = special.softmax(real @ query) if pooling == "attention" else None
        rows.append(
            {
                "first": lambda real=real: real[0],
                "last": lambda real=real: real[-1],
                "mean": lambda real=real: real.mean(axis=0),
                "attention": lambda real=real, w=weights: w @ real,
            }[pooling]()
        )
    return np.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_pooling_reads_tokens_and_no_padding(pooling):
    states = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    mask = np.arange(5) < np.array([[5], [3], [1]])
    layer = Pooling(pooling)
    layer(states, mask)
    query = np.arange(4) / 4
    layer.set_weights([query] if pooling == "attention" else [])
    np.testing.assert_allclose(
        layer(states, mask), pooled(pooling, states, mask, query), rtol=1e-5
    )


def test_a_text_is_cut_before_its_end():
    preprocessor = TextClassifierPreprocessor(models.ByteTokenizer(), 6)
    start, end = (
        getattr(preprocessor.tokenizer, f"{n}_token_id") for n in ("start", "end")
    )
    features = preprocessor(["abcdefgh", "a"])
    long, short = features["token_ids"].numpy()
    assert long[0] == short[0] == start
    assert long[-1] == short[2] == end
    assert features["padding_mask"].numpy().sum(axis=1).tolist() == [6, 3]


@pytest.mark.parametrize(
    ("family", "pooling"), [("lstm", "last"), ("transformer", "attention")]
)
def test_a_classifier_learns_and_is_saved(sentences, tmp_path, family, pooling):
    texts, labels = sentences
    model = built(family, pooling=pooling)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit(texts, labels, epochs=12, batch_size=16, verbose=0)
    assert model.evaluate(texts, labels, verbose=0)[1] > 0.9
    told = model.classify("is it so?")
    assert next(iter(told)) == "question"
    assert sum(told.values()) == pytest.approx(1, abs=1e-5)
    model.save_to_preset(str(tmp_path))
    again = keras_hub.models.TextClassifier.from_preset(str(tmp_path))
    assert isinstance(again, TextClassifier)
    assert (again.labels, again.pooling) == (LABELS, pooling)
    assert again.classify("is it so?") == pytest.approx(told)


def test_several_labels_are_told_each_by_itself(sentences):
    texts, labels = sentences
    has = np.stack([labels == 0, np.char.str_len(texts) > 0], axis=-1).astype(int)
    model = built(multi_label=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit(texts, has, epochs=25, batch_size=16, verbose=0)
    asked, said = model.classify(["is it so?", "it is so."])
    assert asked["question"] > 0.5 > said["question"]
    assert asked["statement"] > 0.5 < said["statement"]


def test_what_is_trained_is_the_cross_entropy_of_each_decision(sentences):
    texts, labels = sentences
    model = built(multi_label=True)
    has = np.eye(2, dtype=int)[labels]
    logits = model.predict(texts, verbose=0)
    expected = -np.where(has, special.log_expit(logits), special.log_expit(-logits))
    network = model.decisions()
    losses = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None
    )(has, network(model.preprocessor(texts)))
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)


def test_half_precision_keeps_labels_and_weights(sentences):
    model = built(pooling="attention", dropout=0.1)
    twin = in_precision(model, "bfloat16")
    assert (twin.labels, twin.pooling) == (LABELS, "attention")
    found, expected = (m.predict(sentences[0], verbose=0) for m in (twin, model))
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_backbone_of_keras_hub_serves_as_well(sentences, tmp_path):
    tokenizer = models.ByteTokenizer()
    keras.utils.set_random_seed(1)  # another than that of `built`
    backbone = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=24,
    )
    preprocessor = TextClassifierPreprocessor(tokenizer, 24)
    model = TextClassifier(backbone, LABELS, preprocessor, pooling="first")
    states = backbone(
        {
            **preprocessor(sentences[0][:2]),
            "segment_ids": tf.zeros((2, 24), tf.int32),
        }
    )["sequence_output"]
    expected = model.head(states[:, 0])
    np.testing.assert_allclose(
        model.predict(sentences[0][:2], verbose=0), expected, atol=1e-5
    )
    found = models.attribute(model, sentences[0][0], "question")
    assert found.method == "integrated_gradients"
    assert abs(found.residual) <= 0.011


def test_too_few_labels_are_refused():
    with pytest.raises(ValueError, match="at least 2 different names"):
        built(labels=["a"])
    with pytest.raises(ValueError, match="at least 2 different names"):
        built(labels=["a", "a"])
    assert built(labels=["a"], multi_label=True).labels == ["a"]


def test_the_floor_is_bayes_rule_over_language_models(sentences, tmp_path):
    texts, labels = sentences
    model = built("ngram", {"order": 3})
    model.fit(texts, labels)
    share, scale = (float(w.numpy()) for w in (model.bayes.share, model.bayes.scale))
    likelihoods = []
    members = [zoo.build("ngram", models.ByteTokenizer(), 24, order=3) for _ in "123"]
    for member, own in zip(
        members, (labels == 0, labels == 1, labels >= 0), strict=True
    ):
        member.fit([text for text, is_own in zip(texts, own, strict=True) if is_own])
        likelihoods.append(
            np.exp([member.score(text) for text in ("it is?", "it is.")])
        )
    *own, rest = likelihoods
    joint = [
        np.log(28.5) + scale * np.log(share * one + (1 - share) * rest).sum(axis=1)
        for one in own
    ]
    expected = special.softmax(np.stack(joint, axis=-1), axis=-1)
    told = model.classify(["it is?", "it is."])
    found = [[row[label] for label in LABELS] for row in told]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert [next(iter(row)) for row in told] == LABELS
    model.save_to_preset(str(tmp_path))
    again = TextClassifier.from_preset(str(tmp_path))
    assert again.classify("it is?") == pytest.approx(told[0])


def test_the_floor_of_several_labels_has_a_model_of_the_rest(sentences):
    texts, labels = sentences
    has = np.stack([labels == 0, labels == 1], axis=-1)
    model = built("ngram", {"order": 2}, multi_label=True)
    history = model.fit(texts, has)
    # A guess is ln 2 a decision.
    assert history.history["loss"][0] < 0.5
    told = model.classify("it is?")
    assert told["question"] > 0.5 > told["statement"]


@pytest.mark.parametrize("pretrained", [False, True])
def test_a_preset_of_keras_hub_is_a_family_like_others(tmp_path, pretrained):
    tokenizer = models.ByteTokenizer()
    keras.utils.set_random_seed(1)  # another than that of `built`
    backbone = keras_hub.models.BertBackbone(
        tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=32,
    )
    backbone.save_to_preset(str(tmp_path))
    tokenizer.save_to_preset(str(tmp_path))
    sizes = {"preset": str(tmp_path), "pretrained": pretrained}
    model = built("keras_hub", sizes, pooling="first")
    assert model.context_length == 24
    found, learned = (b.get_weights()[0] for b in (model.backbone, backbone))
    assert (found.shape == learned.shape and np.array_equal(found, learned)) == (
        pretrained
    )
    assert set(model.classify("abc")) == set(LABELS)


@pytest.mark.parametrize("family", ["transformer", "ngram"])
def test_what_speaks_for_a_label_sums_to_what_it_says(sentences, family):
    model = built(family, context=32)
    model.fit(*sentences, epochs=1, verbose=0)
    text = "is it so?"
    found = models.attribute(model, text, "question")
    assert found.target == ("question",)
    assert len(found.tokens) == len(text) + 2
    assert found.scores[0] == found.scores[-1] == 0
    told = model.classify(text)["question"]
    assert np.exp(found.output) == pytest.approx(told, rel=1e-3)
    if found.method == "integrated_gradients":
        assert abs(found.residual) <= 0.011
    with pytest.raises(ValueError, match="must be one of question, statement"):
        models.attribute(model, text, "answer")
    # Of a longer text that is explained which is read.
    found = models.attribute(model, text * 9, "question")
    assert len(found.tokens) == 32
    told = model.classify(text * 9)["question"]
    assert np.exp(found.output) == pytest.approx(told, rel=1e-3)


def test_a_classifier_begins_with_what_a_language_model_has_learned(tmp_path):
    tokenizer = models.ByteTokenizer()
    learned = zoo.build("gru", tokenizer, 24, **TINY["gru"])
    learned.save_to_preset(str(tmp_path))
    keras.utils.set_random_seed(1)
    model = zoo.build(
        *("gru", tokenizer, 24, str(tmp_path)),
        task="text_classifier",
        of_task={"labels": LABELS},
        **TINY["gru"],
    )
    for found, expected in zip(
        model.backbone.get_weights(), learned.backbone.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
