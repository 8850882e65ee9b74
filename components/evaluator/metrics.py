"""TFMA metrics of language models, exact over a corpus.

An exported model's `evaluate` signature gives five sums for every document: `nll`
(nats, end-of-text included), `spelling_nll` (nats for what is unknown to the model's
vocabulary, beyond the token `<unk>`), `tokens`, `bytes` and `words`. Every metric here
is a function of the sums of those over the corpus. (A mean of the documents'
perplexities is no perplexity of the corpus: it weighs a short document like a long
one.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.metrics import metric_types

OUTPUTS = ("nll", "spelling_nll", "tokens", "bytes", "words")
_SUMS_NAME = "_corpus_sums"


class _CorpusMetric(metric_types.Metric):
    """A function of the corpus sums.

    Args:
        name: Name of the metric.
        source: Hash of this package's source. It does nothing but stand in the
            evaluation's configuration, where TFX's cache sees it.
    """

    def __init__(self, name: str | None = None, source: str = "") -> None:
        super().__init__(self._computations, name=name or self.NAME, source=source)

    NAME: str

    def value(self, sums: dict[str, float]) -> float:
        """Computes the metric from the sums of `OUTPUTS` and `documents`."""
        raise NotImplementedError

    def _computations(
        self, name: str, source: str = "", model_names: list[str] | None = None
    ) -> metric_types.MetricComputations:
        # TFMA gives the arguments that it finds by name in this signature.
        computations = []
        for model_name in model_names or [""]:
            sums_key = metric_types.MetricKey(_SUMS_NAME, model_name=model_name)
            key = metric_types.MetricKey(name, model_name=model_name)
            computations += [
                # Metrics with the same combiner and keys share one computation.
                metric_types.MetricComputation(
                    keys=[sums_key], preprocessors=None, combiner=_SumCombiner(sums_key)
                ),
                metric_types.DerivedMetricComputation(
                    keys=[key], result=self._derivation(sums_key, key)
                ),
            ]
        return computations

    def _derivation(
        self, sums_key: metric_types.MetricKey, key: metric_types.MetricKey
    ) -> Callable[[dict[metric_types.MetricKey, Any]], dict[Any, float]]:
        return lambda metrics: {key: self.value(metrics[sums_key])}


class Perplexity(_CorpusMetric):
    """exp(nll / tokens): the inverse geometric mean probability of a token.

    An unknown piece is a token like any other. So it is comparable only between models
    with the same tokenizer. Source: Jelinek et al.
    1977, "Perplexity, a measure of the difficulty of speech recognition tasks".
    """

    NAME = "perplexity"

    def value(self, sums: dict[str, float]) -> float:
        """Returns perplexity a token; NaN without tokens."""
        return _exp(_ratio(sums["nll"], sums["tokens"]))


class WordPerplexity(_CorpusMetric):
    """exp((nll + spelling_nll) / words), words of the original text, at white space.

    Unknown pieces are spelled, so it is comparable between tokenizers on the same text.
    Source: Mielke 2016, "Language diversity in ACL 2004-2016" and Mielke et al. 2019,
    "What kind of language is hard to language-model?".
    """

    NAME = "word_perplexity"

    def value(self, sums: dict[str, float]) -> float:
        """Returns perplexity a word; NaN without words."""
        return _exp(_ratio(_code_length(sums), sums["words"]))


class BitsPerByte(_CorpusMetric):
    """(nll + spelling_nll) / (bytes * ln 2): bits to encode a byte of the text.

    Comparable between any two models on the same text, as unknown pieces are spelled;
    the gate compares by it. Source: Gao et al. 2020, "The Pile", section 3.1; Mielke et
    al. 2021, "Between words and characters" (unknown pieces).
    """

    NAME = "bits_per_byte"

    def value(self, sums: dict[str, float]) -> float:
        """Returns bits a byte; NaN without bytes."""
        return _ratio(_code_length(sums), sums["bytes"] * math.log(2))


class CorpusSum(_CorpusMetric):
    """One of the sums that the other metrics are made of.

    Args:
        name: `"documents"`, or one of `OUTPUTS`.
        source: As in every metric here.
    """

    NAME = "documents"

    def value(self, sums: dict[str, float]) -> float:
        """Returns the sum."""
        return sums[self.name]


class _SumCombiner(beam.CombineFn):
    """Adds up the outputs of the `evaluate` signature in double precision."""

    def __init__(self, key: metric_types.MetricKey) -> None:
        self._key = key

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(len(OUTPUTS) + 1, np.float64)

    def add_input(
        self, accumulator: np.ndarray, element: metric_types.StandardMetricInputs
    ) -> np.ndarray:
        predictions = element.get_predictions(self._key.model_name)
        # A baseline that was exported before there was `spelling_nll` goes without.
        sums = [np.sum(predictions.get(name, 0), dtype=np.float64) for name in OUTPUTS]
        documents = np.size(predictions[OUTPUTS[0]])
        return accumulator + np.array([*sums, documents])

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return np.sum(list(accumulators), axis=0)

    def extract_output(
        self, accumulator: np.ndarray
    ) -> dict[metric_types.MetricKey, dict[str, float]]:
        names = (*OUTPUTS, "documents")
        return {self._key: dict(zip(names, accumulator.tolist(), strict=True))}


def _code_length(sums: dict[str, float]) -> float:
    """Nats of a code of the whole text."""
    return sums["nll"] + sums["spelling_nll"]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


for _metric in (Perplexity, WordPerplexity, BitsPerByte, CorpusSum):
    metric_types.register_metric(_metric)
