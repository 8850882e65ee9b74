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
from collections.abc import Iterable, Iterator
from typing import Literal

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from .documents import Document
from .repeated_keys import RepeatedKeys, Sieve

NUM_HASHES = 128
RECALL = 0.99

_WORD = re.compile(r"\w+")
_CHUNK = 1024
_GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def _mix(values: np.ndarray) -> np.ndarray:
    """Scrambles uint64 values: the output function of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_SEEDS = _mix(np.arange(1, NUM_HASHES + 1, dtype=np.uint64) * _GOLDEN_RATIO)


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
        text = text.lower()
        if self.shingles == "characters":
            units = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        else:
            words = _WORD.findall(text) or [text]
            hashes = {word: hash_of(word) for word in set(words)}
            units = np.array([hashes[word] for word in words], np.uint64)
        units = units.astype(np.uint64)
        length = min(self.length, len(units))
        count = len(units) - length + 1
        rolled = np.zeros(count, np.uint64)
        for offset in range(length):
            rolled = _mix(rolled + units[offset : offset + count] + _GOLDEN_RATIO)
        return np.unique(rolled)

    def bands(self, signature: np.ndarray) -> list[bytes]:
        """Returns the bands of a signature, each with its number in front."""
        rows = self.rows
        return [
            band.to_bytes(1, "little")
            + signature[band * rows : (band + 1) * rows].tobytes()
            for band in range(NUM_HASHES // rows)
        ]


def hash_of(text: str) -> int:
    """64 bits that are the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class FindNearDuplicates(beam.PTransform):
    """Finds documents that are much like one with a smaller id.

    Input are two collections of the same documents, no two of them equal; output are
    the ids of those to drop. Documents are compared where they share a band of their
    signatures. What is dropped has a near duplicate with a smaller id, which may have
    been dropped for another: of a chain of near duplicates the first stays.

    Of the bands of the first collection a sieve is made (see `repeated_keys`), and only
    those of the second that pass it are shuffled, each with an id and a signature of
    `NUM_HASHES` bytes: a worker holds the keys of one bucket, and Beam's local runner,
    in whose memory all that is shuffled lies, little but what is alike.

    Args:
        min_hash: What is alike.
    """

    def __init__(self, min_hash: MinHash) -> None:
        super().__init__()
        self._min_hash = min_hash

    def expand(
        self, documents: tuple[beam.PCollection, beam.PCollection]
    ) -> beam.PCollection:
        """Adds a combination and a shuffle."""
        first, second = documents
        repeated = (
            first
            | "Bands" >> beam.Map(_bands, self._min_hash)
            | "Repeated" >> beam.CombineGlobally(RepeatedKeys())
        )
        return (
            second
            | "Shared" >> beam.FlatMap(_keys, self._min_hash, AsSingleton(repeated))
            | "GroupBands" >> beam.GroupByKey()
            | "Compare" >> beam.FlatMap(_later_alike, self._min_hash.threshold)
        )


def _bands(document: Document, min_hash: MinHash) -> np.ndarray:
    """Returns, for each band, a hash of what must be equal."""
    return _signed(document, min_hash)[0]


def _signed(document: Document, min_hash: MinHash) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hashes of the bands, uint64, and the signature."""
    signature = min_hash.signature(document.text)
    fields = json.dumps(sorted(document.fields.items())).encode()
    hashes = b"".join(
        hashlib.blake2b(band + fields, digest_size=8).digest()
        for band in min_hash.bands(signature)
    )
    return np.frombuffer(hashes, np.uint64), signature


def _keys(
    document: Document, min_hash: MinHash, repeated: Sieve
) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Yields shared bands, each with the id and the low bytes of the signature."""
    bands, signature = _signed(document, min_hash)
    # A byte a hash is enough to compare: others agree in one of 256 by chance.
    value = document.id, signature.astype(np.uint8).tobytes()
    for band in bands[repeated.holds(bands)].view(np.int64).tolist():
        yield band, value


def _later_alike(
    bucket: tuple[int, Iterable[tuple[str, bytes]]], threshold: float
) -> Iterator[str]:
    """Yields the ids in a bucket that are like an earlier one that is like no other."""
    _, members = bucket
    leaders = np.empty((0, NUM_HASHES), np.uint8)
    for name, packed in sorted(members):
        signature = np.frombuffer(packed, np.uint8)
        agreeing = (leaders == signature).mean(axis=1)
        if agreeing.size and agreeing.max() >= threshold:
            yield name
        else:
            leaders = np.vstack([leaders, signature])
