"""The metrics of texts that models write, beside references: BLEU, chrF, ROUGE.

An export writes to each source, and each text leaves sums (`statistics`), of which the
numbers of a corpus are made as sacrebleu makes them; so intervals and paired
differences are those of all metrics. It takes time, so it is done where a rule or
`gate.generate` asks for it.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ....models.settings import Section
from ....serving.export.contract import MAX_BEAMS
from .metric import Metric, of_function, ratio
from .sums import BLEU_SUMS, CHRF_SUMS, ROUGE_SUMS, CorpusSums


class GenerationSettings(Section):
    """How the texts are written that are set beside the references."""

    num_beams: Annotated[int, Field(ge=1, le=MAX_BEAMS)] = 1
    """Beams of the search; with 1 the likeliest token is taken each time."""
    length_penalty: float = 1.0
    """Of beams: they are ranked by log-probability over length ** this."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of a text; by default as many as the export gives."""


def bleu(sums: CorpusSums) -> np.ndarray:
    """Geometric mean of the precisions of 1- to 4-grams, times a penalty for brevity.

    Unit: none, from 0 to 100. Of the whole corpus, by sacrebleu. Source: Papineni et
    al. 2002, "BLEU: a method for automatic evaluation of machine translation"; Post
    2018, "A call for clarity in reporting BLEU scores".
    """
    bleu_of = _bleu().compute_bleu

    def of_corpus(sums: np.ndarray) -> float:
        written, target, *counts = sums.round().astype(int).tolist()
        smoothed = {"smooth_method": "exp"}
        return bleu_of(counts[:4], counts[4:], written, target, **smoothed).score

    return _of_each(of_corpus, sums, BLEU_SUMS)


def chrf(sums: CorpusSums) -> np.ndarray:
    """F2 of n-grams of 1 to 6 characters, without white space.

    Unit: none, from 0 to 100. Of the whole corpus, by sacrebleu. Source: Popović 2015,
    "chrF: character n-gram F-score for automatic MT evaluation".
    """
    return _of_each(lambda row: _chrf()._compute_f_score(row.tolist()), sums, CHRF_SUMS)


def rouge1(sums: CorpusSums) -> np.ndarray:
    """Mean F1 of words of the written text and of the reference.

    Unit: share from 0 to 1. By the package rouge_score, without stemming. Source: Lin
    2004, "ROUGE: a package for automatic evaluation of summaries".
    """
    return ratio(sums["rouge1"], sums["written"])


def rouge2(sums: CorpusSums) -> np.ndarray:
    """Mean F1 of pairs of words that follow each other in both texts.

    Unit: share from 0 to 1. As `rouge1`. Source: Lin 2004, section 2.
    """
    return ratio(sums["rouge2"], sums["written"])


def rouge_l(sums: CorpusSums) -> np.ndarray:
    """Mean F1 of the longest common subsequence of words.

    Unit: share from 0 to 1. As `rouge1`. Source: Lin 2004, section 3.1.
    """
    return ratio(sums["rougeL"], sums["written"])


def exact_match(sums: CorpusSums) -> np.ndarray:
    """Share of the texts that are the reference, but for white space at the ends.

    Unit: share from 0 to 1. Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ questions
    for machine comprehension of text", section 6.1.
    """
    return ratio(sums["exact_matches"], sums["written"])


def length_ratio(sums: CorpusSums) -> np.ndarray:
    """Words of the written texts for each word of the references.

    Unit: none. Words as BLEU cuts them; below 1 texts are too short, which BLEU
    punishes. Source: Papineni et al. 2002, section 2.2.
    """
    return ratio(sums["bleu_written"], sums["bleu_target"])


def statistics(text: str, target: str) -> dict[str, float]:
    """The sums of one text, by the names of `sums.WRITTEN`."""
    counts = [
        *_bleu()._extract_corpus_statistics([text], [[target]])[0],
        *_chrf()._extract_corpus_statistics([text], [[target]])[0],
    ]
    rouge = _rouge().score(target, text)
    return {
        "written": 1.0,
        **dict(zip((*BLEU_SUMS, *CHRF_SUMS), map(float, counts), strict=True)),
        **{name: float(rouge[name].fmeasure) for name in ROUGE_SUMS},
        "exact_matches": float(text.strip() == target.strip()),
    }


def _of_each(
    score: Callable[[np.ndarray], float], sums: CorpusSums, names: tuple[str, ...]
) -> np.ndarray:
    """A score of each row of sums `[1 + N]`; NaN where nothing was written."""
    rows = np.stack([sums[name] for name in names], axis=1)
    return np.array(
        [
            score(row) if written > 0 else np.nan
            for row, written in zip(rows, sums["written"], strict=True)
        ]
    )


# They are imported where texts are measured, and not where a configuration is read.
@functools.cache
def _bleu() -> Any:
    from sacrebleu import BLEU

    return BLEU()


@functools.cache
def _chrf() -> Any:
    from sacrebleu import CHRF

    return CHRF()


@functools.cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_SUMS))


def _signed(metric: Metric, how: str) -> Metric:
    """A metric with sacrebleu's signature in its definition."""
    signature = f"nrefs:1|{how}|version:{version('sacrebleu')}"
    definition = f"{metric.definition} Signature: `{signature}`."
    return dataclasses.replace(metric, definition=definition)


METRICS = (
    _signed(of_function(bleu, "", "higher"), "case:mixed|eff:no|tok:13a|smooth:exp"),
    _signed(of_function(chrf, "", "higher"), "case:mixed|eff:yes|nc:6|nw:0|space:no"),
    of_function(rouge1, "share", "higher"),
    of_function(rouge2, "share", "higher"),
    of_function(rouge_l, "share", "higher"),
    of_function(exact_match, "share", "higher"),
    of_function(length_ratio, "", "higher"),
)
"""What is measured of texts that are written, beside references."""
