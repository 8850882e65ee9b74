"""Metrics against values computed by hand, however the documents are bundled."""

from __future__ import annotations

import math

import numpy as np
import pytest
from langzoo.benchmarks import intervals
from langzoo.components.evaluator.measures import metrics
from langzoo.components.evaluator.measures.sums import (
    BLOCKS,
    Blocks,
    CorpusSums,
    interval,
    row,
    seed_of,
)
from langzoo.components.evaluator.measures.tables import MEASURES
from scipy import stats


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


def corpus(documents):
    return CorpusSums.of(
        (seed_of(text_of(index)), row(document))
        for index, document in enumerate(documents)
    )


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


def drawn(seed, documents):
    """Documents whose losses a token scatter around 2 nats."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(20, 60, documents)
    noise = generator.normal(size=documents)
    return [
        {**DOCUMENTS[0], "nll": 2.0 * t + 3 * e, "tokens": t, "bytes": 4 * t}
        for t, e in zip(tokens, noise, strict=True)
    ]


def test_an_interval_is_as_wide_as_the_delta_method_says():
    documents = drawn(0, 400)
    values = MEASURES["bits_per_byte"].compute(corpus(documents))
    low, high = interval(values)
    # The variance of a ratio of sums: Cochran 1977, "Sampling techniques", 2.9.
    ratio = values[0] * math.log(2)
    residuals = np.array([d["nll"] - ratio * d["bytes"] for d in documents])
    total = sum(d["bytes"] for d in documents)
    error = math.sqrt((residuals**2).sum()) / total / math.log(2)
    assert low < values[0] < high
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)


@pytest.mark.parametrize("count", [50, BLOCKS + 500])
def test_blocks_do_not_depend_on_the_order_and_are_the_same_for_every_model(count):
    documents = drawn(1, count)
    rows = [(seed_of(text_of(i)), row(d)) for i, d in enumerate(documents)]
    together = CorpusSums.of(rows)
    apart = Blocks()
    for part in (rows[30:], rows[:10], [], rows[10:30]):
        blocks = Blocks()
        blocks.add(part)
        apart.merge(blocks)
    np.testing.assert_allclose(apart.sums.values, together.values, rtol=1e-9)
    worse = corpus([{**d, "nll": d["nll"] + 0.1 * d["bytes"]} for d in documents])
    compute_bits = MEASURES["bits_per_byte"].compute
    difference = compute_bits(worse) - compute_bits(together)
    np.testing.assert_allclose(difference, 0.1 / math.log(2))


def test_few_documents_are_left_out_one_by_one_and_many_in_blocks():
    few = corpus(drawn(2, BLOCKS))
    assert (few["documents"][1:] == BLOCKS - 1).all()
    many = corpus(drawn(2, 10 * BLOCKS))
    assert many.documents == 10 * BLOCKS
    assert BLOCKS / 2 < len(many.blocks) <= BLOCKS
    together = Blocks()
    for _ in range(3):
        together.add([(7, row(DOCUMENTS[0]))])
    # Of copies none is left out alone: they say the same.
    np.testing.assert_array_equal(together.sums["documents"], [3, 0])


@pytest.mark.parametrize("count", [100, 3 * BLOCKS])
def test_an_interval_of_a_mean_is_that_of_student(count):
    """Of documents of one length, bits a byte are a mean."""
    documents = [
        {**d, "nll": d["nll"] / d["bytes"], "bytes": 1} for d in drawn(3, count)
    ]
    low, high = interval(MEASURES["bits_per_byte"].values(corpus(documents)))
    nats = [document["nll"] for document in documents]
    expected = stats.t.interval(0.95, count - 1, np.mean(nats), stats.sem(nats))
    assert (low * math.log(2), high * math.log(2)) == pytest.approx(expected, rel=5e-3)


def test_an_interval_needs_ten_documents_that_each_can_be_left_out():
    values = np.arange(11.0)
    assert interval(values)
    assert interval(values[:10]) is None
    assert interval(np.array([5.0, *[5.0] * 9, math.nan])) is None
    assert interval(np.full(11, 5.0)) == (5.0, 5.0)
    assert interval(np.array([math.inf, *range(10)])) == (math.inf, math.inf)


@pytest.mark.parametrize("kind", ["by document", "by token", "heavy tails"])
def test_equal_models_seldom_differ_significantly(kind):
    """2.5 % are meant on either side."""
    for share in intervals.false_alarms(kind, documents=10, pairs=1500):
        assert 0.005 < share < 0.03
