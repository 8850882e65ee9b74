"""What the gate has decided, and on which numbers, in a line.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import dataclasses
import math

from ....models.tasks.task import Task
from ..records import (
    CANDIDATE,
    LAST_BLESSED,
    OVERALL,
    Evaluation,
    Outcome,
    Verdict,
)

MISSING_SIGNATURES, DOCUMENTS, NLL = "missing_signatures", "documents", "nll"
"""What those rules are about without which no candidate is blessed."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """What the gate has decided.

    Attributes:
        evaluation: What was measured.
        verdict: What has come of it, rule by rule.
    """

    evaluation: Evaluation
    verdict: Verdict

    @classmethod
    def read(cls, evaluation: str, blessing: str) -> Decision:
        """Reads the Evaluator's artifacts, given their folders."""
        return cls(Evaluation.read(evaluation), Verdict.read(blessing))

    @property
    def blessed(self) -> bool:
        """Whether the candidate may be pushed."""
        return self.verdict.blessed

    @property
    def task(self) -> Task:
        """What the candidate has learned to do."""
        return self.evaluation.gated

    @property
    def value(self) -> float:
        """The candidate's bits per byte, or what else it is gated on."""
        measure = self.evaluation.candidate.get(self.task.metric)
        return measure.value if measure else math.nan

    @property
    def bound(self) -> float | None:
        """The absolute bound on that."""
        return _bound(self._standard(None))

    @property
    def baseline(self) -> float | None:
        """The same of the last blessed model, if there was one."""
        measure = self.evaluation.of(LAST_BLESSED).get(self.task.metric)
        return measure.value if measure else None

    @property
    def not_compared(self) -> bool:
        """Whether it is refused as it was not compared with the last blessed model."""
        return any(
            not outcome.passed
            and outcome.against == LAST_BLESSED
            and outcome.bound is None
            for outcome in self.verdict.rules
        )

    @property
    def spelled_share(self) -> float:
        """Share of the bits that spell what the candidate's vocabulary lacks."""
        sums = self.evaluation.models[CANDIDATE].slices[OVERALL].sums
        spelled = sums.get("spelling_nll", 0.0)
        return spelled / (sums["nll"] + spelled) if spelled else 0.0

    @property
    def further(self) -> list[Outcome]:
        """Outcomes that the line of `str` says nothing of, where they are kept."""
        told = (self._standard(None), self._standard(LAST_BLESSED))
        conditions = (MISSING_SIGNATURES, DOCUMENTS, NLL)
        return [
            outcome
            for outcome in self.verdict.rules
            if outcome not in told
            and not (outcome.passed and outcome.metric in conditions)
        ]

    def _standard(self, against: str | None) -> Outcome | None:
        about = (self.task.metric, OVERALL, against)
        return next(
            (o for o in self.verdict.rules if (o.metric, o.slice, o.against) == about),
            None,
        )

    @property
    def _where(self) -> str:
        """Which split the value is of, where that is not the one of selection."""
        selected_on = self.evaluation.selected_on
        if selected_on is None:
            return ""
        value = selected_on.metrics[self.task.metric].value
        return f" of {self.evaluation.split} ({value:.3f} of eval, selected on)"

    def __str__(self) -> str:
        verdict = "blessed" if self.blessed else "refused"
        parts = []
        measured = bool(self.evaluation.candidate)
        if measured:
            spelled = self.spelled_share
            unknown = f" ({spelled:.1%} of them spell the unknown)" if spelled else ""
            parts.append(f"{self.value:.3f} {self.task.words}{unknown}{self._where}")
        if measured and self.bound is not None:
            parts.append(f"bound {self.bound:.3f}")
        standard = self._standard(LAST_BLESSED)
        last = _bound(standard)
        if self.baseline is not None and last is not None:
            margin = self.baseline - last
            model = self.verdict.baseline
            name = f"{model}," if model and model.version else "last blessed"
            parts.append(f"{name} {self.baseline:.3f} (margin {margin:.3f})")
        elif measured and standard and not standard.passed:
            parts.append(standard.reason)
        if self.verdict.accepted:
            parts.append("accepted in the place of the last blessed model")
        line = f"{verdict}: {', '.join(parts)}"
        broken = [f"{o.rule}: {o.reason}" for o in self.further if not o.passed]
        return "; ".join([line, *broken]) if parts else f"{line}{'; '.join(broken)}"


def _bound(outcome: Outcome | None) -> float | None:
    return outcome.bound if outcome else None
