"""What components share that read examples."""

from __future__ import annotations

import apache_beam as beam
import langzoo  # noqa: F401  (sets the environment, so it comes first)
from apache_beam.testing.util import assert_that
from langzoo.components import documents
from tfx_bsl.coders import batch_util


def test_batches_go_by_size_and_number():
    def check(batches):
        sizes = [(len(batch), sum(map(len, batch))) for batch in batches]
        assert sum(number for number, _ in sizes) == 304
        assert all(0 < number <= 128 for number, _ in sizes)
        assert sorted(size for _, size in sizes)[-1] == 3_000_000
        assert all(size <= 1 << 20 for number, size in sizes if number > 1)
        assert len(sizes) <= 7

    texts = ["a" * 700_000, "a" * 3_000_000, *["a" * 700_000] * 2, *["b"] * 300]
    batches = list(documents.batched(texts))
    check(batches)
    assert [text for batch in batches for text in batch] == texts
    documents.batch_by_bytes()
    with beam.Pipeline() as pipeline:
        created = pipeline | beam.Create(texts, reshuffle=False)
        assert_that(created | documents.in_batches(), check, "ours")
        of_tfx = created | "TFX" >> batch_util.BatchRecords(None, None)
        assert_that(of_tfx, check, "TFX's")
