"""Metrics of text classifiers are scikit-learn's, on random answers."""

from __future__ import annotations

import numpy as np
import pytest
from langzoo.components.evaluator.measures.sums import CorpusSums, row, seed_of
from langzoo.components.evaluator.measures.text_classifier import METRICS, ByLabel
from sklearn import metrics as sklearn

DOCUMENTS, LABELS = 300, 5
VALUES = {metric.name: metric for metric in METRICS}


def sums_of(has, said, nll=None, judged=None, unknown=None):
    """Sums of documents whose labels, and what they are said to have, are ones."""
    count = len(has)
    nll = np.zeros(count) if nll is None else nll
    unknown = np.zeros(count) if unknown is None else unknown
    for_all = np.ones(count) if judged is None else judged
    return CorpusSums.of(
        (
            seed_of(str(i).encode()),
            row(
                {
                    "nll": nll[i],
                    "labelled": float(unknown[i] == 0),
                    "judged": for_all[i],
                    "unknown_labels": unknown[i],
                    "correct": float((has[i] == said[i]).all() and not unknown[i]),
                    "by_label": np.concatenate(
                        [
                            np.stack([has[i], said[i], has[i] * said[i]], axis=-1),
                            np.outer(has[i], said[i]),
                        ],
                        axis=-1,
                    ),
                }
            ),
        )
        for i in range(count)
    )


def value(name, sums):
    return VALUES[name].values(sums)[0]


@pytest.fixture(scope="module")
def answers():
    """Numbers of labels, one of which no document has, and probabilities."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, LABELS - 1, DOCUMENTS)
    logits = generator.normal(size=(DOCUMENTS, LABELS))
    logits[np.arange(DOCUMENTS), labels] += 1
    logits[:, -1] = -9  # Nor is any said to have it.
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_measures_of_one_label_are_those_of_scikit_learn(answers):
    labels, probabilities = answers
    said = probabilities.argmax(axis=1)
    nll = -np.log(probabilities[np.arange(DOCUMENTS), labels])
    sums = sums_of(np.eye(LABELS)[labels], np.eye(LABELS)[said], nll)
    expected = {
        "cross_entropy": sklearn.log_loss(
            labels, probabilities, labels=np.arange(LABELS)
        ),
        "accuracy": sklearn.accuracy_score(labels, said),
        "macro_f1": sklearn.f1_score(labels, said, average="macro"),
        "micro_f1": sklearn.f1_score(labels, said, average="micro"),
        "unknown_label_rate": 0.0,
    }
    assert {name: value(name, sums) for name in expected} == pytest.approx(expected)
    by = ByLabel.of(sums.by_label)
    precision, recall, *_ = sklearn.precision_recall_fscore_support(
        labels, said, labels=np.arange(LABELS - 1)
    )
    np.testing.assert_allclose(by.precision[0, :-1], precision)
    np.testing.assert_allclose(by.recall[0, :-1], recall)
    np.testing.assert_array_equal(
        sums.by_label[0, :, 3:],
        sklearn.confusion_matrix(labels, said, labels=np.arange(LABELS)),
    )


def test_measures_of_several_labels_are_those_of_scikit_learn():
    generator = np.random.default_rng(1)
    has, said = generator.integers(0, 2, (2, DOCUMENTS, LABELS)).astype(float)
    sums = sums_of(has, said)
    expected = {
        "accuracy": sklearn.accuracy_score(has, said),
        "macro_f1": sklearn.f1_score(has, said, average="macro"),
        "micro_f1": sklearn.f1_score(has, said, average="micro"),
    }
    assert {name: value(name, sums) for name in expected} == pytest.approx(expected)


def test_an_unknown_label_is_a_wrong_answer_without_a_cross_entropy():
    has = np.array([[1.0, 0.0], [0.0, 0.0]])
    said = np.array([[1.0, 0.0], [1.0, 0.0]])
    sums = sums_of(has, said, np.array([0.5, 0.0]), unknown=np.array([0, 1]))
    found = {name: value(name, sums) for name in VALUES if "calibration" not in name}
    assert found == pytest.approx(
        {
            "cross_entropy": 0.5,
            "accuracy": 0.5,
            "macro_f1": 2 / 3,  # of one label, whose precision is a half
            "micro_f1": 0.5,
            "unknown_label_rate": 0.5,
        }
    )


def test_calibration_is_of_the_answers():
    calibration = np.zeros((15, 3))
    calibration[13] = [10, 9.0, 7]
    calibration[5] = [10, 3.5, 4]
    sums = CorpusSums.of([(1, row({"calibration": calibration}))])
    assert value("label_calibration_error", sums) == pytest.approx((2 + 0.5) / 20)


def test_sums_of_blocks_are_those_of_documents(answers):
    labels, probabilities = answers
    has = np.eye(LABELS)[labels]
    sums = sums_of(has, np.eye(LABELS)[probabilities.argmax(axis=1)])
    assert sums.by_label.shape == (1 + DOCUMENTS, LABELS, 3 + LABELS)
    without_first = VALUES["accuracy"].values(sums)[1:]
    assert np.unique(without_first.round(6)).size == 2
