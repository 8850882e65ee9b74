"""Rows of labelled documents: what is learned of them, and how much."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from langzoo.components.errors import InputError
from langzoo.components.trainer.rows.labelled import LabelledRows, balanced
from langzoo.components.trainer.rows.windows import write_token_ids
from langzoo.models import ByteTokenizer
from langzoo.models.tasks.classifying import ClassifierSettings
from langzoo.models.tasks.text_classifier import TextClassifierPreprocessor
from sklearn.utils.class_weight import compute_class_weight

CONTEXT = 16
TEXTS = ["a", "", "longer than the context is", "fits just so..", "b", "cc"]
LABELS = np.array([0, 1, 1, 2, 1, 0])


@pytest.fixture
def rows(tmp_path):
    """Makes rows of the texts, as they are read of what was written."""

    def make(labels=LABELS, **settings):
        path = str(tmp_path / "train")
        tokenizer = ByteTokenizer()
        ids = [np.array(tokenizer.tokenize(text), int) for text in TEXTS]
        write_token_ids(path, ids, tokenizer)
        np.save(f"{path}.labels.npy", labels.astype(np.int32))
        Path(f"{path}.labels.json").write_text(json.dumps(["x", "y", "z"]))
        return LabelledRows(path, CONTEXT, ClassifierSettings(**settings))

    return make


def read(batches):
    """Each row's tokens, without padding, its target and its weight."""
    found = []
    for features, targets, weights in batches:
        for ids, inside, target, weight in zip(
            features["token_ids"].numpy(),
            features["padding_mask"].numpy(),
            targets.numpy(),
            weights.numpy(),
            strict=True,
        ):
            if inside.any():
                found.append((ids[inside].tolist(), target.tolist(), weight.tolist()))
            else:
                assert not np.any(weight)
    return found


def test_a_row_is_what_the_preprocessor_makes_of_its_text(rows):
    features = TextClassifierPreprocessor(ByteTokenizer(), CONTEXT)(TEXTS)
    ids, inside = (features[k].numpy() for k in ("token_ids", "padding_mask"))
    expected = [
        (row[is_in].tolist(), label)
        for row, is_in, label in zip(ids, inside, LABELS, strict=True)
    ]
    found = read(rows().evaluation_batches(4))
    assert sorted(row[:2] for row in found) == sorted(expected)
    assert {weight for *_, weight in found} == {1.0}


def test_an_epoch_has_each_document_once_in_an_order_of_its_own(rows):
    labelled = rows()
    steps = labelled.steps_an_epoch(2)
    of_epochs = [
        read(
            labelled.training_batches(
                2, seed=0, first_step=epoch * steps, last_step=(epoch + 1) * steps
            )
        )
        for epoch in range(3)
    ]
    assert all(len(epoch) == len(TEXTS) for epoch in of_epochs)
    assert sorted(of_epochs[0]) == sorted(of_epochs[1])
    assert of_epochs[0] != of_epochs[1] or of_epochs[0] != of_epochs[2]


def test_balanced_weights_are_those_of_scikit_learn(rows):
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(balanced(LABELS), expected)
    labelled = rows(class_weights="balanced")
    batches = labelled.training_batches(
        6, seed=0, first_step=0, last_step=labelled.steps_an_epoch(6)
    )
    for _, label, weight in read(batches):
        assert weight == pytest.approx(expected[label])
    assert {weight for *_, weight in read(labelled.evaluation_batches(6))} == {1.0}


def test_several_labels_have_a_target_and_a_weight_each(rows):
    has = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    labelled = rows(has, class_weights={"y": 3.0})
    assert labelled.decisions == 3
    batches = labelled.training_batches(
        6, seed=0, first_step=0, last_step=labelled.steps_an_epoch(6)
    )
    found = read(batches)
    assert sorted(target for _, target, _ in found) == sorted(has.tolist())
    for _, target, weight in found:
        assert weight == [1.0, 3.0 if target[1] else 1.0, 1.0]
    # As much of those that have a label as of those that have not.
    np.testing.assert_allclose(balanced(has) * has.sum(axis=0), 6 - has.sum(axis=0))


def test_a_weight_of_no_label_is_refused_in_a_line(rows):
    labelled = rows(class_weights={"w": 2.0})
    with pytest.raises(InputError, match="has the label 'w': there are x, y, z"):
        labelled.training_batches(2, seed=0, first_step=0, last_step=1)
