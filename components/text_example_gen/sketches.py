"""Sketches of what texts have in them: of two, how much of one stands in the other.

A sketch is the smallest hashes of the runs of words (`near_duplicates.MinHash`), and so
those that lie below some bound: a random sample, in which what both texts have is in
both. However texts are cut into documents, most runs stay.

References:
    Broder, "On the resemblance and containment of documents", SEQUENCES 1997.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable

import numpy as np

_SIZE = 4096
_MARGIN = 0.1
_ERRORS = 3  # standard errors, of a share of which at most a quarter is variance


def smallest(hashes: Iterable[np.ndarray]) -> np.ndarray:
    """Those of hashes, or of other sketches, that a sketch keeps, uint64."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *hashes]))[:_SIZE]


def dump(kept: np.ndarray) -> str:
    """A sketch as text."""
    return base64.b64encode(kept.astype("<u8").tobytes()).decode()


def joined(*sketches: str) -> str:
    """The sketch of all that several are of."""
    return dump(smallest(map(_load, sketches)))


def much_more(of: str, learned: str, other: str) -> str:
    """Says so where much more of some texts stands in what a model has learned from.

    Some runs are in any two texts of a language: so it is more than stands in others.

    Args:
        of: The sketch of the texts.
        learned: That of what the model has learned from.
        other: That of texts that do not have the documents.
    """
    (found, number), (common, least) = _share(of, learned), _share(of, other)
    number = min(number, least)
    if not number or found - common <= _MARGIN + _ERRORS / math.sqrt(4 * number):
        return ""
    return f"{found:.0%} of their runs of words, where {common:.0%} are common"


def _load(sketch: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(sketch), "<u8")


def _share(of: str, within: str) -> tuple[float, int]:
    """Of how many runs of some texts, and which share of them others have."""
    ours, others = _load(of), _load(within)
    if len(others) == _SIZE:
        ours = ours[ours <= others[-1]]
    if not len(ours) or not len(others):
        return 0.0, 0
    return float(np.isin(ours, others).mean()), len(ours)
