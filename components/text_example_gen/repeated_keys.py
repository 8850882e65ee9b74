"""Which keys come more than once, in memory of a fixed size.

References:
    Bloom, "Space/time trade-offs in hash coding with allowable errors", CACM 1970.
"""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam
import numpy as np

# Of a hundred million different keys half pass; of ten million, few.
_BITS = 1 << 26


class Sieve:
    """Holds all keys that came more than once, and some few others.

    These are two Bloom filters with two bits a key, of 8 MB each: one of all keys, one
    of those that were in the first when they came.
    """

    def __init__(self) -> None:
        self._once = np.zeros(_BITS // 8, np.uint8)
        self._twice = np.zeros(_BITS // 8, np.uint8)

    def add(self, keys: np.ndarray) -> None:
        """Adds evenly distributed hashes, uint64 `[n]`."""
        keys, counts = np.unique(keys, return_counts=True)
        places, bits = _places(keys)
        repeated = (counts > 1) | _all_set(self._once, places, bits)
        np.bitwise_or.at(self._once, places, bits)
        np.bitwise_or.at(self._twice, places[repeated], bits[repeated])

    def merge(self, other: Sieve) -> None:
        """Adds what another one has seen."""
        self._twice |= other._twice | (self._once & other._once)
        self._once |= other._once

    def close(self) -> None:
        """Gives back half of the memory; nothing can be added any more."""
        del self._once

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Says of keys, uint64 `[n]`, whether they may have come again, bool `[n]`."""
        return _all_set(self._twice, *_places(keys))


def _places(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two bytes of a filter for each key, and the bit in each: `[n, 2]`."""
    halves = np.stack([keys, keys >> np.uint64(32)], axis=1).astype(np.int64)
    halves &= _BITS - 1
    return halves >> 3, np.left_shift(1, halves & 7).astype(np.uint8)


def _all_set(bits: np.ndarray, places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return (bits[places] & wanted).all(axis=1)


class RepeatedKeys(beam.CombineFn):
    """Arrays of keys to the `Sieve` of those that come more than once."""

    def create_accumulator(self) -> Sieve:
        """See `beam.CombineFn`; likewise below."""
        return Sieve()

    def add_input(self, sieve: Sieve, keys: np.ndarray) -> Sieve:
        sieve.add(keys)
        return sieve

    def merge_accumulators(self, sieves: Iterable[Sieve]) -> Sieve:
        merged, *others = sieves
        for other in others:
            merged.merge(other)
        return merged

    def extract_output(self, sieve: Sieve) -> Sieve:
        sieve.close()
        return sieve
