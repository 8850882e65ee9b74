"""Metrics against values computed by hand, however the documents are bundled."""

from __future__ import annotations

import math

import numpy as np
import pytest
from langzoo.components.evaluator.measures import metrics
from langzoo.components.evaluator.measures.tables import measures_of

MEASURES = measures_of("causal_lm")


def calibration(**bins):
    """`[15, 3]`, zero but for what is given as `bin_N=[tokens, confidence, right]`."""
    sums = np.zeros((15, 3), np.float32)
    for name, values in bins.items():
        sums[int(name.removeprefix("bin_"))] = values
    return sums


# Two documents: 2 nats over 4 tokens, 10 bytes, 2 words; 6 nats over 2, 6 and 1, and 4
# more to spell what is unknown. Of the first, 3 tokens were the likeliest, each with a
# probability of 0.9; that of the likeliest was 0.1 at the other.
DOCUMENTS = [
    {
        "nll": 2.0,
        "spelling_nll": 0.0,
        "tokens": 4,
        "bytes": 10,
        "words": 2,
        "characters": 8,
        "unknown_tokens": 0,
        "correct_at_1": 3,
        "correct_at_5": 4,
        "calibration": calibration(bin_13=[3, 2.7, 3], bin_1=[1, 0.1, 0]),
    },
    {
        "nll": 6.0,
        "spelling_nll": 4.0,
        "tokens": 2,
        "bytes": 6,
        "words": 1,
        "characters": 6,
        "unknown_tokens": 1,
        "correct_at_1": 0,
        "correct_at_5": 1,
        "calibration": calibration(bin_1=[2, 0.2, 0]),
    },
]
BY_HAND = {
    "perplexity": math.exp(8 / 6),
    "word_perplexity": math.exp(12 / 3),
    "bits_per_byte": 12 / (16 * math.log(2)),
    "bits_per_character": 12 / (14 * math.log(2)),
    "token_accuracy": 3 / 6,
    "token_accuracy_at_5": 5 / 6,
    # Of 3 tokens the model was sure by 0.9 and right; of 3 by 0.1, and wrong.
    "expected_calibration_error": (3 * 0.1 + 3 * 0.1) / 6,
    "out_of_vocabulary_rate": 1 / (6 - 2),
}


def text_of(index):
    return f"document {index}".encode()


class Inputs:
    """What TFMA hands to a combiner for a document."""

    def __init__(self, document, text):
        self._document, self._text = document, text

    def get_predictions(self, model_name):
        return {name: np.array([value]) for name, value in self._document.items()}

    def get_features(self):
        return {"text": np.array([self._text], object)}


def compute(name, bundles):
    """The metric of bundles of documents, numbered through."""
    sums, derived = metrics.CorpusMetric(name=name).computations()
    accumulators, number = [], 0
    for bundle in bundles:
        accumulator = sums.combiner.create_accumulator()
        for document in bundle:
            inputs = Inputs(document, text_of(number))
            accumulator = sums.combiner.add_input(accumulator, inputs)
            number += 1
        accumulators.append(accumulator)
    merged = sums.combiner.merge_accumulators(accumulators)
    (value,) = derived.result(sums.combiner.extract_output(merged)).values()
    return value


def test_every_metric_is_computed_by_hand_and_defined():
    assert BY_HAND.keys() == MEASURES.keys()
    for metric in MEASURES.values():
        assert metric.definition.endswith(".")
        documentation = " ".join(metric.compute.__doc__.split())
        assert "Unit: " in documentation
        assert "Source: " in documentation


@pytest.mark.parametrize("name", BY_HAND)
def test_metric_equals_the_value_by_hand_however_documents_are_bundled(name):
    apart = [[document] for document in DOCUMENTS]
    for bundles in ([DOCUMENTS], apart):
        assert compute(name, bundles) == pytest.approx(BY_HAND[name], rel=1e-6)


def test_the_perplexity_is_not_the_mean_of_the_documents():
    mean = np.mean([math.exp(d["nll"] / d["tokens"]) for d in DOCUMENTS])
    assert compute("perplexity", [DOCUMENTS]) != pytest.approx(mean, rel=0.1)


def test_without_words_the_word_perplexity_is_no_number():
    document = {**DOCUMENTS[0], "words": 0}
    assert math.isnan(compute("word_perplexity", [[document]]))


def test_a_baseline_from_before_an_output_goes_without():
    names = ("nll", "tokens", "bytes", "words")
    older = {name: DOCUMENTS[1][name] for name in names}
    assert compute("bits_per_byte", [[older]]) == pytest.approx(1 / math.log(2))
    assert math.isnan(compute("token_accuracy", [[older]]))
    assert math.isnan(compute("expected_calibration_error", [[older]]))


def test_candidate_and_baseline_are_computed_apart():
    names = ["candidate", "baseline"]
    computations = metrics.CorpusMetric("perplexity").computations(model_names=names)
    models = [c.keys[0].model_name for c in computations]
    assert models == ["candidate", "candidate", "baseline", "baseline"]
