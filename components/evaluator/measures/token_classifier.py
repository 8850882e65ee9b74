"""The metrics of taggers of words, as functions of the corpus sums.

A tag that the model does not know is never said, so the word's answer is wrong, and the
span of it is not found; `unknown_label_rate` tells how often that is. What a span is,
says `models.tasks.tagging.span_types`. See `causal_lm` for how metrics are made.
"""

from __future__ import annotations

import numpy as np

from ....models.tasks import TOKEN_CLASSIFIER
from .metric import of_function, ratio
from .sums import CorpusSums
from .text_classifier import (
    ByLabel,
    label_calibration_error,
    mean_f1,
    unknown_label_rate,
)


def nats_per_tag(sums: CorpusSums) -> np.ndarray:
    """nll / labelled: nats of a word's tag.

    Unit: nats. Comparable between any two models on the same words and tags, whatever
    their vocabularies; the gate compares by it. Source: Good 1952, "Rational
    decisions".
    """
    return ratio(sums["nll"], sums["labelled"])


def span_f1(sums: CorpusSums) -> np.ndarray:
    """Harmonic mean of the precision and the recall of spans, of all types together.

    Unit: share from 0 to 1. Source: Tjong Kim Sang and De Meulder 2003, "Introduction
    to the CoNLL-2003 shared task", section 2.4; as the package seqeval counts spans.
    """
    return ratio(2 * sums["right_spans"], sums["spans"] + sums["said_spans"])


def span_precision(sums: CorpusSums) -> np.ndarray:
    """Share of the spans that are said that are there, with that type and those words.

    Unit: share from 0 to 1. Source: Tjong Kim Sang and De Meulder 2003, section 2.4.
    """
    return ratio(sums["right_spans"], sums["said_spans"])


def span_recall(sums: CorpusSums) -> np.ndarray:
    """Share of the spans that are said, with their type and their words.

    Unit: share from 0 to 1. Source: Tjong Kim Sang and De Meulder 2003, section 2.4.
    """
    return ratio(sums["right_spans"], sums["spans"])


def macro_span_f1(sums: CorpusSums) -> np.ndarray:
    """Mean of the F1 of the spans of each type, of those that are there or said.

    Unit: share from 0 to 1. Rare types count as much as frequent ones. Source: Opitz
    and Burst 2019, "Macro F1 and macro F1".
    """
    return mean_f1(ByLabel.of(sums.by_span))


def tag_accuracy(sums: CorpusSums) -> np.ndarray:
    """Share of the words whose tag is said.

    Unit: share from 0 to 1. Source: Manning 2011, "Part-of-speech tagging from 97% to
    100%".
    """
    return ratio(sums["correct"], sums["judged"])


METRICS = (
    of_function(nats_per_tag, TOKEN_CLASSIFIER.unit, TOKEN_CLASSIFIER.direction),
    of_function(span_f1, "share", "higher"),
    of_function(span_precision, "share", "higher"),
    of_function(span_recall, "share", "higher"),
    of_function(macro_span_f1, "share", "higher"),
    of_function(tag_accuracy, "share", "higher"),
    of_function(label_calibration_error, "share", "lower"),
    of_function(unknown_label_rate, "share", "lower"),
)
"""What is measured of a tagger of words."""
