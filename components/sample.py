"""A sample of documents on Beam, of bounded size."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

import apache_beam as beam


class BoundedSample(beam.CombineFn):
    """A seeded random sample of documents with at most a number of bytes.

    Every document has a rank, a hash of its text and the seed. The sample is the
    documents of lowest rank that fit, so it depends neither on the order of the input
    nor on how Beam bundles it.

    Args:
        max_bytes: Bound on the sum of the documents' lengths. One document is always
            kept.
        seed: Chooses the sample.
    """

    def __init__(self, max_bytes: int, seed: int) -> None:
        self._max_bytes = max_bytes
        self._key = seed.to_bytes(8, "little", signed=True)

    def rank(self, document: bytes) -> int:
        """Returns the document's place in the sampling order."""
        digest = hashlib.blake2b(document, digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big")

    # An accumulator is a heap of (-rank, document), worst rank first, and its size.

    def create_accumulator(self) -> tuple[list[tuple[int, bytes]], int]:
        return [], 0

    def add_input(
        self, accumulator: tuple[list[tuple[int, bytes]], int], document: bytes
    ) -> tuple[list[tuple[int, bytes]], int]:
        heap, size = accumulator
        heapq.heappush(heap, (-self.rank(document), document))
        return self._shrink(heap, size + len(document))

    def merge_accumulators(
        self, accumulators: Iterable[tuple[list[tuple[int, bytes]], int]]
    ) -> tuple[list[tuple[int, bytes]], int]:
        heap: list[tuple[int, bytes]] = []
        size = 0
        for other, other_size in accumulators:
            heap.extend(other)
            size += other_size
        heapq.heapify(heap)
        return self._shrink(heap, size)

    def extract_output(
        self, accumulator: tuple[list[tuple[int, bytes]], int]
    ) -> list[bytes]:
        heap, _ = accumulator
        return [document for _, document in heap]

    def _shrink(
        self, heap: list[tuple[int, bytes]], size: int
    ) -> tuple[list[tuple[int, bytes]], int]:
        while size > self._max_bytes and len(heap) > 1:
            _, dropped = heapq.heappop(heap)
            size -= len(dropped)
        return heap, size
