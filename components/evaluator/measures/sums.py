"""Sums over a corpus, and over resamples of its documents.

An exported model's `evaluate` signature gives sums for every document (see
`serving.export.contract`); here they are sums over a corpus, or a slice of it. (A mean
of the documents' perplexities is no perplexity of the corpus: it weighs a short
document like a long one.)

The bootstrap resamples documents: in each of `RESAMPLES` resamples a document counts as
often as a Poisson variable of mean 1 says, which is what drawing as many documents as
there are, with replacement, comes to (Chamandy et al. 2012, "Estimating uncertainty for
massive data streams"). The draws are seeded by the document's text: so they are the
same whoever adds it up, and the same for every model, whose differences are paired.
Intervals are percentiles (Efron and Tibshirani 1993, "An introduction to the
bootstrap", chapter 13).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ....serving.export.contract import CALIBRATION_BINS, EVALUATE

RESAMPLES = 1000
CONFIDENCE = 0.95
# Below, an interval of percentiles would be far too narrow.
MIN_DOCUMENTS = 10

SCALARS = [name for name, tensor in EVALUATE.outputs.items() if not tensor.shape]
NAMES = ("documents", *SCALARS)
_COLUMNS = len(NAMES) + CALIBRATION_BINS * 3


@dataclasses.dataclass(frozen=True)
class CorpusSums:
    """Sums over a corpus, and over its resamples.

    Attributes:
        values: float64 `[1 + RESAMPLES, K]`: the sums, then those of the resamples. The
            columns are those of `NAMES`, and the calibration's `[15, 3]`.
    """

    values: np.ndarray

    @classmethod
    def empty(cls) -> CorpusSums:
        """The sums over no document."""
        return cls(np.zeros((1 + RESAMPLES, _COLUMNS)))

    @classmethod
    def ones(cls) -> CorpusSums:
        """Sums that are all 1, to try a metric on."""
        return cls(np.ones((1 + RESAMPLES, _COLUMNS)))

    @classmethod
    def of(cls, rows: Iterable[tuple[int, np.ndarray]]) -> CorpusSums:
        """Adds up documents, each its seed and what `row` makes of its sums."""
        seeds, columns = zip(*rows, strict=True)
        weights = np.stack([_weights(seed) for seed in seeds], axis=1)
        with np.errstate(invalid="ignore"):  # of a score that is infinite
            return cls(weights @ np.stack(columns))

    def __add__(self, other: CorpusSums) -> CorpusSums:
        return CorpusSums(self.values + other.values)

    def __getitem__(self, name: str) -> np.ndarray:
        """One of `NAMES`, float64 `[1 + RESAMPLES]`."""
        if name not in NAMES:
            raise KeyError(f"there is no sum {name!r}: there are {', '.join(NAMES)}")
        return self.values[:, NAMES.index(name)]

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return round(self["documents"][0])

    @property
    def calibration(self) -> np.ndarray:
        """Tokens, confidence and right ones by bin, `[1 + RESAMPLES, 15, 3]`."""
        return self.values[:, len(NAMES) :].reshape(-1, CALIBRATION_BINS, 3)


def row(outputs: dict[str, Any]) -> np.ndarray:
    """The sums of one document as a row of `CorpusSums`.

    An export from before there was an output goes without: it is not a number then,
    but `spelling_nll`, which was 0 for all that could be exported.

    Args:
        outputs: those of the signature `evaluate` for it.
    """
    missing = {"spelling_nll": 0.0}
    scalars = [
        np.sum(outputs.get(name, missing.get(name, math.nan)), dtype=np.float64)
        for name in SCALARS
    ]
    calibration = np.ravel(
        outputs.get("calibration", np.full(CALIBRATION_BINS * 3, math.nan))
    )
    return np.array([1.0, *scalars, *calibration], np.float64)


def seed_of(text: bytes) -> int:
    """The seed of a document's resampling."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _weights(seed: int) -> np.ndarray:
    """1 and how often a document is in each resample, `[1 + RESAMPLES]`."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return np.concatenate([[1.0], generator.poisson(1.0, RESAMPLES)])


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """The 95 % confidence interval of a value.

    Args:
        replicates: `[1 + RESAMPLES]`: the value, and what it is of each resample.
    """
    known = replicates[1:][~np.isnan(replicates[1:])]
    if math.isnan(replicates[0]) or not known.size:
        return math.nan, math.nan
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(known, [tail, 100 - tail], method="nearest")
    return float(low), float(high)
