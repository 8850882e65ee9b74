"""What a probe finds, and how a metric of it is declared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..measures.metric import Metric


class Probed(NamedTuple):
    """What probes found.

    Attributes:
        metrics: Values by the names in `NAMES`; NaN where there was nothing to measure.
        details: By probe, what the values are made of, fit for JSON.
    """

    metrics: dict[str, float]
    details: dict[str, Any]


def lower_is_better(
    name: str, words: str, unit: str, definition: str, source: str
) -> Metric:
    """A metric that should be low, of the candidate alone."""
    return Metric(name, unit, "lower", definition, source, words)


def by_name(*metrics: Metric) -> dict[str, Metric]:
    """Metrics by their names."""
    return {metric.name: metric for metric in metrics}


def mean(values: Iterable[float]) -> float:
    """The mean of values; NaN where there are none."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else math.nan
