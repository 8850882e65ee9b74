"""Slices of a corpus: by any feature of its examples, and by length.

This module imports nothing heavy: the configuration is checked with it.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable

from ..records import OVERALL

LENGTH = "length"
# Bytes of a document's text; where each bucket of the slice `length` begins.
_LENGTH_BEGINS = (0, 256, 1024, 4096)
LENGTH_BUCKETS = (
    *(f"{a}-{b - 1}" for a, b in itertools.pairwise(_LENGTH_BEGINS)),
    f"{_LENGTH_BEGINS[-1]}+",
)


def length_bucket(text: bytes) -> str:
    """Which of `LENGTH_BUCKETS` a text is in, by its bytes."""
    return LENGTH_BUCKETS[bisect.bisect(_LENGTH_BEGINS, len(text)) - 1]


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
