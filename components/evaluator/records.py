"""What an Evaluator has found and decided, as it lies in its artifacts.

`evaluation.json` is in the artifact `evaluation`, `gate.json` in `blessing`. NaN and
infinity are the strings "NaN" and "Infinity" there, which are read as numbers.
Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic

EVALUATION_FILE = "evaluation.json"
GATE_FILE = "gate.json"
CANDIDATE, LAST_BLESSED, NGRAM = "candidate", "last_blessed", "ngram"
OVERALL = "overall"


class Record(pydantic.BaseModel):
    """Part of a JSON file; what a later version has added is left out."""

    model_config = pydantic.ConfigDict(
        extra="ignore",
        frozen=True,
        ser_json_inf_nan="strings",
        protected_namespaces=(),
    )


_Record = TypeVar("_Record", bound=Record)


class Measure(Record):
    """A value with its confidence interval, where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


class Slice(Record):
    """The measures of some documents.

    Attributes:
        documents: How many they are.
        metrics: The measures by name.
        calibration: By bin of the likeliest token's probability: tokens, the sum of
            that probability, tokens where it was the right one.
    """

    documents: int
    metrics: dict[str, Measure] = {}
    calibration: list[tuple[float, float, float]] = []


class Evaluated(Record):
    """The measures of a model by slice, `overall` among them."""

    slices: dict[str, Slice] = {}

    @property
    def overall(self) -> dict[str, Measure]:
        """The measures of all documents."""
        return self.slices[OVERALL].metrics if OVERALL in self.slices else {}


class Definition(Record):
    """What a metric is."""

    name: str
    unit: str = ""
    definition: str = ""
    better: Literal["lower", "higher", ""] = ""


class Sample(Record):
    """A text that a model has written."""

    text: str
    prompt: str = ""
    step: int | None = None


class Evaluation(Record):
    """All measures of a candidate and of what it was compared with.

    Attributes:
        documents: How many were evaluated.
        definitions: What the metrics are, by name.
        models: The measures of `candidate` and, where there were such, `last_blessed`
            and `ngram`.
        probes: Measures of robustness, bias and memorization.
        details: What the probes found besides, by probe.
        samples: Texts that the candidate has written.
        seconds: What the evaluation took, by part.
    """

    documents: int
    definitions: dict[str, Definition] = {}
    models: dict[str, Evaluated] = {}
    probes: dict[str, float] = {}
    details: dict[str, Any] = {}
    samples: list[Sample] = []
    seconds: dict[str, float] = {}

    @property
    def candidate(self) -> dict[str, Measure]:
        """The candidate's measures of all documents."""
        return self.models[CANDIDATE].overall if CANDIDATE in self.models else {}


class Rule(Record):
    """A rule of the gate and its outcome.

    Attributes:
        rule: The rule in words.
        metric: What it is about.
        slice: Of which documents.
        against: The model that the candidate was compared with, if with one.
        value: The candidate's value.
        bound: What it was held against.
        interval: The 95 % confidence interval of the value; against another model, that
            of the difference, moved to where the value is.
        passed: Whether the candidate met the rule.
        reason: Why, in words.
    """

    rule: str
    metric: str = ""
    slice: str = OVERALL
    against: str | None = None
    value: float | None = None
    bound: float | None = None
    interval: tuple[float, float] | None = None
    passed: bool
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}" if self.reason else self.rule


class Baseline(Record):
    """The model that stood for the last blessed one.

    Attributes:
        model: Its folder.
        version: The version that it was served as, where a rollback had made it live.
        again: The earlier version that it was again then.
    """

    model: str
    version: int | None = None
    again: int | None = None

    def __str__(self) -> str:
        if self.version is None:
            return "the model that was blessed last"
        return f"version {self.version}, live by a rollback to {self.again}"


class Verdict(Record):
    """The gate's decision, rule by rule.

    Attributes:
        blessed: Whether the candidate may be pushed.
        rules: What became of each rule.
        baseline: What it was compared with as the last blessed model, if there was one.
        judged: When, as ISO 8601 in UTC.
    """

    blessed: bool
    rules: list[Rule] = []
    baseline: Baseline | None = None
    judged: str = ""

    @property
    def broken(self) -> list[Rule]:
        """The rules that the candidate has not met."""
        return [rule for rule in self.rules if not rule.passed]


def read_evaluation(artifact: str) -> Evaluation | None:
    """Reads an `evaluation` artifact; `None` where an older version wrote it."""
    return _read(Evaluation, artifact, EVALUATION_FILE)


def read_verdict(artifact: str) -> Verdict | None:
    """Reads a `blessing` artifact; `None` where an older version wrote it."""
    return _read(Verdict, artifact, GATE_FILE)


def _read(record: type[_Record], artifact: str, name: str) -> _Record | None:
    file = Path(artifact, name)
    return record.model_validate_json(file.read_bytes()) if file.exists() else None
