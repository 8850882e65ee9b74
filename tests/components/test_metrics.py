"""Metrics against values computed by hand, however the documents are bundled."""

from __future__ import annotations

import math

import numpy as np
import pytest
from langzoo.components.evaluator import gate, metrics

# Two documents: 2 nats over 4 tokens, 10 bytes, 2 words; 6 nats over 2, 6 and 1, and 4
# more to spell what is unknown.
DOCUMENTS = [
    {"nll": 2.0, "spelling_nll": 0.0, "tokens": 4, "bytes": 10, "words": 2},
    {"nll": 6.0, "spelling_nll": 4.0, "tokens": 2, "bytes": 6, "words": 1},
]
BY_HAND = {
    "perplexity": math.exp(8 / 6),
    "word_perplexity": math.exp(12 / 3),
    "bits_per_byte": 12 / (16 * math.log(2)),
    "nll": 8.0,
    "spelling_nll": 4.0,
    "tokens": 6,
    "bytes": 16,
    "words": 3,
    "documents": 2,
}
CLASSES = {
    "perplexity": metrics.Perplexity,
    "word_perplexity": metrics.WordPerplexity,
    "bits_per_byte": metrics.BitsPerByte,
}


class Predictions:
    """What TFMA hands to a combiner for a batch of documents."""

    def __init__(self, documents):
        self._columns = {
            name: np.array([document[name] for document in documents])
            for name in documents[0]
        }

    def get_predictions(self, model_name):
        return self._columns


def make(name):
    return CLASSES.get(name, metrics.CorpusSum)(name=name)


def compute(name, bundles):
    sums, derived = make(name).computations()
    accumulators = [
        sums.combiner.add_input(sums.combiner.create_accumulator(), Predictions(bundle))
        for bundle in bundles
    ]
    merged = sums.combiner.merge_accumulators(accumulators)
    (value,) = derived.result(sums.combiner.extract_output(merged)).values()
    return value


@pytest.mark.parametrize("name", BY_HAND)
def test_metric_equals_the_value_by_hand(name):
    assert compute(name, [DOCUMENTS]) == pytest.approx(BY_HAND[name], rel=1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_metric_does_not_depend_on_bundles(name):
    apart = [[document] for document in DOCUMENTS]
    assert compute(name, apart) == pytest.approx(BY_HAND[name], rel=1e-12)


def test_the_perplexity_is_not_the_mean_of_the_documents():
    mean = np.mean([math.exp(d["nll"] / d["tokens"]) for d in DOCUMENTS])
    assert compute("perplexity", [DOCUMENTS]) != pytest.approx(mean, rel=0.1)


def test_without_words_the_word_perplexity_is_no_number():
    document = {**DOCUMENTS[0], "words": 0}
    assert math.isnan(compute("word_perplexity", [[document]]))


def test_a_baseline_from_before_spelling_goes_without():
    older = {**DOCUMENTS[1]}
    del older["spelling_nll"]
    value = compute("bits_per_byte", [[older]])
    assert value == pytest.approx(6 / (6 * math.log(2)))


def test_the_gate_says_what_share_of_the_bits_spells_the_unknown():
    values = {"bits_per_byte": 2.0, "nll": 6.0, "spelling_nll": 4.0}
    decision = gate.Decision(True, values, None, 2.5, 0.0)
    said = "blessed: 2.000 bits per byte (40.0% of them spell the unknown), bound 2.500"
    assert str(decision) == said
    known = gate.Decision(True, {**values, "spelling_nll": 0.0}, None, 2.5, 0.0)
    assert str(known) == "blessed: 2.000 bits per byte, bound 2.500"


@pytest.mark.parametrize("name", BY_HAND)
def test_candidate_and_baseline_are_computed_apart(name):
    computations = make(name).computations(model_names=["candidate", "baseline"])
    models = [c.keys[0].model_name for c in computations]
    assert models == ["candidate", "candidate", "baseline", "baseline"]
