"""What an evaluation found, and the file `evaluation.json` that tells it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from typing import Any

import numpy as np
from tfx.dsl.io import fileio

from .gate.rules import DEFINITIONS
from .measures.sums import CORPUS_METRICS, MIN_DOCUMENTS, NAMES, CorpusSums, interval
from .records import CANDIDATE, EVALUATION_FILE, OVERALL


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is known of the candidate, and of the models that it is compared with.

    Attributes:
        sums: Corpus sums by model and slice; the models are `candidate` and, where
            there are such, `last_blessed` and `ngram`.
        exported: By model, what is measured of the export, such as `latency_ms`.
        probes: What the probes found of the candidate, by name.
        details: What those numbers are made of, by probe.
        samples: What the candidate writes, each `prompt` and `text`.
        missing_signatures: Signatures that the candidate should have, and has not.
        seconds: How long each part took.
    """

    sums: dict[str, dict[str, CorpusSums]] = dataclasses.field(default_factory=dict)
    exported: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    probes: dict[str, float] = dataclasses.field(default_factory=dict)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    samples: list[dict[str, str]] = dataclasses.field(default_factory=list)
    missing_signatures: list[str] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def documents(self) -> int:
        """How many documents the candidate was evaluated on."""
        return self.documents_in(OVERALL)

    def documents_in(self, slice_name: str) -> int:
        """Likewise in a slice."""
        sums = self.sums.get(CANDIDATE, {}).get(slice_name)
        return sums.documents if sums else 0

    def values(self, model: str, slice_name: str, metric: str) -> np.ndarray | None:
        """A metric, `[1]`, or with its resamples `[1 + RESAMPLES]`; None if unknown."""
        if metric in CORPUS_METRICS:
            sums = self.sums.get(model, {}).get(slice_name)
            compute = CORPUS_METRICS[metric].compute
            return None if sums is None or compute is None else compute(sums)
        known = {**self.exported.get(model, {})}
        if model == CANDIDATE:
            known.update(self.probes)
        return np.array([known[metric]]) if metric in known else None

    def write(self, folder: str) -> None:
        """Writes `evaluation.json`, whose form is that of `to_json`."""
        write_json(os.path.join(folder, EVALUATION_FILE), self.to_json())

    def to_json(self) -> dict[str, Any]:
        """All numbers, by model and slice, with their definitions."""
        return {
            "documents": self.documents,
            "definitions": DEFINITIONS,
            "models": {
                model: {
                    "slices": {
                        name: self._of_slice(model, name) for name in sorted(by_slice)
                    }
                }
                for model, by_slice in self.sums.items()
            },
            "probes": self.probes,
            "details": self.details,
            "samples": self.samples,
            "seconds": self.seconds,
        }

    def _of_slice(self, model: str, name: str) -> dict[str, Any]:
        sums = self.sums[model][name]
        metrics = {
            metric: with_interval(self.values(model, name, metric), sums.documents)
            for metric in CORPUS_METRICS
        }
        if name == OVERALL:
            for metric, value in self.exported.get(model, {}).items():
                metrics[metric] = with_interval(np.array([value]), sums.documents)
        return {
            "documents": sums.documents,
            "sums": {key: float(sums[key][0]) for key in NAMES},
            "metrics": metrics,
            "calibration": sums.calibration[0].tolist(),
        }


def with_interval(values: np.ndarray | None, documents: int) -> dict[str, Any]:
    """A value with its 95 % confidence interval, where enough documents give one."""
    assert values is not None
    between = interval_of(values, documents) or (None, None)
    return {"value": float(values[0]), "low": between[0], "high": between[1]}


def interval_of(values: np.ndarray, documents: int) -> tuple[float, float] | None:
    """The 95 % confidence interval of a value; None where there is none."""
    if values.size == 1 or documents < MIN_DOCUMENTS:
        return None
    return interval(values)


def write_json(path: str, content: Any) -> None:
    """Writes JSON; what is no number, or infinite, becomes a string."""
    with fileio.open(path, "w") as file:
        file.write(json.dumps(_plain(content), indent=1, allow_nan=False))


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return (
            "NaN" if math.isnan(content) else "Infinity" if content > 0 else "-Infinity"
        )
    return content
