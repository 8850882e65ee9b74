"""The probes of classifiers: what they change in an answer, by the model itself."""

from __future__ import annotations

import json

import langzoo  # noqa: F401  (sets the environment, so it comes first)
import numpy as np
import pytest
import unchecked
from langzoo.components.evaluator import probes
from langzoo.components.evaluator.probes import perturbations
from langzoo.components.evaluator.probes.labels import COUNTERFACTUAL, ROBUSTNESS
from langzoo.components.evaluator.probes.samples import sample
from langzoo.components.evaluator.probes.settings import ProbeSettings
from langzoo.models import ByteTokenizer, build
from langzoo.pipelines.configuration import loading
from langzoo.serving.export import saved_model

LABELS = ["good", "bad", "odd"]
TEXTS = ["It is good.", "That is Bad!", "ODD  things", "good, bad and odd", "Is it?"]
PAIRS = """
groups:
  pets:
    words: [[good, bad, parrot]]
    templates: ["My {word} sleeps."]
  colours:
    words: [[red, blue]]
    templates: ["The {word} car stops."]
"""


@pytest.fixture(scope="module", params=[False, True], ids=["one", "several"])
def classifier(request, tmp_path_factory):
    """A model that knows words by their bytes, its export, and whether it has several
    labels a text."""
    model = build(
        *("ngram", ByteTokenizer(), 64),
        task="text_classifier",
        of_task={"labels": LABELS, "multi_label": request.param},
        order=4,
    )
    number = np.arange(12) % 3
    labels = np.eye(3)[number] if request.param else number
    model.fit([f"{LABELS[i]} it is {LABELS[i]}." for i in number], labels)
    folder = str(tmp_path_factory.mktemp("probed") / "model")
    with unchecked.exports():
        saved_model.export(model, folder, task="text_classifier")
    return model, folder, request.param


def said(model, texts):
    """The probabilities of all labels, `[n, 3]`, and the answers."""
    rows = np.array([[row[name] for name in LABELS] for row in model.classify(texts)])
    answers = rows > 0.5 if model.multi_label else np.eye(3)[rows.argmax(axis=1)] > 0
    return rows, answers


def by_hand(model, first, second):
    (before, answer), (after, other) = said(model, first), said(model, second)
    shift = np.abs(before - after).max(axis=1)
    return shift.mean(), (answer != other).any(axis=1).mean()


def test_robustness_is_that_of_the_labels_probabilities(classifier):
    model, folder, _ = classifier
    settings = ProbeSettings(documents=4, characters=9, noise_rate=0.3)
    found = probes.run(ROBUSTNESS, folder, TEXTS, [], settings)
    assert list(found.metrics) == list(ROBUSTNESS)
    clean = [text[:9] for text in sample(TEXTS, 4, 0)]
    changes = perturbations.perturbations(0.3, 0.2, 0)
    for name, change in changes.items():
        shift, flips = by_hand(model, clean, [change(text) for text in clean])
        assert found.metrics[f"{name}_label_shift"] == pytest.approx(shift, abs=1e-5)
        assert found.metrics[f"{name}_label_flips"] == flips
    assert found.metrics["upper_label_shift"] > 0.1
    assert json.dumps(found.details, allow_nan=False)


def test_a_counterfactual_gap_is_that_of_the_labels_probabilities(classifier, tmp_path):
    model, folder, _ = classifier
    (tmp_path / "pairs.yaml").write_text(PAIRS)
    settings = ProbeSettings(templates=str(tmp_path / "pairs.yaml"))
    found = probes.run(COUNTERFACTUAL, folder, [], [], settings)
    pets = [("good", "bad"), ("good", "parrot"), ("bad", "parrot")]
    first, second = ([f"My {words[i]} sleeps." for words in pets] for i in (0, 1))
    cars = [f"The {word} car stops." for word in ("red", "blue")]
    gap, flips = by_hand(model, [*first, cars[0]], [*second, cars[1]])
    of_pets, _ = by_hand(model, first, second)
    of_cars, _ = by_hand(model, cars[:1], cars[1:])
    assert found.metrics == {
        "counterfactual_label_gap": pytest.approx(gap, abs=1e-5),
        "counterfactual_label_largest_group_gap": pytest.approx(
            max(of_pets, of_cars), abs=1e-5
        ),
        "counterfactual_label_flips": flips,
    }
    details = found.details["counterfactual"]
    assert details["groups"]["pets"]["mean_gap"] == pytest.approx(of_pets, abs=1e-5)
    [first_shown, *_] = details["largest"]
    assert first_shown["label"] in LABELS
    assert json.dumps(details, allow_nan=False)


def test_without_documents_nothing_is_measured(classifier):
    _, folder, _ = classifier
    found = probes.run(["noise_label_shift"], folder, [" "], [], ProbeSettings())
    assert np.isnan(found.metrics["noise_label_shift"])


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("counterfactual_label_gap", ""),
        ("upper_label_flips", ""),
        ("counterfactual_gap", "counterfactual_gap"),
    ],
)
def test_rules_are_about_what_a_classifier_can_be_asked(metric, said):
    path = loading.DEMO_CONFIG.with_name("classification.yaml")
    rules = json.dumps([{"metric": metric, "max": 0.5}])
    if not said:
        loading.load(path, [f"gate.rules={rules}"])
        return
    with pytest.raises(loading.ConfigError, match=said):
        loading.load(path, [f"gate.rules={rules}"])
