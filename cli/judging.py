"""Commands about models and runs that there are: compare, gate, list, go back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import importing
from ..models.tasks import TASKS
from ..serving.wording import in_one_line
from .common import (
    EXIT_ERROR,
    EXIT_REFUSED,
    ConfigFile,
    Corpus,
    Settings,
    app,
    changes_of,
    exit_with,
    fail,
    fields_of,
    load_config,
    new_table,
    print_json,
    print_table,
    quiet,
    reported_errors,
    short,
)

if TYPE_CHECKING:
    from ..models.tasks.task import Task
    from ..pipelines.configuration.config import Config
    from ..pipelines.report.data import Candidate, ComparisonReport, RunReport
    from ..pipelines.versions import Version


@app.command()
def gate(
    model: Annotated[
        str, typer.Argument(help="Folder of an exported model, or of its versions.")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="Text to evaluate on: a file, a folder or a pattern; or documents of "
            "a run, run://[RUN][@SPLIT], by default the last one and what judged it."
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="Configuration; default: the demo's.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="In the place of the last blessed model.")
    ] = None,
    ngram: Annotated[
        str | None, typer.Option(help="An exported n-gram model, for rules against it.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="The model as a Keras preset, for dynamic evaluation."),
    ] = None,
    train_data: Annotated[
        str | None, typer.Option(help="What the model learned, for memorization.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and gate.json.")
    ] = None,
    settings: Settings = None,
) -> None:
    """Apply the gate's rules to an exported model, outside a pipeline.

    Ends with status 0 where the model keeps every rule, 3 where not, 1 for an error.
    """
    from ..pipelines.local.console import spinner

    loaded = load_config(config, settings=settings)
    with reported_errors(), quiet(loaded) as console:
        with spinner(console, "importing TFX"), importing():
            from ..pipelines import gating
            from ..pipelines.local.decision_table import print_decision
        with spinner(console, "evaluating"):
            models = gating.Models(model, baseline, ngram, preset)
            decision = gating.judge(loaded, models, data, train_data, output)
        print_decision(console, decision)
    if not decision.blessed:
        raise typer.Exit(EXIT_REFUSED)


@app.command()
def compare(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[CONFIG.yaml]...", help="Configurations to compare."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME...",
            help="Presets, as `langzoo models` lists them, in place of the model.",
        ),
    ] = None,
    corpus: Corpus = None,
    settings: Settings = None,
    push_best: Annotated[
        bool, typer.Option("--push-best", help="Gate and push the best one.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one line a model.")
    ] = False,
) -> None:
    """Run several models on the same data and rank them by what they are gated on.

    Nothing is pushed without --push-best, and the gate's last blessed model stays as it
    is. Ends with status 1 where a model failed; with --push-best as `run` does.
    """
    from ..pipelines.configuration.loading import ConfigError
    from ..pipelines.local import comparison

    names = [name.strip() for name in (models or "").split(",") if name.strip()]
    try:
        plan = comparison.planned(
            configs or [],
            names,
            changes_of(corpus, settings=settings, names=not configs),
        )
    except ConfigError as error:
        fail(str(error))
    config, result = comparison.leading(plan), None
    with reported_errors(), quiet(config, silent=as_json) as console:
        with importing():
            from ..pipelines.local import runner  # noqa: F401  # and with it TFX
        report = comparison.compare(plan, console)
        if push_best:
            report, result = comparison.push_best(plan, report, console)
        page = comparison.write(report, config.folder)
    if as_json:
        for candidate in report.candidates:
            print_json(page=str(page), **_of_candidate(candidate))
    else:
        print_ranking(report)
        typer.echo(f"report: {page}")
    if any(candidate.rank is None for candidate in report.candidates):
        raise typer.Exit(EXIT_ERROR)
    if result:
        exit_with(result)


@app.command()
def runs(
    config: ConfigFile = None,
    corpus: Corpus = None,
    settings: Settings = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one line a run.")
    ] = False,
) -> None:
    """List the runs of a pipeline with their figures, the newest last."""
    loaded = load_config(config, corpus, settings=settings)
    folder = loaded.folder
    with reported_errors():
        from ..pipelines.report.reading import Runs

        found = Runs(folder)
        reports = [found.read(run_id) for run_id in found.ids]
    if not as_json:
        _print_runs(reports, folder, TASKS[loaded.task])
        return
    for report in reports:
        print_json(**_of_run(report))


@app.command()
def versions(
    config: ConfigFile = None,
    corpus: Corpus = None,
    settings: Settings = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one line a version.")
    ] = False,
) -> None:
    """List versions: what is live, earlier, refused and why, the newest last."""
    loaded = load_config(config, corpus, settings=settings)
    with reported_errors():
        _reach_object_stores(loaded)
        from ..pipelines import versions as listing

        found = listing.versions(loaded)
    task = TASKS[loaded.task]
    if as_json:
        for version in found:
            print_json(**_of_version(version, task))
    else:
        _print_versions(found, task)


@app.command()
def rollback(
    config: ConfigFile = None,
    corpus: Corpus = None,
    settings: Settings = None,
    to: Annotated[
        int | None,
        typer.Option(
            metavar="VERSION",
            help="As `langzoo versions` has it; default: that before the live one.",
        ),
    ] = None,
) -> None:
    """Go back to an earlier version: it is pushed again, under a new number.

    The next candidate is compared with it. A version whose folder is gone is restored
    from what the run that pushed it has kept.
    """
    loaded = load_config(config, corpus, settings=settings)
    with reported_errors():
        _reach_object_stores(loaded)
        from ..pipelines.versions import roll_back

        live = roll_back(loaded, to)
    typer.echo(f"version {live.number} is {live.version} again, as {live.folder}")


@app.command()
def report(
    config: ConfigFile = None,
    corpus: Corpus = None,
    settings: Settings = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="ID", help="As `langzoo runs` has it; default: the last."),
    ] = None,
) -> None:
    """Write the report of a run again: an HTML page, and JSON beside it."""
    folder = load_config(config, corpus, settings=settings).folder
    with reported_errors():
        from ..pipelines.report.page import report_run

        typer.echo(report_run(folder, run))


def _reach_object_stores(config: Config) -> None:
    """Imports what an object store needs, where one is named, without its greetings."""
    from ..components import storage

    if storage.is_remote(config.push_folder) or storage.is_remote(config.root):
        from ..pipelines.local.console import libraries_to_log

        with libraries_to_log(Path(os.devnull)), storage.reached("file://"):
            pass


def _of_run(report: RunReport) -> dict[str, Any]:
    """What is listed of a run."""
    training, metrics = report.training, report.metrics
    return {
        "run": report.run_id,
        "started": report.started,
        "compared": report.compared,
        "model": report.model.family if report.model else None,
        "parameters": training.parameters if training else None,
        "steps": training.steps if training else None,
        "training_seconds": training.seconds if training else None,
        "size_mb": report.size_mb,
        "metrics": {name: value.model_dump() for name, value in metrics.items()},
        "outcome": report.outcome,
        "reasons": report.reasons,
        "version": (report.serving.version if report.serving else "") or None,
        "report": report.page or None,
    }


def _of_version(version: Version, task: Task) -> dict[str, Any]:
    """What is listed of a version."""
    names = {"value": task.metric}
    return {names.get(key, key): value for key, value in fields_of(version).items()}


def _of_candidate(candidate: Candidate) -> dict[str, Any]:
    """What is listed of a model in a comparison."""
    run = _of_run(candidate.run) if candidate.run else {}
    ours = {"rank": candidate.rank, "error": candidate.error or None}
    return {"name": candidate.name, **ours, **run}


def _print_runs(reports: list[RunReport], folder: Path, task: Task) -> None:
    table = new_table()
    for heading in ("run", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "steps", task.words):
        table.add_column(heading, justify="right")
    table.add_column("outcome")
    for report in reports:
        training = report.training
        kind = "compared, " if report.compared else ""
        version = report.serving.version if report.serving else ""
        table.add_row(
            report.run_id.replace(":", "-")[:19],
            report.model.family if report.model else "-",
            short(training.parameters) if training else "-",
            f"{training.steps:,}" if training else "-",
            _measure(report),
            f"{kind}{report.outcome} {version or '; '.join(report.reasons)}",
        )
    print_table(table)
    typer.echo(f"reports: {folder / 'runs'}")


def _print_versions(found: list[Version], task: Task) -> None:
    table = new_table()
    table.add_column("version", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("run", no_wrap=True)
    table.add_column(task.words, justify="right")
    table.add_column("")
    for version in found:
        table.add_row(
            str(version.version or "-"),
            version.state,
            version.run or "-",
            "-" if version.value is None else f"{version.value:.4f}",
            "; ".join(version.reasons),
        )
    print_table(table)


def print_ranking(report: ComparisonReport) -> None:
    """Prints the models of a comparison, the best first, and why some were refused."""
    from ..components.evaluator.wording import duration

    table = new_table()
    table.add_column("#", justify="right")
    table.add_column("model", no_wrap=True)
    for heading in (report.gated.words, "parameters", "training", "MB"):
        table.add_column(heading, justify="right")
    table.add_column("gate", no_wrap=True)
    reasons = []
    for candidate in report.candidates:
        name, run = candidate.name, candidate.run
        training = run.training if run else None
        table.add_row(
            *(str(candidate.rank or "-"), name, _measure(run) if run else "-"),
            short(training.parameters) if training else "-",
            duration(training.seconds) if training else "-",
            short(run.size_mb) if run else "-",
            run.outcome if run else "failed",
        )
        for reason in run.reasons if run else [candidate.error]:
            reasons.append(f"{name}: {reason}")
    print_table(table)
    for reason in reasons:
        typer.echo(in_one_line(reason))
    if report.pushed:
        typer.echo(f"pushed {report.pushed}")


def _measure(report: RunReport) -> str:
    """What the model is gated on, with its interval."""
    from ..components.evaluator.wording import interval, number

    measure = report.metrics.get(report.task.metric)
    if measure is None:
        return "-"
    between = interval(measure.low, measure.high)
    return f"{number(measure.value)}\n{between}".rstrip()
