"""The bounded, seeded sample that a tokenizer is learned from."""

from __future__ import annotations

import random

import pytest
from langzoo.components.tokenizer_trainer.executor import BoundedSample

DOCUMENTS = [
    f"document {number} {'x' * (number % 50)}".encode() for number in range(500)
]


def combine(sample, bundles):
    accumulators = []
    for bundle in bundles:
        accumulator = sample.create_accumulator()
        for document in bundle:
            accumulator = sample.add_input(accumulator, document)
        accumulators.append(accumulator)
    return sorted(sample.extract_output(sample.merge_accumulators(accumulators)))


@pytest.mark.parametrize("bundles", [1, 3, 50])
def test_the_sample_depends_on_neither_order_nor_bundles(bundles):
    sample = BoundedSample(max_bytes=5000, seed=1)
    expected = combine(sample, [DOCUMENTS])
    shuffled = random.Random(bundles).sample(DOCUMENTS, len(DOCUMENTS))
    assert combine(sample, [shuffled[i::bundles] for i in range(bundles)]) == expected
    size = sum(map(len, expected))
    assert 5000 - 100 < size <= 5000


def test_the_seed_chooses_the_sample():
    one, two = (combine(BoundedSample(5000, seed), [DOCUMENTS]) for seed in (1, 2))
    assert one != two


def test_a_corpus_within_the_bound_is_taken_whole():
    assert combine(BoundedSample(10**6, 0), [DOCUMENTS]) == sorted(DOCUMENTS)


def test_one_document_over_the_bound_is_kept():
    assert combine(BoundedSample(3, 0), [[b"longer than three"]]) == [
        b"longer than three"
    ]
