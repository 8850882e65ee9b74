"""Reads what runs of a compiled pipeline have left in files.

Kubeflow keeps its own records of them; the artifacts lie under the pipeline's root, a
folder for each run, task and output.
Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TypeVar

from ...components import storage
from ...components.evaluator.gate import last_blessed
from ...components.evaluator.records import Evaluation, Verdict
from ...components.push_folder.records import PushedSource
from ...components.records import FileRecord
from ...components.serving_validator.records import read_refusal

_Record = TypeVar("_Record", bound=FileRecord)


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
    blessed = last_blessed.entries(f"{root}/{last_blessed.FILE}")
    last = blessed[-1].model_uri if blessed else ""
    parent = f"{root}/artifacts/{name}"
    found = [
        one
        for run in storage.names(parent)
        if (one := _read(parent, run, last)) is not None
    ]
    return sorted(found, key=lambda one: one.verdict.judged)


def _read(parent: str, run: str, last: str) -> CompiledRun | None:
    folder = f"{parent}/{run}"
    verdict, _ = _found(Verdict, f"{folder}/Evaluator", "blessing")
    if verdict is None:
        return None
    evaluation, _ = _found(Evaluation, f"{folder}/Evaluator", "evaluation")
    pushed, copy = _found(PushedSource, f"{folder}/Pusher", "pushed_model")
    refusals = (
        read_refusal(f"{place}/blessing")
        for place in _places(f"{folder}/ServingValidator")
    )
    return CompiledRun(
        run=run,
        verdict=verdict,
        evaluation=evaluation,
        refusal=next(filter(None, refusals), ""),
        version=pushed.version if pushed else "",
        model=pushed.model if pushed else "",
        copy=copy,
        is_last_blessed=last.startswith(f"{folder}/"),
    )


def _found(record: type[_Record], task: str, output: str) -> tuple[_Record | None, str]:
    """A record in an output of a task, and its folder; "" where there is none."""
    for place in _places(task):
        folder = f"{place}/{output}"
        found = record.find(folder)
        if found is not None:
            return found, folder
    return None, ""


def _places(task: str) -> Iterator[str]:
    """Where a task's outputs may lie: newer backends give each execution a folder."""
    yield task
    for name in storage.names(task):
        yield f"{task}/{name}"
