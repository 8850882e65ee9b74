"""What the gate asks of a model; the section `gate` of a configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field

from ...models import references
from ...models.settings import Section
from ...models.tasks import CAUSAL_LM, TASKS
from ...models.tasks.adaptation.settings import (
    AdaptSettings,
    DynamicEvaluation,
    NeuralCache,
)
from . import probes
from .measures import adapted
from .measures.metric import Metric, own
from .measures.slices import LENGTH, feature_of, require_feature, require_slice
from .measures.tables import (
    ADAPTED_MEASURES,
    EXPORT_MEASURES,
    MEASURES,
    WRITTEN_MEASURES,
    adapted_of,
    measures_of,
    written_of,
)
from .measures.written import GenerationSettings
from .probes.settings import ProbeSettings, check_settings
from .records import LAST_BLESSED, NGRAM, OVERALL

METRICS: dict[str, Metric] = {
    **MEASURES,
    **ADAPTED_MEASURES,
    **WRITTEN_MEASURES,
    **EXPORT_MEASURES,
    **probes.NAMES,
}
"""All metrics of ours that a rule can be about, by name."""


def metrics_of(task: str) -> dict[str, Metric]:
    """Those of models of a task."""
    known = (
        measures_of(task),
        adapted_of(task),
        written_of(task),
        EXPORT_MEASURES,
        probes.names_of(task),
    )
    return {name: metric for metrics in known for name, metric in metrics.items()}


# They need the weights, which other models than the candidate may be without.
_DYNAMIC = [metric.name for metric in adapted.METRICS["dynamic"]]

_Number = Annotated[float, Field(allow_inf_nan=False)]


class RuleSettings(Section):
    """A rule of the gate: a bound on a metric, or a margin against another model."""

    metric: str
    """One of docs/metrics.md, or one of your own by `module:name`: see
    components/evaluator/measures/metric.py."""
    min: _Number | None = None
    """The least that is good enough."""
    max: _Number | None = None
    """The most that is."""
    against: Literal["last_blessed", "ngram"] | None = None
    """In place of `min` and `max`: the model that the candidate must be better than.
    Without a last blessed model there is nothing to keep; an n-gram model is trained
    for it on the same data."""
    margin: _Number = 0.0
    """By how much, in the metric's unit; below 0, how much worse it may be."""
    significant: bool | None = None
    """Whether only what the 95 % confidence interval excludes counts: of a margin, the
    paired interval of the difference must lie beyond it; of a bound, the interval of
    the value must keep it. By default as `gate.significant` where a rule is against a
    model, and not for `min` and `max`."""
    slice: str = OVERALL
    """Of which documents: `FEATURE=VALUE`, such as `source=news` of `corpus.fields`, or
    `length=0-255`, in bytes."""

    @property
    def measure(self) -> Metric:
        """The metric that it is about."""
        is_own = references.is_reference(self.metric)
        return own(self.metric) if is_own else METRICS[self.metric]

    @property
    def is_upper(self) -> bool:
        """Whether the bound is one from above."""
        if self.against is None:
            return self.max is not None
        return self.measure.better == "lower"

    def bound(self, other: float = math.nan) -> float:
        """The bound on the metric, given that of the other model."""
        if self.against is None:
            given = self.max if self.is_upper else self.min
            return math.nan if given is None else given
        return other - self.margin if self.is_upper else other + self.margin

    @property
    def single(self) -> list[RuleSettings]:
        """The same as rules of one bound each: with `min` and `max` it is two."""
        if self.min is None or self.max is None:
            return [self]
        return [self.model_copy(update={key: None}) for key in ("max", "min")]

    def __str__(self) -> str:
        of = "" if self.slice == OVERALL else f" of {self.slice}"
        sign = "<=" if self.is_upper else ">="
        if self.against is None:
            bound = f"{self.bound():g}"
        else:
            change = self.bound(0.0)
            operator = "-" if change < 0 else "+"
            bound = self.against + (f" {operator} {abs(change):g}" if change else "")
        return f"{self.measure.name}{of} {sign} {bound}" + (
            ", significantly" if self.significant else ""
        )

    @pydantic.model_validator(mode="after")
    def _there_is_such_a_metric(self) -> RuleSettings:
        if references.is_reference(self.metric):
            name = own(self.metric).name
            if name in METRICS:
                raise ValueError(
                    f"gate.rules: the metric {self.metric} has the name {name}, which "
                    "is one of ours"
                )
        elif self.metric not in METRICS:
            raise ValueError(
                f"gate.rules: there is no metric {self.metric!r}: it is one of "
                f"{', '.join(METRICS)}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _it_says_one_thing(self) -> RuleSettings:
        named = f"gate.rules, {self.metric}"
        bounded = self.min is not None or self.max is not None
        if bounded == (self.against is not None):
            raise ValueError(
                f"{named}: a rule has min, max or both, or against: {LAST_BLESSED} or "
                f"{NGRAM}"
            )
        if bounded and self.margin:
            raise ValueError(f"{named}: margin goes with against, not with min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"{named}: min {self.min:g} is above max {self.max:g}")
        of_candidate = f"{named}: it is measured of the candidate only: give min, max"
        if self.against and self.metric in _DYNAMIC:
            raise ValueError(of_candidate)
        if self.measure.compute is not None:
            return self
        if self.significant:
            raise ValueError(f"{named}: it has no interval, and cannot be significant")
        if self.slice != OVERALL:
            raise ValueError(f"{named}: it is of the whole model, and has no slices")
        if self.against and self.metric not in EXPORT_MEASURES:
            raise ValueError(of_candidate)
        return self


def _checked(probes: Any) -> Any:
    # What is no mapping is refused by its type.
    return check_settings(probes) if isinstance(probes, Mapping) else probes


_Probes = Annotated[ProbeSettings | None, BeforeValidator(_checked)]


class EvaluatorSettings(Section):
    """What an Evaluator is told: what the gate asks, and what the examples are."""

    rules: list[RuleSettings] = []
    """All rules, those of `gate.max_bits_per_byte` and `gate.min_improvement` too."""
    slices: list[str] = []
    """As `GateSettings`."""
    slice_values: int = 50
    """As `GateSettings`."""
    features: list[str] = []
    """Features of the examples that they can be sliced by."""
    task: str = CAUSAL_LM.name
    """What the candidate has learned to do."""
    probes: _Probes = None
    """As `GateSettings`."""
    adapt: AdaptSettings = AdaptSettings()
    """`GateSettings.adapting`."""
    generate: GenerationSettings | None = None
    """`GateSettings.writing`."""
    templates: str = ""
    """Changes with the probes' template file, of which TFX's cache sees the name."""

    @classmethod
    def parse(cls, text: str) -> EvaluatorSettings:
        """Reads what `dump` made."""
        return cls.model_validate_json(text)

    def dump(self) -> str:
        """The settings as JSON; what a rule does not say is left out."""
        rules = [rule.model_dump(exclude_none=True) for rule in self.rules]
        return json.dumps({**self.model_dump(), "rules": rules}, sort_keys=True)

    @property
    def bounds(self) -> list[RuleSettings]:
        """The rules, each with one bound."""
        return [single for rule in self.rules for single in rule.single]

    @property
    def sliced(self) -> list[str]:
        """The features to slice by: those asked for, and those that rules need."""
        needed = [feature_of(r.slice) for r in self.rules if r.slice != OVERALL]
        return list(dict.fromkeys([*self.slices, *needed]))

    @property
    def own_metrics(self) -> dict[str, str]:
        """The user's metrics that rules are about: `module:name` by name."""
        own_rules = [r for r in self.rules if references.is_reference(r.metric)]
        return {rule.measure.name: rule.metric for rule in own_rules}

    @property
    def probed(self) -> list[str]:
        """Metrics of the probes that are measured."""
        named = {rule.metric for rule in self.rules}
        known = probes.names_of(self.task)
        return [name for name in known if name in named or self.probes is not None]

    @pydantic.model_validator(mode="after")
    def _all_can_be_measured(self) -> EvaluatorSettings:
        require_measurable(self.rules, self.slices, self.features, self.task)
        return self


class GateSettings(Section):
    """Which model is good enough."""

    max_bits_per_byte: Annotated[float, Field(gt=0)] = 3.0
    """A candidate above it is refused, where the task is `causal_lm`."""
    max_cross_entropy: Annotated[float, Field(gt=0)] = 2.0
    """A candidate above it is refused, where the task is `text_classifier`: nats of a
    document's label, or of all its labels together."""
    max_nats_per_masked_token: Annotated[float, Field(gt=0)] = 6.0
    """A candidate above it is refused, where the task is `masked_lm`."""
    max_nats_per_tag: Annotated[float, Field(gt=0)] = 1.0
    """A candidate above it is refused, where the task is `token_classifier`."""
    max_target_bits_per_byte: Annotated[float, Field(gt=0)] = 3.0
    """A candidate above it is refused, where the task is `seq_to_seq_lm`: bits of a
    byte of the target, given its source."""
    min_improvement: _Number = 0.0
    """Bits per byte, or what else its task is measured in, that a candidate must be
    better than the last blessed model; below 0, how much worse it may be."""
    significant: bool = False
    """Whether an improvement counts only where its 95 % confidence interval lies beyond
    the margin; intervals are of a paired jackknife by document."""
    slices: list[str] = [LENGTH]
    """Features by which all metrics are told as well: `length`, in buckets of bytes,
    and those of `corpus.fields`."""
    slice_values: Annotated[int, Field(ge=1, le=10_000)] = 50
    """How many values of such a feature have a slice each, the most frequent ones; the
    rest are one slice, `FEATURE=(others)`. Values that rules name have one, too."""
    rules: list[RuleSettings] = []
    """More that a candidate must keep."""
    adapt: AdaptSettings = AdaptSettings()
    """Figures of the model as it adapts to each document while it scores it, told apart
    from all others; rules about `cache_...` or `dynamic_...` have them measured too."""
    generate: GenerationSettings | None = None
    """How texts are written that are measured beside the references, where the task is
    `seq_to_seq_lm`: BLEU, chrF, ROUGE and others. It is done where it is given (`{}` is
    with all defaults), or a rule is about one of them: each model writes to each source
    of the split."""
    probes: _Probes = None
    """Settings of the probes for robustness, bias and memorization, which then measure
    all that they know (`{}` is with all defaults); without, what rules are about."""

    def rules_of(self, task: str) -> list[RuleSettings]:
        """All rules for models of a task, each with its significance."""
        metric = TASKS[task].metric
        first = RuleSettings(metric=metric, max=getattr(self, f"max_{metric}"))
        second = RuleSettings(
            metric=metric, against=LAST_BLESSED, margin=self.min_improvement
        )
        return [
            rule.model_copy(
                update={"significant": self.significant and rule.against is not None}
            )
            if rule.significant is None
            else rule
            for rule in (first, second, *self.rules)
        ]

    @property
    def needs_ngram(self) -> bool:
        """Whether a rule is against an n-gram model."""
        return any(rule.against == NGRAM for rule in self.rules)

    @property
    def adapting(self) -> AdaptSettings:
        """How models adapt, by all defaults where only a rule asks for it."""
        named = {rule.metric for rule in self.rules}
        defaults = {"cache": NeuralCache(), "dynamic": DynamicEvaluation()}
        asked = {
            how: defaults[how]
            for how, metrics in adapted.METRICS.items()
            if named & {metric.name for metric in metrics}
        }
        given = {how: one for how, one in self.adapt if one is not None}
        return AdaptSettings(**{**asked, **given})

    @property
    def writing(self) -> GenerationSettings | None:
        """How models write, if what they write is measured."""
        named = {rule.metric for rule in self.rules}
        asked = GenerationSettings() if named & WRITTEN_MEASURES.keys() else None
        return self.generate or asked

    def require_measurable(
        self, features: Sequence[str], task: str = CAUSAL_LM.name
    ) -> None:
        """Checks that what is asked for can be had of a task's models and examples.

        Raises:
            ValueError: A line that says what cannot be, and what would be right.
        """
        require_measurable(self.rules, self.slices, features, task)
        bounds = {f"max_{known.metric}": known.name for known in TASKS.values()}
        for key, of in bounds.items():
            is_told = getattr(self, key) != GateSettings.model_fields[key].default
            if is_told and of != task:
                raise ValueError(
                    f"gate.{key} is of task {of}, and the task is {task}: "
                    f"give gate.max_{TASKS[task].metric}"
                )
        for how, one in self.adapting:
            if one is not None and not adapted_of(task):
                raise ValueError(f"gate.adapt.{how} is not for models of task {task}")
        if self.generate and not written_of(task):
            raise ValueError(f"gate.generate is not for models of task {task}")

    def asked(
        self, features: Sequence[str], task: str = CAUSAL_LM.name
    ) -> EvaluatorSettings:
        """What the Evaluator is told, given the examples' features and the task."""
        return EvaluatorSettings(
            rules=self.rules_of(task),
            task=task,
            slices=self.slices,
            slice_values=self.slice_values,
            features=list(features),
            probes=self.probes,
            adapt=self.adapting,
            generate=self.writing,
        )


def require_measurable(
    rules: Iterable[RuleSettings],
    slices: Iterable[str],
    features: Sequence[str],
    task: str,
) -> None:
    """Checks that models and examples have what rules are about and slices are by.

    Raises:
        ValueError: A line that says what they lack, and what they have.
    """
    known = metrics_of(task)
    for feature in slices:
        require_feature(feature, features)
    named: dict[str, str] = {}
    for rule in rules:
        try:
            require_slice(rule.slice, features)
        except ValueError as error:
            raise ValueError(f"gate.rules, {rule.metric}: {error}") from error
        if rule.metric in METRICS and rule.metric not in known:
            raise ValueError(
                f"gate.rules: {rule.metric} is not measured of models of task {task}, "
                f"only {', '.join(known)}"
            )
        name = rule.measure.name
        if named.setdefault(name, rule.metric) != rule.metric:
            raise ValueError(
                f"gate.rules: {named[name]} and {rule.metric} are both called {name}"
            )
