"""The metrics of masked language models are what their definitions say."""

import math

import numpy as np
import pytest
from langzoo.components.evaluator.measures.sums import CorpusSums, row
from langzoo.components.evaluator.measures.tables import measures_of

DOCUMENTS = [
    {"nll": 12.0, "tokens": 4, "correct_at_1": 1, "correct_at_5": 2},
    {"nll": 3.0, "tokens": 2, "correct_at_1": 1, "correct_at_5": 2},
]
BY_HAND = {
    "nats_per_masked_token": 15 / 6,
    "masked_perplexity": math.exp(15 / 6),
    "masked_accuracy": 2 / 6,
    "masked_accuracy_at_5": 4 / 6,
    # All in the bin from 0.2 on, with 0.25 each.
    "expected_calibration_error": abs(6 * 0.25 - 2) / 6,
}


def test_metrics_are_those_counted_by_hand():
    calibration = np.zeros((2, 15, 3))
    calibration[:, 3] = [[4, 1.0, 1], [2, 0.5, 1]]
    rows = [
        row({**one, "calibration": bins})
        for one, bins in zip(DOCUMENTS, calibration, strict=True)
    ]
    sums = CorpusSums.of(enumerate(rows))
    metrics = measures_of("masked_lm")
    assert metrics.keys() == BY_HAND.keys()
    for name, expected in BY_HAND.items():
        assert metrics[name].values(sums)[0] == pytest.approx(expected), name
