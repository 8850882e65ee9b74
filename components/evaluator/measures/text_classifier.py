"""The metrics of text classifiers, as functions of the corpus sums.

Of a text with one label, `said` is the likeliest; of one that may have several, those
above a half. A label of a document that the model does not know is never said, so the
answer is wrong; what the model cannot say, it has no cross-entropy of, and
`unknown_label_rate` tells how often that is. See `causal_lm` for how they are made.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ....models.tasks import TEXT_CLASSIFIER
from .metric import calibration_error, of_function, ratio
from .sums import CorpusSums


class ByLabel(NamedTuple):
    """Documents by label, each `[1 + N, C]`: that have it, are said to, and both; or
    spans by type."""

    has: np.ndarray
    said: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray) -> ByLabel:
        """Those of a corpus, `[1 + N, C, 3]` or more."""
        return cls(*np.moveaxis(counts[:, :, :3], -1, 0))

    @property
    def precision(self) -> np.ndarray:
        """Of the documents that are said to have a label, the share that have it."""
        return ratio(self.right, self.said)

    @property
    def recall(self) -> np.ndarray:
        """Of the documents that have a label, the share that are said to."""
        return ratio(self.right, self.has)

    @property
    def f1(self) -> np.ndarray:
        """Their harmonic mean; not a number where a label does not occur at all."""
        return ratio(2 * self.right, self.has + self.said)


def cross_entropy(sums: CorpusSums) -> np.ndarray:
    """nll / labelled: nats of a document's label, or of all its labels together.

    Unit: nats. Comparable between any two models on the same documents and labels; the
    gate compares by it. Source: Good 1952, "Rational decisions".
    """
    return ratio(sums["nll"], sums["labelled"])


def accuracy(sums: CorpusSums) -> np.ndarray:
    """Share of the documents whose label is said, or exactly whose labels.

    Unit: share from 0 to 1. Source: Manning et al. 2008, "Introduction to information
    retrieval", section 8.3.
    """
    return ratio(sums["correct"], sums["judged"])


def macro_f1(sums: CorpusSums) -> np.ndarray:
    """Mean of the labels' F1, of those that a document has or is said to have.

    Unit: share from 0 to 1. Rare labels count as much as frequent ones. Source: Opitz
    and Burst 2019, "Macro F1 and macro F1".
    """
    return mean_f1(ByLabel.of(sums.by_label))


def mean_f1(by: ByLabel) -> np.ndarray:
    """The mean of the F1 of what occurs, `[1 + N]`."""
    occurs = ~np.isnan(by.f1)
    return ratio(np.where(occurs, by.f1, 0.0).sum(axis=1), occurs.sum(axis=1) * 1.0)


def micro_f1(sums: CorpusSums) -> np.ndarray:
    """F1 of all decisions about a document and a label together.

    Unit: share from 0 to 1. Where each document has one label, it is the accuracy.
    Source: Manning et al. 2008, "Introduction to information retrieval", section 13.6.
    """
    by = ByLabel.of(sums.by_label)
    has = by.has.sum(axis=1) + sums["unknown_labels"]
    return ratio(2 * by.right.sum(axis=1), has + by.said.sum(axis=1))


def label_calibration_error(sums: CorpusSums) -> np.ndarray:
    """Mean distance of the answer's probability to how often it was right.

    Unit: share from 0 to 1. The mean over 15 bins of that probability, equally wide,
    weighed by their answers; 0 is a model that knows how sure it may be. Source: Guo et
    al. 2017, "On calibration of modern neural networks", equation 3.
    """
    return calibration_error(sums)


def unknown_label_rate(sums: CorpusSums) -> np.ndarray:
    """Share of the documents' labels that the model does not know.

    Unit: share from 0 to 1. Source: Scheirer et al. 2013, "Toward open set
    recognition".
    """
    has = sums.by_label[:, :, 0].sum(axis=1)
    return ratio(sums["unknown_labels"], has + sums["unknown_labels"])


METRICS = (
    of_function(cross_entropy, TEXT_CLASSIFIER.unit, TEXT_CLASSIFIER.direction),
    of_function(accuracy, "share", "higher"),
    of_function(macro_f1, "share", "higher"),
    of_function(micro_f1, "share", "higher"),
    of_function(label_calibration_error, "share", "lower"),
    of_function(unknown_label_rate, "share", "lower"),
)
"""What is measured of a text classifier."""
