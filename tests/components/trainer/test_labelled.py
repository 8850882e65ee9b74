"""Rows of labelled documents: what is learned of them, and how much."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from langzoo.components.errors import InputError
from langzoo.components.trainer import callbacks, training
from langzoo.components.trainer.evaluation import Texts
from langzoo.components.trainer.networks import network_of, prepared
from langzoo.components.trainer.rows.labelled import LabelledRows, balanced
from langzoo.components.trainer.rows.windows import write_token_ids
from langzoo.components.trainer.settings import TrainerSettings
from langzoo.models import ByteTokenizer, build
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


def changed(labelled, first_step=0, seed=0):
    """The tokens of rows of some steps, without padding, and their labels."""
    batches = labelled.training_batches(
        2, seed=seed, first_step=first_step, last_step=9
    )
    return [row[:2] for row in read(batches)]


def test_texts_are_changed_by_seed_and_step(rows):
    start, end = (getattr(ByteTokenizer(), f"{n}_token_id") for n in ("start", "end"))
    plain = changed(rows())
    swapped = changed(rows(random_swap=0.5))
    deleted = changed(rows(random_deletion=0.5))
    assert swapped == changed(rows(random_swap=0.5))
    assert swapped != changed(rows(random_swap=0.5), seed=1) != plain
    for (ids, label), (other, same), (fewer, alike) in zip(
        plain, swapped, deleted, strict=True
    ):
        assert label == same == alike
        for one in (ids, other, fewer):
            assert (one[0], one[-1]) == (start, end)
        assert sorted(other) == sorted(ids)
        assert min(len(ids), 3) <= len(fewer) <= len(ids)
        left = iter(ids)
        assert all(token in left for token in fewer)  # in their order
    lost = 1 - sum(len(row) - 2 for row, _ in deleted) / sum(
        len(r) - 2 for r, _ in plain
    )
    assert 0.3 < lost < 0.7
    # And where a training goes on, it does as it would have.
    whole = rows(random_swap=0.5, random_deletion=0.2)
    late = changed(whole, first_step=4)
    assert changed(whole)[-len(late) :] == late


def train(labelled, folder):
    """A classifier of the rows after ten steps, and what training says it did."""
    settings = TrainerSettings(
        steps=10,
        batch_size=2,
        jit_compile=False,
        eval_every_steps=4,
        early_stopping_patience=9,
        layer_rates={"block_*": 0.3},
        unfreeze={"block_0": 5},
        warmup_steps=2,
    ).of_family("gated_conv")
    keras.utils.set_random_seed(0)
    model = build(
        *("gated_conv", ByteTokenizer(), CONTEXT),
        task="text_classifier",
        of_task={"labels": ["x", "y", "z"], "dropout": 0.2},
        num_layers=1,
        hidden_dim=8,
    )
    network = network_of(prepared(model, settings), settings)
    texts = Texts(6, 60, task="text_classifier")
    result = training.train(network, labelled, labelled, settings, str(folder), texts)
    return model, result


def test_an_interrupted_training_ends_alike(
    rows, tmp_path, interrupted, listening, monkeypatch
):
    monkeypatch.setattr(callbacks, "_SHOW_EVERY_SECONDS", 0)
    labelled = rows(class_weights="balanced", random_swap=0.3, random_deletion=0.2)
    with listening() as said:
        whole, expected = train(labelled, tmp_path / "whole")
    assert "texts/s" in " ".join(said)
    assert "perplexity" not in " ".join(said)
    expected.write_tables(str(tmp_path))
    assert "perplexity" not in (tmp_path / "history.csv").read_text()
    with interrupted("step 7/"):
        train(labelled, tmp_path / "parts")
    resumed, result = train(labelled, tmp_path / "parts")
    assert result.resumed_at == 7
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), atol=1e-6)
    losses = [[row["loss"] for row in one.evaluations] for one in (expected, result)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
