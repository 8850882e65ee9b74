"""Which documents of an evaluation stand in the training data, exactly or nearly."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from ..sample import BoundedSample
from .documents import Document
from .near_duplicates import MinHash
from .records import Contamination

SAMPLE_BYTES = 4_000_000
"""Of each evaluation split so much is looked for, chosen by hashes of the texts."""

_Pair = tuple[int, bool]


class Wanted:
    """Documents that are looked for, and found in a text that is equal or much alike.

    Their sets of shingles are compared with a text's, not estimates of them.

    Args:
        texts: The documents.
        min_hash: What a shingle is, and how much two texts have in common that are near
            duplicates.
    """

    def __init__(self, texts: Sequence[str], min_hash: MinHash) -> None:
        self._min_hash = min_hash
        shingles = [min_hash.shingles_of(text) for text in texts]
        self._sizes = np.array([len(each) for each in shingles], np.int64)
        hashes = np.concatenate([*shingles, np.empty(0, np.uint64)])
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owners = np.repeat(np.arange(len(texts)), self._sizes)[order]
        self._equal: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            self._equal.setdefault(text, []).append(number)

    def find(self, text: str) -> Iterator[_Pair]:
        """Yields the number of each document found, and whether it is equal."""
        for number in self._equal.get(text, ()):
            yield number, True
        shingles = self._min_hash.shingles_of(text)
        first = np.searchsorted(self._hashes, shingles, "left")
        number_of_hits = np.searchsorted(self._hashes, shingles, "right") - first
        hits = np.repeat(
            first - np.cumsum(number_of_hits) + number_of_hits, number_of_hits
        )
        owners = self._owners[hits + np.arange(len(hits))]
        found, common = np.unique(owners, return_counts=True)
        either = self._sizes[found] + len(shingles) - common
        for number in found[common >= self._min_hash.threshold * either].tolist():
            yield number, False


def contamination(found: Iterable[_Pair], documents: int) -> Contamination:
    """Counts what `Wanted.find` has found of some documents."""
    pairs = set(found)
    return Contamination(
        documents=documents,
        exact=len({number for number, is_equal in pairs if is_equal}),
        near=len({number for number, _ in pairs}),
    )


class Measure(beam.PTransform):
    """Documents of the splits, by name, to the `Contamination` of each but `train`."""

    def __init__(self, min_hash: MinHash) -> None:
        super().__init__()
        self._min_hash = min_hash

    def expand(
        self, splits: Mapping[str, beam.PCollection]
    ) -> dict[str, beam.PCollection]:
        """Samples each evaluation split, and looks through the training split."""
        texts = splits["train"] | "TrainText" >> beam.Map(_text)
        return {
            name: self._of_split(name, texts, documents)
            for name, documents in splits.items()
            if name != "train"
        }

    def _of_split(
        self, name: str, train: beam.PCollection, documents: beam.PCollection
    ) -> beam.PCollection:
        sample = AsSingleton(
            documents
            | f"Text[{name}]" >> beam.Map(_text)
            | f"Sample[{name}]" >> beam.CombineGlobally(BoundedSample(SAMPLE_BYTES, 0))
        )
        return (
            train
            | f"Find[{name}]" >> beam.ParDo(_Find(self._min_hash), sample)
            | f"Distinct[{name}]" >> beam.Distinct()
            | f"List[{name}]" >> beam.combiners.ToList()
            | f"Count[{name}]"
            >> beam.Map(lambda found, sample: contamination(found, len(sample)), sample)
        )


class _Find(beam.DoFn):
    def __init__(self, min_hash: MinHash) -> None:
        self._min_hash = min_hash

    def start_bundle(self) -> None:
        self._wanted: Wanted | None = None

    def process(self, text: bytes, sample: list[bytes]) -> Iterator[_Pair]:
        if self._wanted is None:
            self._wanted = _wanted(tuple(sorted(sample)), self._min_hash)
        yield from self._wanted.find(text.decode())


@functools.lru_cache(maxsize=2)
def _wanted(sample: tuple[bytes, ...], min_hash: MinHash) -> Wanted:
    return Wanted([text.decode() for text in sample], min_hash)


def _text(document: Document) -> bytes:
    return document.text.encode()
