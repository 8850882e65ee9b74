"""Metrics of taggers are what their definitions say, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from langzoo.components.evaluator.measured import Measured
from langzoo.components.evaluator.measures.sums import CorpusSums, row
from langzoo.components.evaluator.measures.token_classifier import METRICS
from langzoo.components.evaluator.records import CANDIDATE, OVERALL

TAGS = ["B-LOC", "B-PER", "I-PER", "O"]
# Of words by the tag that they have, how many are said to have each.
CONFUSION = np.array([[3, 1, 0, 0], [0, 4, 0, 1], [0, 0, 2, 0], [0, 1, 0, 8]])
# Of LOC and PER: spans that are there, that are said, and both.
BY_SPAN = np.array([[4, 3, 3], [5, 6, 3]])


@pytest.fixture
def sums():
    """Those of two documents, the second one of a word whose tag is not known."""
    counts = [CONFUSION.sum(axis=1), CONFUSION.sum(axis=0), CONFUSION.diagonal()]
    first = {
        "nll": 5.0,
        "labelled": 20,
        "judged": 20,
        "unknown_labels": 0,
        "correct": 17,
        "by_label": np.concatenate([np.stack(counts, axis=-1), CONFUSION], axis=-1),
        **dict(zip(("spans", "said_spans", "right_spans"), (9, 9, 6), strict=True)),
        "by_span": BY_SPAN,
    }
    second = {name: np.zeros_like(value) for name, value in first.items()}
    second |= {"judged": 1, "unknown_labels": 1, "spans": 1}
    return CorpusSums.of([(1, row(first)), (2, row(second))])


def test_figures_are_of_words_and_of_spans(sums):
    found = {metric.name: metric.values(sums)[0] for metric in METRICS}
    del found["label_calibration_error"]
    assert found == pytest.approx(
        {
            "nats_per_tag": 5 / 20,
            "span_f1": 2 * 6 / (10 + 9),
            "span_precision": 6 / 9,
            "span_recall": 6 / 10,
            "macro_span_f1": (2 * 3 / (4 + 3) + 2 * 3 / (5 + 6)) / 2,
            "tag_accuracy": 17 / 21,
            "unknown_label_rate": 1 / 21,
        }
    )


def test_figures_are_told_by_tag_and_by_type(sums):
    measured = Measured(
        "token_classifier", {CANDIDATE: {OVERALL: sums}}, labels={CANDIDATE: TAGS}
    )
    found = measured.record
    assert found.models[CANDIDATE].confusion == CONFUSION.tolist()
    assert [label.documents for label in found.labels] == [4, 5, 2, 9]
    told = [(span.label, span.documents, span.said, span.right) for span in found.spans]
    assert told == [("LOC", 4, 3, 3), ("PER", 5, 6, 3)]
