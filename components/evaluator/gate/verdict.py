"""The gate: which candidate is blessed, rule by rule, and in words."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from tfx.dsl.io import fileio

from ..measures.slices import OVERALL
from ..records import Baseline
from ..results import CANDIDATE, EVALUATION_FILE, Evaluation, interval_of, write_json
from .rules import LAST_BLESSED, Rule

GATE_FILE = "gate.json"
GATED_METRIC = "bits_per_byte"
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_CONDITIONS = ("missing_signatures", "documents", "nll")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a rule.

    Attributes:
        rule: The rule in words.
        metric: What it is about.
        slice: Of which documents.
        against: The model that the candidate is compared with, if any.
        value: The candidate's.
        bound: The most or the least that keeps the rule.
        interval: The 95 % confidence interval of the value; against another model, that
            of the difference, moved to where the value is. None where there is none.
        passed: Whether the candidate keeps the rule.
        reason: Why it does not, or why nothing was compared.
    """

    rule: str
    metric: str
    slice: str
    against: str | None
    value: float
    bound: float | None
    interval: tuple[float, float] | None
    passed: bool
    reason: str = ""


def judge(rule: Rule, evaluation: Evaluation) -> Outcome:
    """Says whether the candidate keeps a rule."""
    own = evaluation.values(CANDIDATE, rule.slice, rule.metric)
    outcome = Outcome(
        rule=str(rule),
        metric=rule.metric,
        slice=rule.slice,
        against=rule.against,
        value=math.nan if own is None else float(own[0]),
        bound=None if rule.against else rule.bound(),
        interval=None,
        passed=False,
    )
    if own is None or math.isnan(outcome.value):
        return dataclasses.replace(outcome, reason="it has no such number")
    if rule.against is None:
        return _compared(outcome, rule, own, rule.bound(), evaluation)
    other = evaluation.values(rule.against, rule.slice, rule.metric)
    if other is None or math.isnan(other[0]):
        reason = f"no {rule.against} to compare with"
        # The first model has no other before it; an n-gram model can always be had.
        passed = rule.against == LAST_BLESSED
        return dataclasses.replace(outcome, passed=passed, reason=reason)
    # Differences of the same resamples, moved to where the value is.
    paired = np.concatenate([own[:1], other[0] + (own - other)[1:]])
    return _compared(outcome, rule, paired, rule.bound(float(other[0])), evaluation)


def _compared(
    outcome: Outcome,
    rule: Rule,
    values: np.ndarray,
    bound: float,
    evaluation: Evaluation,
) -> Outcome:
    documents = evaluation.documents_in(rule.slice)
    between = interval_of(values, documents)
    outcome = dataclasses.replace(outcome, bound=bound, interval=between)
    if rule.significant and between is None:
        reason = f"{documents} documents give no interval"
        return dataclasses.replace(outcome, reason=reason)
    tested = outcome.value
    if rule.significant and between is not None:
        tested = between[1] if rule.is_upper else between[0]
    strict = rule.significant and rule.against is not None
    beyond = bound - tested if rule.is_upper else tested - bound
    passed = beyond > 0 if strict else beyond >= 0
    reason = "above the bound" if rule.is_upper else "below the bound"
    if rule.significant and (rule.is_upper == (outcome.value <= bound)):
        reason = "not significantly"
    return dataclasses.replace(
        outcome, passed=bool(passed), reason="" if passed else reason
    )


def conditions(evaluation: Evaluation) -> list[Outcome]:
    """What no candidate is blessed without, whatever the rules are."""

    def condition(
        rule: str, metric: str, value: float, bound: float | None, reason: str
    ) -> Outcome:
        return Outcome(
            rule, metric, OVERALL, None, value, bound, None, not reason, reason
        )

    missing = evaluation.missing_signatures
    documents = evaluation.documents
    overall = evaluation.sums.get(CANDIDATE, {}).get(OVERALL)
    nats = math.nan if overall is None else float(overall["nll"][0])
    return [
        condition(
            "all signatures",
            "missing_signatures",
            float(len(missing)),
            0.0,
            f"it lacks {', '.join(missing)}" if missing else "",
        ),
        condition(
            "documents >= 1",
            "documents",
            float(documents),
            1.0,
            "" if documents else "it was evaluated on none",
        ),
        condition(
            "finite scores",
            "nll",
            nats,
            None,
            "" if math.isfinite(nats) else f"they add up to {nats}",
        ),
    ]


