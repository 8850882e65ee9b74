"""Which versions of a model there are: what is live, blessed, refused and why.

Importing this module imports neither TensorFlow nor TFX, unless the push folder or the
root is an object store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..components.errors import InputError
from ..components.evaluator.records import Evaluation, Verdict
from ..components.push_folder.push_folder import Kept, PushFolder, Rollback
from .configuration.config import Config
from .kubeflow import compiled_runs
from .report.data import RunReport
from .report.reading import DATABASE, SERVING_MODEL, Runs

_TO_BEAT = "the next candidate is compared with it"
_TAKEN_BACK = "taken back: no run pushes it again"


@dataclasses.dataclass(frozen=True)
class Version:
    """A version, or a model that has become none.

    Attributes:
        version: Its number; 0 where the model was not pushed.
        state: `live`, `earlier`, or `gone`, where its folder is; of what was not pushed
            what came of the run, such as `refused`.
        run: The run that made it; "" where no run is known to, as of a version that was
            pushed from elsewhere.
        value: What it is gated on, as the run's Evaluator measured it.
        reasons: Why it was not pushed, which version it went back to, whether it was
            taken back, or is what the next candidate is compared with.
    """

    version: int
    state: str
    run: str = ""
    value: float | None = None
    reasons: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Made:
    """What a run has made.

    Attributes:
        number: The version; 0 where nothing was pushed.
        run: The run's name.
        outcome: What came of it.
        value: What it is gated on, as measured.
        reasons: Why it was not pushed, or what it was compared with.
        kept: What is kept of it besides the version.
        is_last_blessed: Whether it is the model that the pipeline blessed last.
    """

    number: int
    run: str
    outcome: str
    value: float | None
    reasons: tuple[str, ...]
    kept: Kept
    is_last_blessed: bool


def versions(config: Config) -> list[Version]:
    """Lists what runs have made of a model, and what is in the push folder.

    Args:
        config: Says where the runs and the push folder are.

    Returns:
        The oldest first; of a model that several runs had from the cache, the first.

    Raises:
        InputError: Where there is neither a run nor a version, or an object store
            cannot be read.
    """
    folder = PushFolder(config.push_folder)
    there = folder.numbers
    made = list(_made(config))
    if not made and not there:
        raise InputError(
            f"there is neither a run in {_root(config)} nor a version in {folder.path}:"
            " `langzoo run` makes both; name, root and serving.push_folder of the "
            "configuration say where"
        )
    rollback = folder.live_rollback
    taken_back = rollback.taken_back.values() if rollback else ()
    found: dict[int, Version] = {}
    for one in made:
        told = [_TO_BEAT] if one.is_last_blessed and not rollback else []
        if one.number in taken_back:
            told.append(_TAKEN_BACK)
        version = Version(
            version=one.number,
            state=_state(one.number, there) if one.number else one.outcome,
            run=one.run,
            value=one.value,
            reasons=(*one.reasons, *told),
        )
        # Of models that have become no version, each has a place of its own.
        found.setdefault(one.number or -len(found) - 1, version)
    for number in there:
        if number not in found:
            found[number] = _of_folder(folder, number, there)
    return list(found.values())


def roll_back(config: Config, to: int | None = None) -> Rollback:
    """Makes an earlier version the one that is served.

    Args:
        config: Says where the runs and the push folder are.
        to: The version; by default that which was served before what is.

    Raises:
        InputError: Where there is no such version, or it cannot be pushed.
    """
    kept = {one.number: one.kept for one in _made(config) if one.number}
    return PushFolder(config.push_folder).roll_back(to, kept)


def _of_folder(folder: PushFolder, number: int, there: list[int]) -> Version:
    state = _state(number, there)
    back = folder.origin(number)
    reasons = [] if back == number else [f"went back to {back}"]
    if reasons and state == "live":
        reasons.append(_TO_BEAT)
    return Version(number, state, reasons=tuple(reasons))


def _state(number: int, there: list[int]) -> str:
    if number not in there:
        return "gone"
    return "live" if number == there[-1] else "earlier"


def _made(config: Config) -> Iterator[_Made]:
    """What local runs have made, then what those of the compiled pipeline have."""
    if (config.folder / DATABASE).exists():
        runs = Runs(config.folder)
        reports = [runs.read(run_id) for run_id in runs.ids]
        judged = [report for report in reports if not report.compared]
        last = max((_blessing(report) for report in judged), default=0)
        for report in judged:
            yield _of_report(report, is_last_blessed=0 < last == _blessing(report))
    for run in compiled_runs.read(_root(config), config.name):
        yield _of_compiled(run)


def _root(config: Config) -> str:
    """Folder of the pipeline, which may be in an object store."""
    return config.checkpoint_root.rpartition("/")[0]


def _of_report(report: RunReport, is_last_blessed: bool) -> _Made:
    serving = report.serving
    model, copy = _artifact(report, "model"), _artifact(report, "pushed_model")
    return _Made(
        number=int(serving.version) if serving and serving.version else 0,
        run=report.run_id.replace(":", "-")[:19],
        outcome=report.outcome,
        value=_value(report.evaluation),
        reasons=(*report.reasons, *_compared(report.verdict)),
        kept=_kept(model, copy, serving.folder if serving else ""),
        is_last_blessed=is_last_blessed,
    )


def _of_compiled(run: compiled_runs.CompiledRun) -> _Made:
    folder, _, number = run.version.rpartition("/")
    refusal = run.refusal if run.verdict.blessed else ""
    refused = "not served" if refusal else "blessed"
    reasons = [refusal] if refusal else map(str, run.verdict.broken)
    return _Made(
        number=int(number or 0),
        run=run.run,
        outcome=refused if run.verdict.blessed else "refused",
        value=_value(run.evaluation),
        reasons=(*reasons, *_compared(run.verdict)),
        kept=_kept(run.model, run.copy, folder),
        is_last_blessed=run.is_last_blessed,
    )


def _value(evaluation: Evaluation | None) -> float | None:
    if evaluation is None:
        return None
    measure = evaluation.candidate.get(evaluation.gated.metric)
    return measure.value if measure else None


def _compared(verdict: Verdict | None) -> Iterator[str]:
    """What a model was compared with, where that is not what was blessed last."""
    if verdict and verdict.accepted:
        yield "accepted in the place of the last blessed model"
    if verdict and verdict.baseline and verdict.baseline.version:
        yield f"compared with {verdict.baseline}"


def _kept(model: str, copy: str, push_folder: str) -> Kept:
    # The copy has the model card; it is removed where the version is pushed again.
    return Kept(model, (copy, f"{model}/{SERVING_MODEL}"), push_folder)


def _artifact(report: RunReport, key: str) -> str:
    """Folder of what the Pusher read or wrote; "" where it did not come that far."""
    uris = {artifact.id: artifact.uri for artifact in report.artifacts}
    for execution in report.executions:
        if execution.node == "Pusher":
            numbers = execution.inputs.get(key) or execution.outputs.get(key)
            return uris[numbers[0]] if numbers else ""
    return ""


def _blessing(report: RunReport) -> int:
    """Number of the artifact that blesses the model; 0 where there is none."""
    if report.blessed:
        for execution in report.executions:
            if execution.node == "Evaluator":
                return execution.outputs["blessing"][0]
    return 0
