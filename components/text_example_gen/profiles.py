"""What a split's documents are like, gathered on Beam, and how far two are apart."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import math
from collections.abc import Iterable, Sequence

import apache_beam as beam
import numpy as np

from .records import BINS_AN_OCTAVE, Profile

_LENGTH_BINS = 64 * BINS_AN_OCTAVE
_SAMPLE = 4096
_WARNED_DRIFT = 0.1


@dataclasses.dataclass(frozen=True)
class Drift:
    """How far two sets of documents are apart: from 0, alike, to 1, nothing in common.

    Both are Jensen-Shannon divergences in bits.

    Attributes:
        lengths: Of the documents' lengths, in powers of two.
        bytes: Of the bytes of which the texts are made.
        notable: Whether one is above 0.1, and not by chance alone.

    References:
        Lin, "Divergence measures based on the Shannon entropy", 1991.
    """

    lengths: float
    bytes: float
    notable: bool

    @classmethod
    def between(cls, one: Profile, other: Profile) -> Drift:
        """Compares two profiles, each of one document or more."""
        lengths = [
            np.reshape(profile.lengths, [-1, BINS_AN_OCTAVE]).sum(axis=1)
            for profile in (one, other)
        ]
        of_lengths = _divergence(*lengths)
        of_bytes = _divergence(one.byte_counts, other.byte_counts)
        # Between samples of one distribution the divergence, scaled so, is about chi
        # squared: its mean is its degrees of freedom, its variance twice that.
        degrees = np.count_nonzero(sum(lengths)) - 1
        scale = 8 * math.log(2) / sum(1 / counts.sum() for counts in lengths)
        by_chance = (degrees + 4 * math.sqrt(2 * degrees)) / scale
        notable = of_lengths > max(_WARNED_DRIFT, by_chance) or of_bytes > _WARNED_DRIFT
        return cls(round(of_lengths, 4), round(of_bytes, 4), bool(notable))

    def line(self, what: str) -> str:
        """Says it in a line, which warns where the drift is notable."""
        warning = "warning: " if self.notable else ""
        return (
            f"{warning}drift between {what}, of 1 at most: {self.lengths:.3f} in "
            f"lengths, {self.bytes:.3f} in bytes"
        )


def _divergence(one: Sequence[int], other: Sequence[int]) -> float:
    """Returns the Jensen-Shannon divergence of two histograms, in bits."""
    shares = [np.asarray(counts) / np.sum(counts) for counts in (one, other)]
    return max(0.0, _entropy(sum(shares) / 2) - sum(map(_entropy, shares)) / 2)


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log2(positive)).sum())


@dataclasses.dataclass
class _Tally:
    lengths: np.ndarray
    byte_counts: np.ndarray
    copies: dict[int, int]

    def prune(self, largest: int) -> None:
        """Keeps the smallest digests; what is kept is counted in full."""
        if len(self.copies) > largest:
            kept = heapq.nsmallest(_SAMPLE, self.copies)
            self.copies = {digest: self.copies[digest] for digest in kept}


class MakeProfile(beam.CombineFn):
    """Texts, UTF-8 `bytes`, to their `Profile`; holds some 100 kB, whatever comes."""

    def create_accumulator(self) -> _Tally:
        """See `beam.CombineFn`; likewise below."""
        return _Tally(np.zeros(_LENGTH_BINS, int), np.zeros(256, int), {})

    def add_input(self, tally: _Tally, text: bytes) -> _Tally:
        tally.lengths[int(BINS_AN_OCTAVE * math.log2(max(len(text), 1)))] += 1
        values = np.frombuffer(text, np.uint8)
        tally.byte_counts += np.bincount(values, minlength=256)
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        tally.copies[digest] = tally.copies.get(digest, 0) + 1
        tally.prune(2 * _SAMPLE)
        return tally

    def merge_accumulators(self, tallies: Iterable[_Tally]) -> _Tally:
        merged = self.create_accumulator()
        for tally in tallies:
            merged.lengths += tally.lengths
            merged.byte_counts += tally.byte_counts
            for digest, count in tally.copies.items():
                merged.copies[digest] = merged.copies.get(digest, 0) + count
            merged.prune(2 * _SAMPLE)
        return merged

    def extract_output(self, tally: _Tally) -> Profile:
        tally.prune(_SAMPLE)
        documents = sum(tally.copies.values())
        duplicates = documents - len(tally.copies)
        return Profile(
            lengths=tally.lengths.tolist(),
            byte_counts=tally.byte_counts.tolist(),
            duplicate_rate=duplicates / documents if documents else 0.0,
        )
