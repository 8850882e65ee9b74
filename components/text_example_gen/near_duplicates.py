"""Near duplicates: MinHash signatures, brought together by locality-sensitive hashing.

References:
    Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
    Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3 (banding).
    Li, König, "b-Bit Minwise Hashing", WWW 2010.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from .alike import later_alike, mix
from .documents import Document
from .repeated_keys import RepeatedKeys, Sieve
from .settings import LABEL, TAG, TARGET

NUM_HASHES = 128
RECALL = 0.99

_WORD = re.compile(r"\w+")
_CHUNK = 1024
_BATCH = 512  # documents whose bands are looked at together
_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


_SEEDS = mix(np.arange(1, NUM_HASHES + 1, dtype=np.uint64) * _GOLDEN_RATIO)


class Shingles(NamedTuple):
    """Distinct shingles of several texts.

    Attributes:
        hashes: uint64 `[n]`.
        owners: int64 `[n]`: the number of the text of each.
    """

    hashes: np.ndarray
    owners: np.ndarray


@dataclasses.dataclass(frozen=True)
class MinHash:
    """How alike two texts are, from short signatures.

    Attributes:
        threshold: Jaccard similarity of the sets of shingles from which on two texts
            are near duplicates.
        shingles: What a shingle is made of.
        length: Words, or characters, in a shingle.
    """

    threshold: float = 0.8
    shingles: Literal["words", "characters"] = "words"
    length: int = 5

    @functools.cached_property
    def rows(self) -> int:
        """Hashes in a band.

        The most with which two texts at the threshold still share one of the
        `NUM_HASHES // rows` bands with a probability of `RECALL`.
        """
        return max(
            rows
            for rows in range(1, NUM_HASHES + 1)
            if rows == 1
            or 1 - (1 - self.threshold**rows) ** (NUM_HASHES // rows) >= RECALL
        )

    def signature(self, text: str) -> np.ndarray:
        """Returns the smallest value of each hash over the shingles.

        Args:
            text: Any text. One shorter than a shingle is a shingle.

        Returns:
            uint32 `[NUM_HASHES]`. The share of positions in which two signatures agree
            is an estimate of the similarity, with a standard deviation below 0.045.
        """
        shingles = self.shingles_of(text)
        smallest = np.full(NUM_HASHES, np.iinfo(np.uint32).max, np.uint32)
        for start in range(0, len(shingles), _CHUNK):
            values = shingles[start : start + _CHUNK, None] ^ _SEEDS
            # Multiplying moves entropy into the high bits, which are what is compared.
            values = (values * _GOLDEN_RATIO) ^ (values >> np.uint64(29))
            values = (values * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(32)
            np.minimum(smallest, values.min(axis=0).astype(np.uint32), out=smallest)
        return smallest

    def shingles_of(self, text: str) -> np.ndarray:
        """Returns the distinct hashes of all shingles, uint64 `[n]`, n > 0."""
        units = self._units(text)
        return np.unique(_rolled(units, min(self.length, len(units))))

    def shingles_of_all(self, texts: Sequence[str]) -> Shingles:
        """Does so for many texts at once, quicker."""
        units = [self._units(text) for text in texts]
        sizes = np.array([len(each) for each in units])
        # One that is shorter than a shingle is none of those of that length.
        short = np.flatnonzero(sizes < self.length)
        shingles = [_rolled(units[text], sizes[text]) for text in short]
        owners = np.repeat(np.arange(len(texts)), sizes)
        rolled = _rolled(np.concatenate(units), self.length)
        whole = owners[: len(rolled)] == owners[self.length - 1 :]
        hashes = np.concatenate([*shingles, rolled[whole]])
        owners = np.concatenate([short, owners[: len(rolled)][whole]])
        order = np.lexsort((hashes, owners))
        hashes, owners = hashes[order], owners[order]
        new = (np.diff(hashes, prepend=~hashes[:1]) != 0) | (
            np.diff(owners, prepend=-1) != 0
        )
        return Shingles(hashes[new], owners[new])

    def _units(self, text: str) -> np.ndarray:
        """Returns what shingles are made of, uint64 `[n]`, n > 0."""
        text = text.lower()
        if self.shingles == "characters":
            units = np.frombuffer(text.encode("utf-32-le"), np.uint32)
            return units.astype(np.uint64)
        # One at a time: those of a long text, as a list, take ten times its memory.
        words = (match.group() for match in _WORD.finditer(text))
        units = np.fromiter(map(_hash_of_word, words), np.uint64)
        return units if len(units) else np.array([_hash_of_word(text)], np.uint64)

    @property
    def bands(self) -> int:
        """Number of bands in a signature."""
        return NUM_HASHES // self.rows

    def band(self, signed: Signed, number: int) -> np.ndarray:
        """Returns a hash of a band, and of what must be equal besides, uint64 `[n]`."""
        hashes = mix(signed.kinds + np.uint64(number))
        for column in signed.signatures[:, number * self.rows :][:, : self.rows].T:
            hashes = mix(hashes + column)
        return hashes

    def keys(self, signed: Signed) -> np.ndarray:
        """Returns the hashes of all bands, uint64 `[n * bands]`."""
        return np.concatenate([self.band(signed, band) for band in range(self.bands)])


@functools.lru_cache(1 << 16)
def _hash_of_word(word: str) -> int:
    return hash_of(word)


def hash_of(text: str) -> int:
    """64 bits that are the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def kind_of(document: Document, fields: Collection[str] | None) -> int:
    """Hashes the fields that must be equal in duplicates, all or those named."""
    return hash_of(json.dumps(counting(document, fields)))


