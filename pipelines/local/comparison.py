"""Comparisons: several models through one pipeline, on the same data.

All models run under one pipeline's name, so that MLMD's cache gives what they share:
ingestion, statistics, tokenizer and Transform are done once. Each is judged by itself
under a node of its own name (`make_components(compared=True)`), and none is pushed: the
models that the pipeline blesses and serves are as they were.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import datetime
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...components.errors import InputError
from ...components.evaluator.records import Definition
from ...components.records import differences
from ...models.tasks import TASKS
from ...models.tasks.task import Task
from ..configuration.config import Config
from ..configuration.loading import ConfigError, Setting, load
from ..report import data, page
from ..report.reading import Runs

if TYPE_CHECKING:
    from .runner import RunResult

# What configurations must have in common, that the models learn from the same data.
_SHARED = {"task", "corpus", "cleaning"}


def planned(
    paths: Sequence[Path] = (),
    presets: Sequence[str] = (),
    settings: Sequence[Setting] = (),
) -> dict[str, Config]:
    """Reads the configurations of a comparison.

    The first one gives the pipeline's name and folder, the gate and where is pushed.

    Args:
        paths: Configurations; with presets at most one, by default the demo's.
        presets: Names of presets, each of which takes the place of its model.
        settings: Changes to all of them.

    Returns:
        The configuration of each model by its name.

    Raises:
        ConfigError: Where one cannot be used, there is nothing to compare, or they do
            not learn from the same data.
    """
    if presets:
        if len(paths) > 1:
            raise ConfigError(
                "--models takes the place of the model in one configuration: give one, "
                f"not {len(paths)}"
            )
        path = paths[0] if paths else None
        given = {name: (path, [("model", {"preset": name})]) for name in presets}
    else:
        given = {_name(path, paths): (path, []) for path in paths}
    if len(given) < 2:
        raise ConfigError(
            "a comparison needs two models or more: several configurations, or "
            "--models with names from `langzoo models`"
        )
    return _on_the_same_data(
        {
            name: load(path, [*changes, *settings])
            for name, (path, changes) in given.items()
        }
    )


def _name(path: Path, paths: Sequence[Path]) -> str:
    """The name of a file without its ending, or its path where two have that."""
    stems = [other.stem for other in paths]
    return str(path) if stems.count(path.stem) > 1 else path.stem


def _on_the_same_data(configs: Mapping[str, Config]) -> dict[str, Config]:
    (first_name, first), *_ = configs.items()
    shared = _SHARED | ({"tokenizer"} if TASKS[first.task].is_of_tokens else set())
    for name, config in configs.items():
        ours, theirs = (one.model_dump(include=shared) for one in (config, first))
        if changed := differences(ours, theirs):
            raise ConfigError(
                f"{name} is of other data than {first_name} ({'; '.join(changed)}): "
                "models are compared on the same data (--corpus and --set change it in "
                "all)"
            )
    push_folder = first.serving.push_folder
    return {
        name: config.model_copy(
            update={
                "name": first.name,
                "root": first.root,
                "gate": first.gate,
                "serving": config.serving.model_copy(
                    update={"push_folder": push_folder}
                ),
            }
        )
        for name, config in configs.items()
    }


def compare(plan: Mapping[str, Config], console: Console) -> data.ComparisonReport:
    """Runs every model, ranks them and writes the reports.

    A model that fails does not stop the others.

    Args:
        plan: What `planned` gives.
        console: Where progress is shown.

    Returns:
        The comparison.
    """
    started, task = datetime.datetime.now(), TASKS[leading(plan).task]
    before = time.monotonic()
    candidates = []
    for number, (name, config) in enumerate(plan.items(), start=1):
        console.print(f"{number} of {len(plan)}: {name}")
        candidate = _run(name, config, console)
        if candidate.error:
            console.print(f"{name} failed: {candidate.error}", soft_wrap=True)
        candidates.append(candidate)
    runs = [candidate.run for candidate in candidates if candidate.run]
    definitions: dict[str, Definition] = {}
    for run in runs:
        definitions |= run.evaluation.definitions if run.evaluation else {}
    return data.ComparisonReport(
        pipeline=leading(plan).name,
        started=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - before,
        task=task.name,
        metric=task.metric,
        corpus=runs[0].corpus if runs else None,
        definitions=definitions,
        candidates=ranked(candidates, task),
        versions=runs[0].versions if runs else {},
    )


def _run(name: str, config: Config, console: Console) -> data.Candidate:
    from . import runner

    try:
        run_id = runner.execute(config, console, compared=True)
        page.report_run(config.folder, run_id)
        run = Runs(config.folder).read(run_id)
    except Exception as error:
        logging.getLogger(__name__).exception("%s failed", name)
        return data.Candidate(name=name, error=_reason(error))
    return data.Candidate(name=name, run=run)


def _reason(error: BaseException) -> str:
    """Why something failed, in a line: a user's fault in its own words."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__
    text = " ".join(str(cause or error).split()) or "it did not say why"
    return text if cause else f"{type(error).__name__}: {text[:200]}"


def ranked(candidates: Sequence[data.Candidate], task: Task) -> list[data.Candidate]:
    """The candidates with their places, the best first; those without one last."""

    def value(candidate: data.Candidate) -> float:
        measure = candidate.run and candidate.run.metrics.get(task.metric)
        return measure.value if measure else math.nan

    finished = [one for one in candidates if math.isfinite(value(one))]
    others = [one for one in candidates if one not in finished]
    best_first = sorted(finished, key=value, reverse=task.direction == "higher")
    return [
        *(
            one.model_copy(update={"rank": place})
            for place, one in enumerate(best_first, start=1)
        ),
        *others,
    ]


def push_best(
    plan: Mapping[str, Config],
    report: data.ComparisonReport,
    console: Console,
) -> tuple[data.ComparisonReport, RunResult]:
    """Runs the pipeline with the best model's configuration, gate and push included.

    Its training is in the cache. The gate then asks what it asks of any candidate, the
    last blessed model among it, and may refuse.

    Returns:
        The comparison, which says what was pushed, and what the run did.

    Raises:
        InputError: Where no model was ranked, or as `local.run` says.
    """
    from . import runner

    best = report.candidates[0]
    if best.rank is None:
        raise InputError("there is nothing to push: no model came to its evaluation")
    result = runner.run(plan[best.name], console)
    if result.destination:
        said = f"{best.name} as version {result.destination.rpartition('/')[2]}"
        report = report.model_copy(update={"pushed": said})
    return report, result


def write(report: data.ComparisonReport, folder: Path) -> Path:
    """Writes the report of a comparison into a pipeline's folder.

    Returns:
        The page.
    """
    return page.write_comparison(
        report, folder / "comparisons" / report.started.replace(":", "-")
    )


def leading(plan: Mapping[str, Config]) -> Config:
    """The configuration that gives name, folder, gate and push folder."""
    return next(iter(plan.values()))
