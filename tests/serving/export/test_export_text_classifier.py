"""Exports of text classifiers answer as their Keras models do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from langzoo import models
from langzoo.models import zoo
from langzoo.serving.export import contract, saved_model
from scipy import special
from serialized import example
from tiny_models import TINY

LABELS = ["a", "b", "c"]
CONTEXT = 16
TEXTS = ["", "short", "né", "a text that is longer than the context is long", "b"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Makes a model, the one of a kind, and its signatures; the first is checked."""
    found = {}

    def export(family, multi_label):
        keras.utils.set_random_seed(0)
        model = zoo.build(
            *(family, models.ByteTokenizer(), CONTEXT),
            task="text_classifier",
            of_task={"labels": LABELS, "multi_label": multi_label},
            **TINY[family],
        )
        if family == "ngram":
            number = np.arange(9) % 3
            has = np.eye(3)[number] if multi_label else number
            model.fit([f"{LABELS[i]} {i}" for i in number], has)
        else:
            model.head.set_weights([w * 9 for w in model.head.get_weights()])
        folder = str(tmp_path_factory.mktemp("export") / "model")
        saved_model.export(model, folder, task="text_classifier")
        return model, tf.saved_model.load(folder), folder

    def get(family="gated_conv", multi_label=False):
        key = family, multi_label
        if key not in found:
            found[key] = export(*key)
            patch.setattr(saved_model, "check_export", lambda _: None)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        yield get


KINDS = pytest.mark.parametrize(
    ("family", "multi_label"),
    [("gated_conv", False), ("gated_conv", True), ("ngram", False)],
)


@KINDS
def test_labels_come_best_first_with_the_model_s_probabilities(
    exported, family, multi_label
):
    model, loaded, _ = exported(family, multi_label)
    logits = model.predict(TEXTS, verbose=0)
    expected = special.expit(logits) if multi_label else special.softmax(logits, axis=1)
    told = loaded.signatures["serving_default"](text=tf.constant(TEXTS))
    order = np.argsort(-expected, axis=1, kind="stable")
    np.testing.assert_array_equal(
        told["label"].numpy().astype(str), np.array(LABELS)[order]
    )
    np.testing.assert_allclose(
        told["probability"], np.take_along_axis(expected, order, 1), atol=1e-5
    )
    classified = loaded.signatures["classify"](
        inputs=tf.constant([example(text=[text]) for text in TEXTS])
    )
    np.testing.assert_array_equal(classified["classes"], told["label"])
    np.testing.assert_array_equal(classified["scores"], told["probability"])


def test_classify_is_a_method_of_its_own(exported):
    *_, folder = exported()
    (graph,) = saved_model_graphs(folder)
    methods = {name: it.method_name for name, it in graph.signature_def.items()}
    assert methods.pop("classify") == "tensorflow/serving/classify"
    assert methods.pop("serving_default") == "tensorflow/serving/predict"
    names = {it.name for it in contract.SIGNATURES["text_classifier"]}
    assert names <= {*methods, "classify", "serving_default"}


def saved_model_graphs(folder):
    from langzoo.serving.export.checks import graphs_of

    return graphs_of(folder)


def test_a_score_is_of_exactly_the_labels_that_are_given(exported):
    model, loaded, _ = exported()
    score = loaded.signatures["score"]
    logs = special.log_softmax(model.predict(["short"], verbose=0)[0])
    asked = ["b", " c ", "x", ""]
    found = score(text=tf.constant(["short"] * 4), label=tf.constant(asked))
    np.testing.assert_allclose(
        found["log_probability"], [*logs[1:], -np.inf, -np.inf], rtol=1e-5
    )
    model, loaded, _ = exported(multi_label=True)
    logits = model.predict(["short"], verbose=0)[0]
    yes, no = special.log_expit(logits), special.log_expit(-logits)
    found = loaded.signatures["score"](
        text=tf.constant(["short"] * 3), label=tf.constant(["c\na", "", "a\nx"])
    )["log_probability"]
    expected = [yes[0] + no[1] + yes[2], no.sum(), -np.inf]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_sums_of_a_document_are_those_of_its_labels(exported, multi_label):
    model, loaded, _ = exported(multi_label=multi_label)
    labels = [["a"], ["x"], [], ["b", "c"] if multi_label else ["b"]]
    logits = model.predict(TEXTS[:4], verbose=0)
    examples = [
        example(text=[text], label=own)
        for text, own in zip(TEXTS[:4], labels, strict=True)
    ]
    told = loaded.signatures["evaluate"](examples=tf.constant(examples))
    told = {name: tensor.numpy() for name, tensor in told.items()}
    has = np.array([[name in own for name in LABELS] for own in labels])
    if multi_label:
        said = logits > 0
        nll = -np.where(has, special.log_expit(logits), special.log_expit(-logits))
        nll, labelled = nll.sum(axis=1), [1, 1, 1, 1]
    else:
        said = logits == logits.max(axis=1, keepdims=True)
        nll = -(special.log_softmax(logits, axis=1) * has).sum(axis=1)
        labelled = [1, 0, 0, 1]
    judged = np.maximum(labelled, [0, 1, 0, 0])
    right = (has == said).all(axis=1) & [True, False, True, True]
    np.testing.assert_allclose(told["nll"], nll * labelled, rtol=1e-5)
    np.testing.assert_array_equal(told["labelled"], labelled)
    np.testing.assert_array_equal(told["judged"], judged)
    np.testing.assert_array_equal(told["unknown_labels"], [0, 1, 0, 0])
    np.testing.assert_array_equal(told["correct"], right & (judged > 0))
    by_label = told["by_label"]
    np.testing.assert_array_equal(by_label[..., 0], has)
    np.testing.assert_array_equal(by_label[..., 1], said & (judged > 0)[:, None])
    np.testing.assert_array_equal(by_label[..., 2], has & said)
    np.testing.assert_array_equal(by_label[..., 3:], has[:, :, None] & said[:, None])
    answers = 3 if multi_label else 1
    counted = told["calibration"].sum(axis=1)
    np.testing.assert_array_equal(counted[:, 0], np.array(labelled) * answers)
