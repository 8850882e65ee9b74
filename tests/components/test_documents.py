"""What components share that read examples."""

from __future__ import annotations

import apache_beam as beam
import langzoo  # noqa: F401  (sets the environment, so it comes first)
from apache_beam.testing.util import assert_that
from langzoo.components import documents


def test_batches_go_by_size_and_not_by_number():
    def check(batches):
        assert sum(map(len, batches)) == 1003
        # The last long one takes some of the short ones with it.
        assert sorted(map(len, batches))[:2] == [1, 1]
        assert len(batches) == 3

    texts = ["a" * 700_000, "a" * 3_000_000, "a" * 700_000] + ["b"] * 1000
    with beam.Pipeline() as pipeline:
        batches = (
            pipeline | beam.Create(texts, reshuffle=False) | documents.in_batches()
        )
        assert_that(batches, check)
