"""Sums over a corpus, and over the corpus without a part of its documents.

An exported model's `evaluate` signature gives sums for every document (see
`serving.export.contract`); here they are sums over a corpus, or a slice of it. (A mean
of the documents' perplexities is no perplexity of the corpus: it weighs a short
document like a long one.)

Intervals come from a jackknife by document: from what a value is without each of them
(Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 11), and so
differences of two models are paired. Beyond `BLOCKS` documents it is blocks of them
that are left out. Which documents share a block is decided by hashes of their texts: so
it is the same whoever adds them up, and the same for every model.

Few documents, or a few long ones among many, say little of how much documents scatter.
So the degrees of freedom of Student's distribution are Satterthwaite's (1946, "An
approximate distribution of estimates of variance components"); the benchmark
`intervals` shows how often such an interval errs.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import special

from ....serving.export.contract import (
    CALIBRATION_BINS,
    EVALUATE,
    EVALUATE_LABELS,
    EVALUATE_TAGS,
    EVALUATE_TARGET,
)

BLOCKS = 1024
CONFIDENCE = 0.95
# Below, no interval would be much better than a guess.
MIN_DOCUMENTS = 10

SCALARS = list(
    dict.fromkeys(
        name
        for signature in (EVALUATE, EVALUATE_LABELS, EVALUATE_TAGS, EVALUATE_TARGET)
        for name, tensor in signature.outputs.items()
        if not tensor.shape
    )
)
"""Of all tasks; those that a model's task does not have are not numbers."""
ADAPTED = {"cache": "cache_nll", "dynamic": "dynamic_nll"}
"""What takes the place of `nll` where a model adapts, by how it does; not a number
where that was not asked for."""
_GRAMS = range(1, 5), range(1, 7)
BLEU_SUMS = (
    *("bleu_written", "bleu_target"),
    *(f"bleu_{kind}_{n}" for kind in ("matches", "grams") for n in _GRAMS[0]),
)
"""Words of a text that is written and of its target; n-grams of 1 to 4 words that both
have, and that the first has: as sacrebleu has them."""
CHRF_SUMS = tuple(
    f"chrf_{kind}_{n}" for n in _GRAMS[1] for kind in ("written", "target", "matches")
)
"""N-grams of 1 to 6 characters of the one, of the other, and of both."""
ROUGE_SUMS = ("rouge1", "rouge2", "rougeL")
"""F1 of each text, as rouge_score names it."""
WRITTEN = ("written", *BLEU_SUMS, *CHRF_SUMS, *ROUGE_SUMS, "exact_matches")
"""Of texts that a model has written; not numbers where none was asked for."""
NAMES = ("documents", *SCALARS, *ADAPTED.values(), *WRITTEN)
_COLUMNS = len(NAMES) + CALIBRATION_BINS * 3


@dataclasses.dataclass(frozen=True)
class CorpusSums:
    """Sums over a corpus, and over the corpus without each of its blocks.

    Attributes:
        blocks: float64 `[N, K]`: the sums over each block of documents, in an order
            that is the same for every model. The columns are those of `NAMES`, the
            calibration's `[15, 3]` and, of a model of C labels, theirs `[C, 6 + C]`:
            `by_span`, filled up with zeros, and `by_label`.
    """

    blocks: np.ndarray

    @classmethod
    def ones(cls) -> CorpusSums:
        """Sums over documents whose sums are 1, to try a metric on."""
        return cls(np.ones((MIN_DOCUMENTS, _COLUMNS)))

    @classmethod
    def of(cls, rows: Iterable[tuple[int, np.ndarray]]) -> CorpusSums:
        """Adds up documents, each its seed and what `row` makes of its sums."""
        blocks = Blocks()
        blocks.add(rows)
        return blocks.sums

    def __getitem__(self, name: str) -> np.ndarray:
        """One of `NAMES`, float64 `[1 + N]`."""
        if name not in NAMES:
            raise KeyError(f"there is no sum {name!r}: there are {', '.join(NAMES)}")
        return self.values[:, NAMES.index(name)]

    @functools.cached_property
    def values(self) -> np.ndarray:
        """The sums, then those without each block, float64 `[1 + N, K]`."""
        total = self.blocks.sum(axis=0)
        with np.errstate(invalid="ignore"):  # of a score that is infinite
            return np.vstack([total, total - self.blocks])

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return round(self["documents"][0])

    @property
    def calibration(self) -> np.ndarray:
        """Tokens, confidence and right ones by bin, `[1 + N, 15, 3]`."""
        columns = self.values[:, len(NAMES) : _COLUMNS]
        return columns.reshape(-1, CALIBRATION_BINS, 3)

    @property
    def by_label(self) -> np.ndarray:
        """What `evaluate` says by label, `[1 + N, C, 3 + C]`; without any, C is 0."""
        return self._of_labels[:, :, 3:]

    @property
    def by_span(self) -> np.ndarray:
        """What it says by type of spans, and then zeros, `[1 + N, C, 3]`."""
        return self._of_labels[:, :, :3]

    @property
    def _of_labels(self) -> np.ndarray:
        columns = self.values[:, _COLUMNS:]
        # So many labels have C (6 + C) columns.
        count = round(math.sqrt(9 + columns.shape[1])) - 3
        return columns.reshape(-1, count, 6 + count)


