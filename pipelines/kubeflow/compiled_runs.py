"""Reads what runs of a compiled pipeline have left in files.

Kubeflow keeps its own records of them; the artifacts lie under the pipeline's root, a
folder for each run, task and output.
Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from ...components import storage
from ...components.evaluator.records import (
    EVALUATION_FILE,
    GATE_FILE,
    Evaluation,
    Verdict,
)
from ...components.push_folder.push_folder import SOURCE_PATH

RECORD_FILE = "blessed.json"
_REFUSAL_FILE = "INFRA_NOT_BLESSED"


@dataclasses.dataclass(frozen=True)
class CompiledRun:
    """A run that has come to its verdict.

    Attributes:
        run: Its name, which is that of its folder.
        verdict: The gate's.
        evaluation: What was measured, where that is still there.
        refusal: Why the model server refused the model, if it did.
        version: Folder of the version, if the model was pushed.
        model: The model's artifact, if it was pushed.
        copy: Folder of the artifact that is a copy of the version.
        is_last_blessed: Whether it is the model that was blessed last.
    """

    run: str
    verdict: Verdict
    evaluation: Evaluation | None
    refusal: str
    version: str
    model: str
    copy: str
    is_last_blessed: bool


def read(root: str, name: str) -> list[CompiledRun]:
    """Reads the runs of a pipeline.

    Args:
        root: Folder of the pipeline, which holds its artifacts.
        name: The pipeline's name.

    Returns:
        The oldest first.
    """
    record = storage.read_text(f"{root}/{RECORD_FILE}")
    last = json.loads(record)[-1]["model_uri"] if record else ""
    parent = f"{root}/artifacts/{name}"
    found = [
        one
        for run in storage.names(parent)
        if (one := _read(parent, run, last)) is not None
    ]
    return sorted(found, key=lambda one: one.verdict.judged)


def _read(parent: str, run: str, last_blessed: str) -> CompiledRun | None:
    folder = f"{parent}/{run}"
    verdict = _text(folder, "Evaluator", f"blessing/{GATE_FILE}")
    if not verdict:
        return None
    evaluation = _text(folder, "Evaluator", f"evaluation/{EVALUATION_FILE}")
    pushed_at, source = _found(folder, "Pusher", f"pushed_model/{SOURCE_PATH}")
    pushed = json.loads(source) if source else {}
    return CompiledRun(
        run=run,
        verdict=Verdict.model_validate_json(verdict),
        evaluation=Evaluation.model_validate_json(evaluation) if evaluation else None,
        refusal=_text(folder, "ServingValidator", f"blessing/{_REFUSAL_FILE}"),
        version=pushed.get("version", ""),
        model=pushed.get("model", ""),
        copy=pushed_at.removesuffix(f"/{SOURCE_PATH}"),
        is_last_blessed=last_blessed.startswith(f"{folder}/"),
    )


def _text(folder: str, task: str, path: str) -> str:
    return _found(folder, task, path)[1]


def _found(folder: str, task: str, path: str) -> tuple[str, str]:
    """A file of a task's artifacts and its text; "" and "" where there is none."""
    for place in _places(f"{folder}/{task}"):
        text = storage.read_text(f"{place}/{path}")
        if text:
            return f"{place}/{path}", text
    return "", ""


def _places(task: str) -> Iterator[str]:
    """Where a task's outputs may lie: newer backends give each execution a folder."""
    yield task
    for name in storage.names(task):
        yield f"{task}/{name}"
