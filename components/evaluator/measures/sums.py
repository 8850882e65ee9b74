"""Sums over a corpus with their bootstrap, and the metrics that are functions of them.

An exported model's `evaluate` signature gives sums for every document (see
`serving.evaluation`); here they are sums over a corpus, or a slice of it. (A mean of
the documents' perplexities is no perplexity of the corpus: it weighs a short document
like a long one.)

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
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np

BINS = 15
RESAMPLES = 1000
CONFIDENCE = 0.95
# Below, an interval of percentiles would be far too narrow.
MIN_DOCUMENTS = 10

SCALARS = (
    *("nll", "spelling_nll", "tokens", "bytes", "words", "characters"),
    *("unknown_tokens", "correct_at_1", "correct_at_5"),
)
NAMES = ("documents", *SCALARS)
_COLUMNS = len(NAMES) + BINS * 3


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
        return self.values[:, NAMES.index(name)]

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return round(self["documents"][0])

    @property
    def calibration(self) -> np.ndarray:
        """Tokens, confidence and right ones by bin, `[1 + RESAMPLES, 15, 3]`."""
        return self.values[:, len(NAMES) :].reshape(-1, BINS, 3)


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
    calibration = np.ravel(outputs.get("calibration", np.full(BINS * 3, math.nan)))
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


def perplexity(sums: CorpusSums) -> np.ndarray:
    """exp(nll / tokens): the inverse geometric mean probability of a token.

    Unit: none. An unknown piece is a token like any other, so it is comparable only
    between models with the same tokenizer. Source: Jelinek et al. 1977, "Perplexity, a
    measure of the difficulty of speech recognition tasks".
    """
    return _exp(_ratio(sums["nll"], sums["tokens"]))


def word_perplexity(sums: CorpusSums) -> np.ndarray:
    """exp((nll + spelling_nll) / words), words of the original text, at white space.

    Unit: none. Unknown pieces are spelled, so it is comparable between tokenizers on
    the same text. Source: Mielke 2016, "Language diversity in ACL 2004-2016" and Mielke
    et al. 2019, "What kind of language is hard to language-model?".
    """
    return _exp(_ratio(_code_length(sums), sums["words"]))


def bits_per_byte(sums: CorpusSums) -> np.ndarray:
    """(nll + spelling_nll) / (bytes * ln 2): bits to encode a byte of the text.

    Unit: bits. Comparable between any two models on the same text, as unknown pieces
    are spelled; the gate compares by it. Source: Gao et al. 2020, "The Pile", section
    3.1; Mielke et al. 2021, "Between words and characters" (unknown pieces).
    """
    return _ratio(_code_length(sums), sums["bytes"] * math.log(2))


def bits_per_character(sums: CorpusSums) -> np.ndarray:
    """(nll + spelling_nll) / (characters * ln 2): bits to encode a Unicode code point.

    Unit: bits. Comparable as bits per byte are, and the usual unit of character models.
    Source: Graves 2013, "Generating sequences with recurrent neural networks", 3.1.
    """
    return _ratio(_code_length(sums), sums["characters"] * math.log(2))


def token_accuracy(sums: CorpusSums) -> np.ndarray:
    """Share of the tokens that were the likeliest to the model, `</s>` included.

    Unit: share from 0 to 1. Comparable only between models with the same tokenizer.
    Source: Merity et al. 2018, "An analysis of neural language modeling at multiple
    scales", section 5.3.
    """
    return _ratio(sums["correct_at_1"], sums["tokens"])


def token_accuracy_at_5(sums: CorpusSums) -> np.ndarray:
    """Share of the tokens that were among the five likeliest, `</s>` included.

    Unit: share from 0 to 1. Comparable only between models with the same tokenizer.
    Source: Russakovsky et al. 2015, "ImageNet large scale visual recognition
    challenge", section 4.1 (accuracy at five).
    """
    return _ratio(sums["correct_at_5"], sums["tokens"])


def expected_calibration_error(sums: CorpusSums) -> np.ndarray:
    """Mean distance of the likeliest token's probability to how often it was right.

    Unit: share from 0 to 1. The mean over 15 bins of that probability, equally wide,
    weighed by their tokens; 0 is a model that knows how sure it may be. Source: Guo et
    al. 2017, "On calibration of modern neural networks", equation 3.
    """
    tokens, confidence, right = np.moveaxis(sums.calibration, -1, 0)
    return _ratio(np.abs(confidence - right).sum(axis=-1), tokens.sum(axis=-1))


def out_of_vocabulary_rate(sums: CorpusSums) -> np.ndarray:
    """Share of the text's tokens that are `<unk>`, `</s>` left out.

    Unit: share from 0 to 1. It speaks of the tokenizer, and says how much of a text a
    perplexity leaves open. Source: Jurafsky and Martin 2009, "Speech and language
    processing", section 4.3.2.
    """
    return _ratio(sums["unknown_tokens"], sums["tokens"] - sums["documents"])


def _code_length(sums: CorpusSums) -> np.ndarray:
    """Nats of a code of the whole text."""
    return sums["nll"] + sums["spelling_nll"]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    some = denominator != 0
    return np.divide(
        numerator, denominator, out=np.full_like(numerator, math.nan), where=some
    )


def _exp(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.exp(values)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that a corpus gives a model.

    Attributes:
        name: Its name.
        unit: Its unit.
        better: Which is better.
        definition: What it is, in a sentence.
        source: Where that is from.
        compute: From the sums to `[1 + RESAMPLES]` values; None for what is measured
            on the export itself.
    """

    name: str
    unit: str
    better: Literal["lower", "higher"]
    definition: str
    source: str = ""
    compute: Callable[[CorpusSums], np.ndarray] | None = None


def _corpus_metric(
    compute: Callable[[CorpusSums], np.ndarray],
    better: Literal["lower", "higher"],
    unit: str,
) -> Metric:
    documentation = str(inspect.getdoc(compute))
    definition = " ".join(documentation.partition("\n\n")[0].split())
    source = " ".join(documentation.partition("Source: ")[2].split())
    return Metric(compute.__name__, unit, better, definition, source, compute)


CORPUS_METRICS = {
    metric.name: metric
    for metric in (
        _corpus_metric(bits_per_byte, "lower", "bits"),
        _corpus_metric(bits_per_character, "lower", "bits"),
        _corpus_metric(perplexity, "lower", ""),
        _corpus_metric(word_perplexity, "lower", ""),
        _corpus_metric(token_accuracy, "higher", "share"),
        _corpus_metric(token_accuracy_at_5, "higher", "share"),
        _corpus_metric(expected_calibration_error, "lower", "share"),
        _corpus_metric(out_of_vocabulary_rate, "lower", "share"),
    )
}
EXPORT_METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            *("latency_ms", "ms", "lower"),
            "Median time of a call of `serving_default` with one text, in process.",
        ),
        Metric("size_mb", "MB", "lower", "Size of the exported model's files."),
    )
}