class Blocks:
    """Adds up documents in at most `BLOCKS` blocks, in any order and grouping.

    The block of a document is its seed without the last bits: as many are left out as
    it takes, none where there are few documents.
    """

    def __init__(self) -> None:
        self._seeds = np.zeros(0, np.uint64)
        self._rows = np.zeros((0, 0))
        self._left_out = np.uint64(0)

    def add(self, documents: Iterable[tuple[int, np.ndarray]]) -> None:
        """Adds documents, each its seed and what `row` makes of its sums."""
        seeds, rows = [], []
        for seed, columns in documents:
            seeds.append(seed)
            rows.append(columns)
        if rows:
            self._gather(np.array(seeds, np.uint64), np.stack(rows))

    def merge(self, other: Blocks) -> None:
        """Adds what another has added up."""
        self._left_out = max(self._left_out, other._left_out)
        self._gather(other._seeds, other._rows)

    @property
    def sums(self) -> CorpusSums:
        """The sums over all that was added."""
        return CorpusSums(self._rows if self._rows.size else np.zeros((0, _COLUMNS)))

    def _gather(self, seeds: np.ndarray, rows: np.ndarray) -> None:
        # Neither of two may have had documents; then it has no columns.
        parts = [part for part in (self._rows, rows) if len(part)]
        if not parts:
            return
        seeds = np.concatenate([self._seeds, seeds])
        rows = np.concatenate(parts)
        while True:
            seeds = seeds >> self._left_out << self._left_out
            self._seeds, block = np.unique(seeds, return_inverse=True)
            if len(self._seeds) <= BLOCKS:
                break
            self._left_out += np.uint64(1)
        self._rows = np.zeros((len(self._seeds), rows.shape[1]))
        np.add.at(self._rows, block, rows)


def row(outputs: dict[str, Any]) -> np.ndarray:
    """The sums of one document as a row of `CorpusSums`.

    An export from before there was an output goes without: it is not a number then,
    but `spelling_nll`, which was 0 for all that could be exported.

    Args:
        outputs: those of the signature `evaluate` for it, and of `ADAPTED` and
            `WRITTEN` what was asked for.
    """
    missing = {"spelling_nll": 0.0}
    scalars = [
        np.sum(outputs.get(name, missing.get(name, math.nan)), dtype=np.float64)
        for name in NAMES[1:]
    ]
    calibration = np.ravel(
        outputs.get("calibration", np.full(CALIBRATION_BINS * 3, math.nan))
    )
    by_label = np.ravel(outputs.get("by_label", ()))
    # So many labels have C (3 + C) numbers.
    count = round((math.sqrt(9 + 4 * by_label.size) - 3) / 2)
    by_span = np.ravel(outputs.get("by_span", ()))
    by_span = np.pad(by_span, (0, 3 * count - by_span.size)).reshape(count, 3)
    both = np.concatenate([by_span, by_label.reshape(count, 3 + count)], axis=1)
    return np.array([1.0, *scalars, *calibration, *np.ravel(both)], np.float64)


def seed_of(text: bytes) -> int:
    """A hash of a document's text, of 64 bits, which decides its block."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % confidence interval of a value; `None` where there is none.

    Args:
        values: `[1 + N]`: the value, and what it is without each block.
    """
    value, without = float(values[0]), values[1:]
    if without.size < MIN_DOCUMENTS:
        return None
    if not math.isfinite(value):
        return value, value
    if not np.isfinite(without).all():
        return None
    deviations = without - value
    deviations -= deviations.mean()
    largest = float(np.abs(deviations).max())
    if largest == 0:
        return value, value
    squares = (deviations / largest) ** 2
    total = squares.sum()
    # Of a sum of squares, twice its squared mean by its variance; 2 fewer, as both are
    # estimates, and the variance of few squares is too small.
    freedom = 2 * total**2 / (squares**2).sum() - 2
    freedom = min(max(freedom, 1.0), without.size - 1.0)
    quantile = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    error = quantile * largest * math.sqrt(total * (1 - 1 / without.size))
    return value - error, value + error
