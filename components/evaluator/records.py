"""What an Evaluator has found and decided, as it lies in its artifacts.

`evaluation.json` is in the artifact `evaluation`, `gate.json` in `blessing`; one type
writes and reads each. Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final, Literal

from ...models.tasks import CAUSAL_LM, TASKS
from ...models.tasks.task import Task
from ..records import FileRecord, Record

CANDIDATE: Final = "candidate"
LAST_BLESSED: Final = "last_blessed"
NGRAM: Final = "ngram"
OVERALL = "overall"
# Lies in a `blessing` that blesses, as of TFX's Evaluator; its Pusher looks for it.
BLESSED_FILE = "BLESSED"


class Measure(Record):
    """A value with its confidence interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


class Slice(Record):
    """The measures of some documents."""

    documents: int
    """How many they are."""
    sums: dict[str, float] = {}
    """What the measures are made of, summed over the documents, by name."""
    metrics: dict[str, Measure] = {}
    """The measures by name."""
    adapted: dict[str, Measure] = {}
    """Those of the model as it adapts to each document, by name, where asked for."""
    calibration: list[tuple[float, float, float]] = []
    """By bin of the likeliest token's probability: tokens, the sum of that probability,
    tokens where it was the right one."""


class LabelMeasures(Record):
    """How a classifier does with the documents of a label, a tagger with the words of a
    tag, or with the spans of a type."""

    label: str
    documents: int
    """How many have it, or are of it."""
    said: int
    """How many are said to have it."""
    right: int
    """How many are, and do."""

    @property
    def precision(self) -> float:
        """The share of those said to have it that do."""
        return self.right / self.said if self.said else math.nan

    @property
    def recall(self) -> float:
        """The share of those that have it that are said to."""
        return self.right / self.documents if self.documents else math.nan

    @property
    def f1(self) -> float:
        """Their harmonic mean."""
        both = self.documents + self.said
        return 2 * self.right / both if both else math.nan


class Evaluated(Record):
    """The measures of a model by slice, `overall` among them."""

    slices: dict[str, Slice] = {}
    labels: list[LabelMeasures] = []
    """Of a classifier: of all documents, by label; of a tagger: of words, by tag."""
    confusion: list[list[int]] = []
    """By label that they have: how many are said to have each."""
    spans: list[LabelMeasures] = []
    """Of a tagger: of all spans, by type."""

    @property
    def overall(self) -> dict[str, Measure]:
        """The measures of all documents."""
        return self.slices[OVERALL].metrics if OVERALL in self.slices else {}


class Definition(Record):
    """What a metric is."""

    name: str
    """Its name in words."""
    unit: str = ""
    definition: str = ""
    source: str = ""
    """Where the definition is from."""
    better: Literal["lower", "higher", ""] = ""


class Sample(Record):
    """A text that a model has written."""

    prompt: str = ""
    """What it goes on from, or is written to."""
    text: str
    reference: str = ""
    """What it should be, where that is known."""


class Evaluation(FileRecord):
    """All measures of a candidate and of what it was compared with."""

    FILE: ClassVar[str] = "evaluation.json"

    task: str = CAUSAL_LM.name
    """What the candidate has learned to do, a key of `TASKS`."""
    documents: int
    """How many were evaluated."""
    split: str = "eval"
    """The split that they are of."""
    selected_on: Slice | None = None
    """The candidate's measures of the split `eval`, which search and training have
    selected it on, where it was evaluated on another."""
    definitions: dict[str, Definition] = {}
    """What the metrics are, by name."""
    models: dict[str, Evaluated] = {}
    """The measures of `candidate` and, where there were such, `last_blessed` and
    `ngram`."""
    probes: dict[str, float] = {}
    """Measures of robustness, bias and memorization."""
    details: dict[str, Any] = {}
    """What the probes found besides, by probe."""
    adapt: dict[str, dict[str, Any]] = {}
    """How it adapted for the measures of that, by `cache` and `dynamic`."""
    samples: list[Sample] = []
    """Texts that the candidate has written."""
    seconds: dict[str, float] = {}
    """What the evaluation took, by part."""

    @property
    def gated(self) -> Task:
        """The task, which says by which metric its models are gated."""
        return TASKS[self.task]

    @property
    def candidate(self) -> dict[str, Measure]:
        """The candidate's measures of all documents."""
        return self.of(CANDIDATE)

    @property
    def adapted(self) -> dict[str, Measure]:
        """The candidate's measures of all documents as it adapts to each."""
        slices = self.models[CANDIDATE].slices if CANDIDATE in self.models else {}
        return slices[OVERALL].adapted if OVERALL in slices else {}

    @property
    def labels(self) -> list[LabelMeasures]:
        """How the candidate does with the documents of each label, if it says such."""
        return self.models[CANDIDATE].labels if CANDIDATE in self.models else []

    @property
    def spans(self) -> list[LabelMeasures]:
        """How it does with the spans of each type, if it finds such."""
        return self.models[CANDIDATE].spans if CANDIDATE in self.models else []

    def of(self, model: str) -> dict[str, Measure]:
        """A model's measures of all documents; none where there is no such model."""
        return self.models[model].overall if model in self.models else {}


class Outcome(Record):
    """A rule of the gate, and what became of it."""

    rule: str
    """The rule in words."""
    metric: str = ""
    """What it is about."""
    slice: str = OVERALL
    """Of which documents."""
    against: str | None = None
    """The model that the candidate was compared with, if with one."""
    value: float | None = None
    """The candidate's value."""
    bound: float | None = None
    """The most or the least that keeps the rule."""
    interval: tuple[float, float] | None = None
    """The 95 % confidence interval of the value; against another model, that of the
    difference, moved to where the value is."""
    passed: bool
    """Whether the candidate keeps the rule."""
    reason: str = ""
    """Why it does not, or why nothing was compared."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}" if self.reason else self.rule


class Baseline(Record):
    """The model that stood for the last blessed one."""

    model: str
    """Its folder."""
    version: int | None = None
    """The version that it was served as, where a rollback had made it live, or the
    model that was blessed last is gone."""
    again: int | None = None
    """The earlier version that a rollback had made it again."""

    def __str__(self) -> str:
        if self.version is None:
            return "the model that was blessed last"
        if self.again is None:
            return f"version {self.version}, pushed last"
        return f"version {self.version}, live by a rollback to {self.again}"


class Verdict(FileRecord):
    """The gate's decision, rule by rule."""

    FILE: ClassVar[str] = "gate.json"

    blessed: bool
    """Whether the candidate may be pushed."""
    judged: str = ""
    """When, as ISO 8601 in UTC."""
    baseline: Baseline | None = None
    """What it was compared with as the last blessed model, if there was one."""
    accepted: bool = False
    """Whether it was accepted in the place of that model, on purpose: then rules
    against the last blessed model are told, and decide nothing."""
    rules: list[Outcome] = []
    """What became of each rule, those first that hold whatever is configured."""

    @property
    def broken(self) -> list[Outcome]:
        """The rules that the candidate has not met."""
        return [rule for rule in self.rules if not rule.passed]
