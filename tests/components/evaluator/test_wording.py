"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from langzoo.components.evaluator import wording


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.87249, "1.872"),
        (0.012345, "0.0123"),
        (0.00012345, "0.00012"),
        (27.29, "27.29"),
        (12_345.6, "12,346"),
        (751.0, "751"),
        (67_925_638.5, "67.9 M"),
        (-0.5, "-0.5000"),
        (math.nan, "NaN"),
        (-math.inf, "-infinity"),
        (None, wording.NOTHING),
    ],
)
def test_a_number_has_four_digits(value, shown):
    assert wording.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_a_duration_has_the_units_that_it_needs(seconds, shown):
    assert wording.duration(seconds) == shown


def test_slices_are_in_the_order_of_their_numbers():
    names = ["length=1024-4095", "source=b", "length=0-255", "overall", "length=256-"]
    assert wording.in_order(names) == [
        *("overall", "length=0-255", "length=256-", "length=1024-4095", "source=b")
    ]
