"""The gate: which candidate is blessed, rule by rule."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..measured import Measured
from ..measures.sums import interval
from ..records import CANDIDATE, LAST_BLESSED, OVERALL, Baseline, Outcome, Verdict
from ..settings import RuleSettings
from .decision import DOCUMENTS, MISSING_SIGNATURES, NLL, Decision


def decide(
    rules: Sequence[RuleSettings],
    measured: Measured,
    *,
    compared_with: Baseline | None = None,
    accepted: bool = False,
    taken_back: int | None = None,
) -> Decision:
    """Judges the candidate by all rules, and by what none is blessed without.

    Args:
        rules: The rules, each with one bound.
        measured: What was measured.
        compared_with: Which model is the last blessed one there.
        accepted: Whether the candidate is accepted in its place, on purpose: rules
            against it are judged, and are kept whatever comes of that.
        taken_back: The version that the candidate is, where a rollback went back to one
            before it.
    """
    outcomes = conditions(measured)
    if learned := measured.left_out.get(CANDIDATE):
        outcomes.append(_condition("unseen documents", DOCUMENTS, 0.0, None, learned))
    if taken_back is not None:
        outcomes.append(_taken_back(taken_back))
    accepted = accepted and measured.knows_of(LAST_BLESSED)
    judged = [judge(rule, measured) for rule in rules]
    outcomes += map(_accepted, judged) if accepted else judged
    verdict = Verdict(
        blessed=all(outcome.passed for outcome in outcomes),
        judged=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        baseline=compared_with,
        accepted=accepted,
        rules=outcomes,
    )
    return Decision(measured.record, verdict)


def judge(rule: RuleSettings, measured: Measured) -> Outcome:
    """Says whether the candidate keeps a rule."""
    metric = rule.measure.name
    own = measured.values(CANDIDATE, rule.slice, metric)
    outcome = Outcome(
        rule=str(rule),
        metric=metric,
        slice=rule.slice,
        against=rule.against,
        value=math.nan if own is None else float(own[0]),
        bound=None if rule.against else rule.bound(),
        passed=False,
    )
    if own is None or math.isnan(own[0]):
        return _but(outcome, reason="it has no such number")
    if rule.against is None:
        return _compared(outcome, rule, own, rule.bound())
    other = measured.values(rule.against, rule.slice, metric)
    if other is None or math.isnan(other[0]):
        reason = _why_not_compared(rule.against, measured)
        # The first model has no other before it; an n-gram model can always be had.
        passed = rule.against == LAST_BLESSED and not measured.knows_of(rule.against)
        return _but(outcome, passed=passed, reason=reason)
    # Differences without the same documents, moved to where the value is.
    paired = np.concatenate([own[:1], other[0] + (own - other)[1:]])
    return _compared(outcome, rule, paired, rule.bound(float(other[0])))


def _why_not_compared(model: str, measured: Measured) -> str:
    if model in measured.left_out:
        return f"{model} is not compared with: {measured.left_out[model]}"
    if measured.knows_of(model):
        return f"{model} has no such number"
    return f"no {model} to compare with"


def _compared(
    outcome: Outcome, rule: RuleSettings, values: np.ndarray, bound: float
) -> Outcome:
    between = interval(values)
    outcome = _but(outcome, bound=bound, interval=between)
    if rule.significant and between is None:
        return _but(outcome, reason=f"{values.size - 1} documents give no interval")
    value = float(values[0])
    tested = value
    if rule.significant and between is not None:
        tested = between[1] if rule.is_upper else between[0]
    strict = rule.significant and rule.against is not None
    beyond = bound - tested if rule.is_upper else tested - bound
    passed = beyond > 0 if strict else beyond >= 0
    reason = "above the bound" if rule.is_upper else "below the bound"
    if rule.significant and (rule.is_upper == (value <= bound)):
        reason = "not significantly"
    return _but(outcome, passed=passed, reason="" if passed else reason)


def _but(outcome: Outcome, **changes: Any) -> Outcome:
    return outcome.model_copy(update=changes)


def conditions(measured: Measured) -> list[Outcome]:
    """What no candidate is blessed without, whatever the rules are."""
    missing, documents = measured.missing_signatures, measured.documents
    overall = measured.sums.get(CANDIDATE, {}).get(OVERALL)
    nats = math.nan if overall is None else float(overall["nll"][0])
    return [
        _condition(
            "all signatures",
            MISSING_SIGNATURES,
            len(missing),
            0.0,
            f"it lacks {', '.join(missing)}" if missing else "",
        ),
        _condition(
            "documents >= 1",
            DOCUMENTS,
            documents,
            1.0,
            "" if documents else "it was evaluated on none",
        ),
        _condition(
            "finite scores",
            NLL,
            nats,
            None,
            "" if math.isfinite(nats) else f"they add up to {nats}",
        ),
    ]


def _accepted(outcome: Outcome) -> Outcome:
    if outcome.passed or outcome.against != LAST_BLESSED:
        return outcome
    return _but(outcome, passed=True, reason=f"accepted, though {outcome.reason}")


def _taken_back(version: int) -> Outcome:
    reason = (
        f"a rollback took it back as version {version}: `langzoo rollback --to "
        f"{version}` brings it again"
    )
    return _condition("not taken back", "taken_back", 1.0, 0.0, reason)


def _condition(
    rule: str, metric: str, value: float, bound: float | None, reason: str
) -> Outcome:
    return Outcome(
        rule=rule,
        metric=metric,
        value=value,
        bound=bound,
        passed=not reason,
        reason=reason,
    )