def counting(
    document: Document, fields: Collection[str] | None
) -> list[tuple[str, str]]:
    """The fields that must be equal in duplicates, all or those named."""
    labels = [(LABEL, label) for label in document.labels or ()]
    tags = [] if document.tags is None else [(TAG, " ".join(document.tags))]
    target = [] if document.target is None else [(TARGET, document.target)]
    return sorted(
        (name, value)
        for name, value in (*document.fields.items(), *labels, *tags, *target)
        if fields is None or name in fields
    )


def _rolled(units: np.ndarray, length: int) -> np.ndarray:
    """Hashes of all runs of so many units, uint64."""
    count = max(len(units) - length + 1, 0)
    rolled = np.zeros(count, np.uint64)
    for offset in range(length):
        rolled = mix(rolled + units[offset : offset + count] + _GOLDEN_RATIO)
    return rolled


class Signed(NamedTuple):
    """Signatures of documents.

    Attributes:
        ids: Those of the documents.
        signatures: uint32 `[n, NUM_HASHES]`.
        kinds: uint64 `[n]`: hashes of the fields that must be equal.
    """

    ids: list[str]
    signatures: np.ndarray
    kinds: np.ndarray


class FindNearDuplicates(beam.PTransform):
    """Finds documents that are much like one with a smaller id.

    Input are two collections of the same documents, no two of them equal; output are
    the ids of those to drop. What is dropped has a near duplicate with a smaller id,
    which may have been dropped for another: of a chain of near duplicates the first
    stays.

    Of the bands of the first collection a sieve is made (see `repeated_keys`), and only
    those of the second that share a band are compared: a worker holds 600 bytes of each
    of these. Which are alike is found in `alike`.

    Args:
        min_hash: What is alike.
        fields: Names of the fields that must be equal; `None` for all.
    """

    def __init__(self, min_hash: MinHash, fields: Iterable[str] | None = None) -> None:
        super().__init__()
        self._min_hash = min_hash
        self._fields = None if fields is None else frozenset(fields)

    def expand(
        self, documents: tuple[beam.PCollection, beam.PCollection]
    ) -> beam.PCollection:
        """Adds two combinations."""
        first, second = (
            collection
            | f"Sign[{name}]" >> beam.Map(_signed, self._min_hash, self._fields)
            | f"Batch[{name}]"
            >> beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
            | f"Signed[{name}]" >> beam.Map(_together)
            for name, collection in zip(("all", "shared"), documents, strict=True)
        )
        repeated = (
            first
            | "Bands" >> beam.Map(self._min_hash.keys)
            | "Repeated" >> beam.CombineGlobally(RepeatedKeys())
        )
        return (
            second
            | "Shared" >> beam.Map(_sharing, self._min_hash, AsSingleton(repeated))
            | "All" >> beam.combiners.ToList()
            | "Compare" >> beam.FlatMap(_later_alike, self._min_hash)
        )


def _signed(
    document: Document, min_hash: MinHash, fields: frozenset[str] | None
) -> tuple[str, np.ndarray, int]:
    return document.id, min_hash.signature(document.text), kind_of(document, fields)


def _together(signed: list[tuple[str, np.ndarray, int]]) -> Signed:
    ids, signatures, kinds = zip(*signed, strict=True)
    return Signed([*ids], np.stack(signatures), np.array(kinds, np.uint64))


def _sharing(signed: Signed, min_hash: MinHash, repeated: Sieve) -> Signed:
    """Leaves out documents of whose bands none comes again."""
    shared = np.zeros(len(signed.ids), bool)
    for band in range(min_hash.bands):
        shared |= repeated.holds(min_hash.band(signed, band))
    ids = [signed.ids[place] for place in np.flatnonzero(shared)]
    return Signed(ids, signed.signatures[shared], signed.kinds[shared])


def _later_alike(parts: list[Signed], min_hash: MinHash) -> Iterator[str]:
    """Yields the ids of those that are like one with a smaller id."""
    if not parts:
        return
    ids = [name for part in parts for name in part.ids]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    signed = Signed(
        [ids[place] for place in order],
        np.concatenate([part.signatures for part in parts])[order],
        np.concatenate([part.kinds for part in parts])[order],
    )
    later = later_alike(
        signed.signatures,
        signed.kinds,
        min_hash.threshold,
        functools.partial(min_hash.band, signed),
        min_hash.bands,
    )
    for place in np.flatnonzero(later):
        yield signed.ids[place]
