"""Which of many signatures are like an earlier one, in time near to linear.

Signatures that are alike agree in so many positions that, where one has few values that
are frequent there, they agree in a rare one, too: so those that share a rare value are
all compared (the pigeonhole principle behind prefix filters: Bayardo, Ma, Srikant,
"Scaling up all pairs similarity search", WWW 2007). What remains are signatures nearly
all of whose values are frequent, as of texts with little of their own. They are
compared within bands, and only with leaders: signatures with so little of their own
that of each other's kind most are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

# A value of a position is rare where at most so many signatures have it.
_RARE = 16
# With how many leaders a signature is compared in a band.
_LEADERS = 64
# Pairs that are compared together.
_CHUNK = 1 << 14

Keys = Callable[[int], np.ndarray]


def later_alike(
    signatures: np.ndarray, kinds: np.ndarray, threshold: float, bands: Keys, count: int
) -> np.ndarray:
    """Says of each signature whether it is like an earlier one of its kind.

    An earlier one may itself be like one before it: of a chain the first is none.

    Args:
        signatures: uint32 `[n, N]`.
        kinds: uint64 `[n]`: hashes of what must be equal besides.
        threshold: Share of the positions in which signatures that are alike agree.
        bands: Gives, of a band by its number, a hash of it and the kind, uint64 `[n]`.
        count: Number of bands.
    """
    positions = signatures.shape[1]
    # A byte is enough to compare: others agree in one of 256 by chance.
    pairs = _Pairs(signatures.astype(np.uint8), math.ceil(threshold * positions))
    frequent = np.zeros(len(signatures), int)
    for column in signatures.T:
        groups = _Groups(mix(kinds + column), np.arange(len(kinds)))
        frequent[groups.members] += groups.sizes > _RARE
        pairs.compare_rare(groups)
    crowded = frequent >= pairs.least
    # Of two texts whose common part is just enough, so much is their own.
    own = (1 - threshold) / (1 + threshold)
    leading = frequent >= math.floor((1 - own) * positions)
    for band in range(count):
        members = np.flatnonzero(crowded & ~pairs.later)
        pairs.compare_with_leaders(_Groups(bands(band)[members], members), leading)
    return pairs.later


def mix(values: np.ndarray) -> np.ndarray:
    """Scrambles uint64 values: the output function of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class _Groups:
    """Members with equal keys beside each other, each group in its order.

    Attributes:
        members: int `[n]`.
        numbers: That of its group, `[n]`, ascending.
        sizes: That of its group, `[n]`.
    """

    def __init__(self, keys: np.ndarray, members: np.ndarray) -> None:
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        self.members = members[order]
        self.numbers = np.cumsum(np.diff(keys, prepend=keys[:1]) != 0)
        self.sizes = np.bincount(self.numbers)[self.numbers]


class _Pairs:
    """Compares pairs of signatures, and knows which are like an earlier one."""

    def __init__(self, signatures: np.ndarray, least: int) -> None:
        self.least = least
        self.later = np.zeros(len(signatures), bool)
        self._signatures = signatures

    def compare_rare(self, groups: _Groups) -> None:
        """Compares all that are in one small group."""
        members, numbers = groups.members, groups.numbers
        for distance in range(1, _RARE):
            one = (numbers[distance:] == numbers[:-distance]) & (
                groups.sizes[distance:] <= _RARE
            )
            if not one.any():
                break
            one &= ~self.later[members[distance:]]
            self._compare(members[:-distance][one], members[distance:][one])

    def compare_with_leaders(self, groups: _Groups, leading: np.ndarray) -> None:
        """Compares those of a group with its leaders, the earliest ones first."""
        members, numbers = groups.members, groups.numbers
        for _ in range(_LEADERS):
            led, first = np.unique(numbers[leading[members]], return_index=True)
            if not led.size:
                break
            leaders = members[leading[members]][first]
            place = np.searchsorted(led, numbers)
            place[place == led.size] = 0
            others = (led[place] == numbers) & (members != leaders[place])
            members, numbers = members[others], numbers[others]
            leaders = leaders[place[others]]
            unlike = ~self._compare(leaders, members)
            members, numbers = members[unlike], numbers[unlike]

    def _compare(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Compares pair by pair, and notes the later ones of those that are alike."""
        alike = np.zeros(len(some), bool)
        for start in range(0, len(some), _CHUNK):
            part = slice(start, start + _CHUNK)
            equal = self._signatures[some[part]] == self._signatures[others[part]]
            alike[part] = np.count_nonzero(equal, axis=1) >= self.least
        self.later[np.maximum(some, others)[alike]] = True
        return alike
