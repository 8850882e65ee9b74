"""Sums over a corpus in blocks, and the intervals that are made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from langzoo.benchmarks import intervals
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

DOCUMENT = {"nll": 2.0, "tokens": 4, "bytes": 10, "words": 2}


def text_of(index):
    return f"document {index}".encode()


def corpus(documents):
    return CorpusSums.of(
        (seed_of(text_of(index)), row(document))
        for index, document in enumerate(documents)
    )


def drawn(seed, documents):
    """Documents whose losses a token scatter around 2 nats."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(20, 60, documents)
    noise = generator.normal(size=documents)
    return [
        {**DOCUMENT, "nll": 2.0 * t + 3 * e, "tokens": t, "bytes": 4 * t}
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
        together.add([(7, row(DOCUMENT))])
    # Of copies none is left out alone: they say the same.
    np.testing.assert_array_equal(together.sums["documents"], [3, 0])


def mean_of(nats):
    """Bits a byte of documents of one byte: a mean, and its interval in nats."""
    documents = [{**DOCUMENT, "nll": each, "bytes": 1} for each in nats]
    bounds = interval(MEASURES["bits_per_byte"].values(corpus(documents)))
    return np.array(bounds) * math.log(2)


@pytest.mark.parametrize(
    ("nats", "freedom"),
    [
        # Documents that scatter alike are each a degree of freedom, but for one.
        ([1.0, 3.0] * 10, 19),
        # What one document decides has one.
        ([1.0] * 19 + [3.0], 1),
        # The squares add up to 6 * 4 + 34 / 4, the fourth powers to 6 * 16 + 34 / 16.
        ([5.0, 1.0] * 3 + [3.5, 2.5] * 17, 2 * 32.5**2 / 98.125 - 2),
    ],
)
def test_an_interval_of_a_mean_is_that_of_student(nats, freedom):
    expected = stats.t.interval(0.95, freedom, np.mean(nats), stats.sem(nats))
    np.testing.assert_allclose(mean_of(nats), expected, rtol=1e-9)


def test_an_interval_of_many_documents_is_nearly_that_of_student():
    nats = np.random.default_rng(3).normal(2, 1, 3 * BLOCKS)
    low, high = stats.t.interval(0.95, BLOCKS, np.mean(nats), stats.sem(nats))
    found = mean_of(nats)
    assert found.mean() == pytest.approx(nats.mean())
    assert found[1] - found[0] == pytest.approx(high - low, rel=0.05)


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