@dataclasses.dataclass(frozen=True)
class Decision:
    """Outcome of the gate.

    Attributes:
        blessed: Whether the candidate may be pushed.
        outcomes: What became of each rule, the conditions of `conditions` first.
        metrics: The candidate's metrics and sums on all documents, by name; none where
            it could not be evaluated.
        baseline: The last blessed model's bits per byte, if there was one.
        compared_with: Which model that was.
    """

    blessed: bool
    outcomes: list[Outcome]
    metrics: dict[str, float]
    baseline: float | None = None
    compared_with: Baseline | None = None

    @property
    def bits_per_byte(self) -> float:
        """The candidate's bits per byte."""
        return self.metrics.get(GATED_METRIC, math.nan)

    @property
    def max_bits_per_byte(self) -> float | None:
        """The absolute bound on them."""
        return _bound(self._standard(None))

    @property
    def spelled_share(self) -> float:
        """Share of those bits that spell what the candidate's vocabulary lacks."""
        spelled = self.metrics.get("spelling_nll", 0.0)
        return spelled / (self.metrics["nll"] + spelled) if spelled else 0.0

    @property
    def further(self) -> list[Outcome]:
        """Outcomes that the line of `str` says nothing of, where they are kept."""
        told = (self._standard(None), self._standard(LAST_BLESSED))
        return [
            outcome
            for outcome in self.outcomes
            if outcome not in told
            and not (outcome.passed and outcome.metric in _CONDITIONS)
        ]

    def _standard(self, against: str | None) -> Outcome | None:
        gated = (
            o for o in self.outcomes if (o.metric, o.slice) == (GATED_METRIC, OVERALL)
        )
        return next((o for o in gated if o.against == against), None)

    def __str__(self) -> str:
        verdict = "blessed" if self.blessed else "refused"
        parts = []
        if self.metrics:
            spelled = self.spelled_share
            unknown = f" ({spelled:.1%} of them spell the unknown)" if spelled else ""
            parts.append(f"{self.bits_per_byte:.3f} bits per byte{unknown}")
        bound = self.max_bits_per_byte
        if self.metrics and bound is not None:
            parts.append(f"bound {bound:.3f}")
        last = _bound(self._standard(LAST_BLESSED))
        if self.baseline is not None and last is not None:
            margin = self.baseline - last
            rolled_back = self.compared_with and self.compared_with.version
            name = f"{self.compared_with}," if rolled_back else "last blessed"
            parts.append(f"{name} {self.baseline:.3f} (margin {margin:.3f})")
        line = f"{verdict}: {', '.join(parts)}"
        broken = [f"{o.rule}: {o.reason}" for o in self.further if not o.passed]
        return "; ".join([line, *broken]) if parts else f"{line}{'; '.join(broken)}"

    def write(self, folder: str) -> None:
        """Writes `gate.json`."""
        rules = [dataclasses.asdict(outcome) for outcome in self.outcomes]
        with_ = self.compared_with
        content = {
            "blessed": self.blessed,
            "judged": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "baseline": with_.model_dump() if with_ else None,
            "rules": rules,
        }
        write_json(os.path.join(folder, GATE_FILE), content)


def decide(
    rules: Sequence[Rule],
    evaluation: Evaluation,
    *,
    compared_with: Baseline | None = None,
    taken_back: int | None = None,
) -> Decision:
    """Judges the candidate by all rules, and by what none is blessed without.

    Args:
        rules: The rules.
        evaluation: What was measured.
        compared_with: Which model is the last blessed one there.
        taken_back: The version that the candidate is, where a rollback went back to one
            before it.
    """
    found = conditions(evaluation)
    if taken_back is not None:
        found.append(_taken_back(taken_back))
    outcomes = [*found, *(judge(rule, evaluation) for rule in rules)]
    return Decision(
        all(outcome.passed for outcome in outcomes),
        outcomes,
        *_numbers(evaluation.to_json()),
        compared_with,
    )


def _taken_back(version: int) -> Outcome:
    reason = (
        f"a rollback took it back as version {version}: `langzoo rollback --to "
        f"{version}` brings it again"
    )
    rule = "not taken back"
    return Outcome(rule, "taken_back", OVERALL, None, 1.0, 0.0, None, False, reason)


def read_decision(evaluation_uri: str, blessing_uri: str) -> Decision:
    """Reads the outcome from the Evaluator's artifacts."""
    evaluation = _read(os.path.join(evaluation_uri, EVALUATION_FILE))
    content = _read(os.path.join(blessing_uri, GATE_FILE))
    outcomes = [
        Outcome(**{**outcome, "interval": _pair(outcome["interval"])})
        for outcome in content["rules"]
    ]
    baseline = content.get("baseline")
    return Decision(
        content["blessed"],
        outcomes,
        *_numbers(evaluation),
        Baseline(**baseline) if baseline else None,
    )


def _numbers(evaluation: dict[str, Any]) -> tuple[dict[str, float], float | None]:
    """The candidate's metrics and sums, and the last blessed model's bits per byte."""
    models = evaluation["models"]
    own = models.get(CANDIDATE, {}).get("slices", {}).get(OVERALL)
    numbers: dict[str, float] = {}
    if own:
        metrics = {name: value["value"] for name, value in own["metrics"].items()}
        numbers = {**own["sums"], **metrics}
    last = models.get(LAST_BLESSED, {}).get("slices", {}).get(OVERALL)
    return numbers, last and last["metrics"][GATED_METRIC]["value"]


def _bound(outcome: Outcome | None) -> float | None:
    return outcome.bound if outcome else None


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values else None


def _read(path: str) -> dict[str, Any]:
    with fileio.open(path, "r") as file:
        return _numbered(json.loads(file.read()))


def _numbered(content: Any) -> Any:
    """Turns what `write_json` wrote for no number back into it."""
    if isinstance(content, dict):
        return {key: _numbered(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_numbered(value) for value in content]
    return _SPELLED.get(content, content) if isinstance(content, str) else content
