"""Rules of the gate, checked before anything starts.

This module imports nothing heavy: the configuration is checked with it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from .. import probes
from ..measures.slices import feature_of, require_slice
from ..measures.sums import CORPUS_METRICS, EXPORT_METRICS
from ..records import LAST_BLESSED, NGRAM, OVERALL

OTHERS = (LAST_BLESSED, NGRAM)

DEFINITIONS: dict[str, dict[str, str]] = {
    **{
        metric.name: {
            "name": metric.name.replace("_", " "),
            "unit": metric.unit,
            "definition": metric.definition,
            "source": metric.source,
            "better": metric.better,
        }
        for metric in (*CORPUS_METRICS.values(), *EXPORT_METRICS.values())
    },
    **probes.NAMES,
}
"""All metrics that a rule can be about, by name."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule: a bound on a metric, or a margin against another model.

    Attributes:
        metric: Name of the metric.
        min: The least that is good enough; or
        max: The most that is; or
        against: The model, `last_blessed` or `ngram`, that the candidate must be better
            than by
        margin: so much, in the metric's unit, or as good as with 0. Below 0 it is how
            much worse it may be.
        significant: Whether only what the 95 % confidence interval excludes counts: of
            a margin, the paired interval of the difference must lie beyond it; of a
            bound, the interval of the value must keep it.
        slice: Of which documents, such as `overall` or `source=news`.
    """

    metric: str
    min: float | None = None
    max: float | None = None
    against: str | None = None
    margin: float = 0.0
    significant: bool = False
    slice: str = OVERALL

    @property
    def is_upper(self) -> bool:
        """Whether the bound is one from above."""
        if self.against is None:
            return self.max is not None
        return DEFINITIONS[self.metric]["better"] == "lower"

    def bound(self, other: float = math.nan) -> float:
        """The bound on the metric, given that of the other model."""
        if self.against is None:
            given = self.max if self.is_upper else self.min
            return math.nan if given is None else given
        return other - self.margin if self.is_upper else other + self.margin

    def __str__(self) -> str:
        of = "" if self.slice == OVERALL else f" of {self.slice}"
        sign = "<=" if self.is_upper else ">="
        if self.against is None:
            bound = f"{self.bound():g}"
        else:
            change = self.bound(0.0)
            operator = "-" if change < 0 else "+"
            bound = self.against + (f" {operator} {abs(change):g}" if change else "")
        return f"{self.metric}{of} {sign} {bound}" + (
            ", significantly" if self.significant else ""
        )


def parse(sections: Iterable[Mapping[str, Any]], features: Iterable[str]) -> list[Rule]:
    """Makes rules of what a configuration says.

    Args:
        sections: Each the arguments of one `Rule`; with `min` and `max` it is two.
        features: Features of the examples, by which they can be sliced.

    Raises:
        ValueError: A line that says what is wrong with a rule, and what would be right.
    """
    rules = []
    for section in sections:
        rule = Rule(**section)
        _check(rule, list(features))
        if rule.min is not None and rule.max is not None:
            rules += [
                dataclasses.replace(rule, max=None),
                dataclasses.replace(rule, min=None),
            ]
        else:
            rules.append(rule)
    return rules


def _check(rule: Rule, features: list[str]) -> None:
    named = f"gate.rules, {rule.metric}"
    if rule.metric not in DEFINITIONS:
        raise ValueError(
            f"gate.rules: there is no metric {rule.metric!r}: it is one of "
            f"{', '.join(DEFINITIONS)}"
        )
    bounded = rule.min is not None or rule.max is not None
    if bounded == (rule.against is not None):
        raise ValueError(
            f"{named}: a rule has min, max or both, or against: {' or '.join(OTHERS)}"
        )
    if rule.against not in (None, *OTHERS):
        raise ValueError(
            f"{named}: against is {' or '.join(OTHERS)}, not {rule.against!r}"
        )
    if bounded and rule.margin:
        raise ValueError(f"{named}: margin goes with against, not with min or max")
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        raise ValueError(f"{named}: min {rule.min:g} is above max {rule.max:g}")
    if rule.metric not in CORPUS_METRICS:
        _check_of_no_corpus(rule, named)
    try:
        require_slice(rule.slice, features)
    except ValueError as error:
        raise ValueError(f"{named}: {error}") from error


def _check_of_no_corpus(rule: Rule, named: str) -> None:
    if rule.significant:
        raise ValueError(f"{named}: it has no interval, and cannot be significant")
    if rule.slice != OVERALL:
        raise ValueError(f"{named}: it is of the whole model, and has no slices")
    if rule.against and rule.metric not in EXPORT_METRICS:
        raise ValueError(
            f"{named}: it is measured of the candidate only: give min, max"
        )


def sliced_features(rules: Iterable[Rule], slices: Iterable[str]) -> list[str]:
    """The features to slice by: those asked for, and those that rules need."""
    needed = (feature_of(rule.slice) for rule in rules if rule.slice != OVERALL)
    return list(dict.fromkeys([*slices, *needed]))
