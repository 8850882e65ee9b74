"""Slices of a corpus: by any feature of its examples, and by length.

This module imports nothing heavy: the configuration is checked with it.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ..records import OVERALL

LENGTH = "length"
OTHERS = "(others)"
"""The value of a slice of all documents whose values are too rare for one each."""

Told = dict[str, frozenset[bytes]]
"""The values that have a slice each, by features that have others, too."""

# Bytes of a document's text; where each bucket of the slice `length` begins.
_LENGTH_BEGINS = (0, 256, 1024, 4096)
LENGTH_BUCKETS = (
    *(f"{a}-{b - 1}" for a, b in itertools.pairwise(_LENGTH_BEGINS)),
    f"{_LENGTH_BEGINS[-1]}+",
)


def length_bucket(text: bytes) -> str:
    """Which of `LENGTH_BUCKETS` a text is in, by its bytes."""
    return LENGTH_BUCKETS[bisect.bisect(_LENGTH_BEGINS, len(text)) - 1]


def told_apart(
    counts: Mapping[str, Counter[bytes]], most: int, named: Sequence[str]
) -> Told:
    """Which values have a slice each; of a feature that is left out, all have.

    Args:
        counts: How often each value stands in the examples, by feature.
        most: How many of a feature are told apart, the most frequent ones.
        named: Slices that rules are about, whose values are told apart in any case.
    """
    told = {}
    for feature, count in counts.items():
        frequent = sorted(count, key=lambda value: (-count[value], value))[:most]
        rules = (name.partition("=") for name in named)
        of_rules = (value.encode() for name, _, value in rules if name == feature)
        values = frozenset([*frequent, *of_rules])
        if len(count.keys() - values) > 1:
            told[feature] = values
    return told


def feature_of(name: str) -> str:
    """The feature of a slice by its name, such as `source` of `source=news`."""
    return name.partition("=")[0]


def require_slice(name: str, features: Iterable[str]) -> None:
    """Checks the name of a slice.

    Args:
        name: Such as `overall`, `length=0-255` or `source=news`.
        features: Features of the examples, by which they can be sliced.

    Raises:
        ValueError: Where no document can be in it.
    """
    if name == OVERALL:
        return
    feature, equals, value = name.partition("=")
    if not equals or not value:
        raise ValueError(
            f"slice {name!r} must be {OVERALL} or FEATURE=VALUE, such as "
            f"{LENGTH}={LENGTH_BUCKETS[0]}"
        )
    require_feature(feature, features)
    if feature == LENGTH and value not in LENGTH_BUCKETS:
        raise ValueError(
            f"slice {name!r}: {LENGTH} is one of {', '.join(LENGTH_BUCKETS)} (bytes)"
        )


def require_feature(feature: str, features: Iterable[str]) -> None:
    """Checks a feature to slice by.

    Raises:
        ValueError: Where it is neither `length` nor one of `features`.
    """
    known = [LENGTH, *features]
    if feature not in known:
        raise ValueError(
            f"gate: there is no feature {feature!r} to slice by: known are "
            f"{', '.join(known)}; corpus.fields adds others"
        )
