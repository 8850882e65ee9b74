"""What an evaluation has measured, by document; a record is made of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...models.tasks import CAUSAL_LM
from ...models.tasks.adaptation.settings import AdaptSettings
from ...models.tasks.tagging import span_types
from .measures.metric import Metric
from .measures.sums import NAMES, CorpusSums, interval
from .measures.tables import adapted_of, measures_of, written_of
from .records import (
    CANDIDATE,
    OVERALL,
    Evaluated,
    Evaluation,
    LabelMeasures,
    Measure,
    Sample,
    Slice,
)
from .settings import metrics_of


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is known of the candidate, and of the models that it is compared with.

    Attributes:
        task: What the candidate has learned to do.
        sums: Corpus sums by model and slice; the models are `candidate` and, where
            there are such, `last_blessed` and `ngram`.
        split: The split that they are of.
        selected_on: The candidate's sums over the documents that it was selected on,
            where they are others.
        exported: By model, what is measured of the export, such as `latency_ms`.
        probes: What the probes found of the candidate, by name.
        details: What those numbers are made of, by probe.
        samples: What the candidate writes.
        left_out: Why models were not measured, by name.
        missing_signatures: Signatures that the candidate should have, and has not.
        seconds: How long each part took.
        labels: Those that each model knows, if it is a classifier or tagger.
        own: The user's metrics by name, beside those of all tasks.
        adapt: How the models adapted besides.
    """

    task: str = CAUSAL_LM.name
    sums: dict[str, dict[str, CorpusSums]] = dataclasses.field(default_factory=dict)
    split: str = "eval"
    selected_on: CorpusSums | None = None
    exported: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    probes: dict[str, float] = dataclasses.field(default_factory=dict)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    samples: list[Sample] = dataclasses.field(default_factory=list)
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    missing_signatures: list[str] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
    own: Mapping[str, Metric] = dataclasses.field(default_factory=dict)
    adapt: AdaptSettings = dataclasses.field(default_factory=AdaptSettings)

    @property
    def documents(self) -> int:
        """How many documents the candidate was evaluated on."""
        return self.documents_in(OVERALL)

    def knows_of(self, model: str) -> bool:
        """Whether there is such a model, be it that it was left out."""
        return model in self.sums or model in self.left_out

    def documents_in(self, slice_name: str) -> int:
        """Likewise in a slice."""
        sums = self.sums.get(CANDIDATE, {}).get(slice_name)
        return sums.documents if sums else 0

    def values(self, model: str, slice_name: str, metric: str) -> np.ndarray | None:
        """A metric, `[1]`, or `[1 + N]` as `Metric.values`; None if unknown."""
        others = {**adapted_of(self.task), **written_of(self.task)}
        of_sums = {**self._of_sums, **others}.get(metric)
        if of_sums is not None:
            sums = self.sums.get(model, {}).get(slice_name)
            return None if sums is None else of_sums.values(sums)
        known = {**self.exported.get(model, {})}
        if model == CANDIDATE:
            known.update(self.probes)
        return np.array([known[metric]]) if metric in known else None

    @property
    def record(self) -> Evaluation:
        """All numbers, by model and slice, with their definitions."""
        return Evaluation(
            task=self.task,
            documents=self.documents,
            split=self.split,
            selected_on=self._measured(self.selected_on) if self.selected_on else None,
            definitions={
                name: metric.defined
                for name, metric in {**metrics_of(self.task), **self.own}.items()
            },
            models={
                model: Evaluated(
                    slices={
                        name: self._of_slice(model, name) for name in sorted(by_slice)
                    },
                    **self._by_label(model),
                )
                for model, by_slice in self.sums.items()
            },
            probes=self.probes,
            details=self.details,
            adapt=self.adapt.model_dump(exclude_none=True),
            samples=self.samples,
            seconds=self.seconds,
        )

    @property
    def _of_sums(self) -> dict[str, Metric]:
        return {**measures_of(self.task), **self.own}

    def _of_slice(self, model: str, name: str) -> Slice:
        found = self._measured(self.sums[model][name])
        exported = self.exported.get(model, {}) if name == OVERALL else {}
        others = {metric: Measure(value=value) for metric, value in exported.items()}
        return found.model_copy(update={"metrics": {**found.metrics, **others}})

    def _by_label(self, model: str) -> dict[str, Any]:
        """What is told of a classifier's labels, or a tagger's."""
        if model not in self.labels or OVERALL not in self.sums[model]:
            return {}
        sums, labels = self.sums[model][OVERALL], self.labels[model]
        by_label = sums.by_label[0].round().astype(int)
        found = {
            "labels": _counted(labels, by_label),
            "confusion": by_label[:, 3:].tolist(),
        }
        if not math.isnan(sums["spans"][0]):
            types = span_types(labels)
            by_type = sums.by_span[0, : len(types)].round().astype(int)
            found["spans"] = _counted(types, by_type)
        return found

    def _measured(self, sums: CorpusSums) -> Slice:
        metrics = {
            metric.name: _with_interval(metric.values(sums))
            for metric in self._of_sums.values()
        }
        adapted = {
            metric.name: _with_interval(values)
            for metric in adapted_of(self.task).values()
            if not math.isnan((values := metric.values(sums))[0])
        }
        if not math.isnan(sums["written"][0]):
            for metric in written_of(self.task).values():
                metrics[metric.name] = _with_interval(metric.values(sums))
        found = {key: float(sums[key][0]) for key in NAMES}
        return Slice(
            documents=sums.documents,
            sums={key: value for key, value in found.items() if not math.isnan(value)},
            metrics=metrics,
            adapted=adapted,
            calibration=sums.calibration[0].tolist(),
        )


def _counted(labels: list[str], counts: np.ndarray) -> list[LabelMeasures]:
    """Of each label how many have it, are said to, and both, `[C, 3]` or more."""
    return [
        LabelMeasures(label=label, documents=has, said=said, right=right)
        for label, (has, said, right) in zip(
            labels, counts[:, :3].tolist(), strict=True
        )
    ]


def _with_interval(values: np.ndarray) -> Measure:
    """A value with its 95 % confidence interval, where there is one."""
    low, high = interval(values) or (None, None)
    return Measure(value=float(values[0]), low=low, high=high)
