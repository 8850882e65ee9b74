"""Reports as a page that needs nothing else, and as JSON beside it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import jinja2

from ... import __version__
from ...components.evaluator import wording
from ...components.evaluator.measures.exported import LATENCY
from ...components.records import Record
from ...models.tasks.task import Task
from ...serving.export.contract import GENERATE, SIGNATURES
from . import data, figures
from .reading import PAGE_FILE, Runs, run_folder

JSON_FILE = "report.json"
_SAMPLES = 6
_RUN_SECTIONS = (
    *("gate", "quality", "slices", "training", "samples", "corpus", "cost"),
    *("configuration", "lineage"),
)
_COMPARISON_SECTIONS = (
    *("ranking", "quality", "training", "samples", "corpus", "configuration"),
)


def report_run(folder: Path, run_id: str | None = None) -> Path:
    """Reads what is known of a run and writes its report.

    Args:
        folder: The pipeline's folder.
        run_id: Name of the run, or of its folder; by default the last one's.

    Returns:
        The page.

    Raises:
        InputError: Where there is no such run.
    """
    runs = Runs(folder)
    name = runs.find(run_id)
    return write_run(runs.read(name), run_folder(folder, name))


def write_run(report: data.RunReport, folder: Path) -> Path:
    """Writes the report of a run.

    Returns:
        The page.
    """
    report = report.model_copy(update={"page": str(folder / PAGE_FILE)})
    return _write(report, run_page(report), folder)


def write_comparison(report: data.ComparisonReport, folder: Path) -> Path:
    """Writes the report of a comparison.

    Returns:
        The page.
    """
    return _write(report, comparison_page(report, folder), folder)


def run_page(report: data.RunReport) -> str:
    """The page of a run, as HTML."""
    evaluation, training = report.evaluation, report.training
    drawn = {
        "reliability": evaluation and figures.reliability(evaluation),
        "confusion": evaluation and figures.confusion(evaluation),
        "slices": evaluation and figures.slices(evaluation, report.task.metric),
        "training": training and figures.training_curves(training, report.task),
        "gated": training and figures.gated(training, report.task),
        "learning_rate": training and figures.learning_rate(training),
        "lineage": figures.lineage(report.executions),
    }
    return _render(
        "run.html",
        _RUN_SECTIONS,
        run=report,
        task=report.task,
        figures=drawn,
        metric_names=_metric_names(report),
        samples=_samples(report),
    )


def comparison_page(report: data.ComparisonReport, folder: Path) -> str:
    """The page of a comparison, as HTML.

    Args:
        report: The comparison.
        folder: Where the page will lie; it refers to those of the runs from there.
    """
    costs = {
        "training, seconds": lambda run: run.training.seconds if run.training else 0,
        "size of the SavedModel, MB": lambda run: run.size_mb or 0,
        "latency of one text, ms": lambda run: _value(run, LATENCY.name),
    }
    drawn = {
        "ranking": figures.ranking(report),
        "training": figures.curves_of_all(report),
        "costs": [
            (f"{report.gated.words.capitalize()} against {cost}.", svg)
            for cost, value in costs.items()
            if (svg := figures.quality_and_cost(report, cost, value))
        ],
    }
    measured = {
        name
        for candidate in report.candidates
        if candidate.run
        for name in candidate.run.metrics
    }
    return _render(
        "comparison.html",
        _COMPARISON_SECTIONS,
        comparison=report,
        task=report.gated,
        figures=drawn,
        metric_names=[
            name for name in (*report.gated.beside, LATENCY.name) if name in measured
        ],
        links={
            candidate.name: os.path.relpath(candidate.run.page, folder)
            if candidate.run and candidate.run.page
            else ""
            for candidate in report.candidates
        },
    )


def _write(report: Record, html: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_FILE).write_text(report.model_dump_json(indent=1), encoding="utf-8")
    page = folder / PAGE_FILE
    page.write_text(html, encoding="utf-8")
    return page


def _render(
    template: str, sections: tuple[str, ...], task: Task, **values: object
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        short=wording.short,
        duration=wording.duration,
        words=wording.name_of,
        when=lambda started: started.replace("T", " ")[:16],
        samples=_samples,
        in_order=wording.in_order,
    )
    environment.globals.update(interval=wording.interval, version=__version__)
    writes = GENERATE.name in {known.name for known in SIGNATURES[task.name]}
    named = [(n, n.capitalize()) for n in sections if writes or n != "samples"]
    return environment.get_template(template).render(
        sections=named, task=task, writes=writes, **values
    )


def _metric_names(report: data.RunReport) -> list[str]:
    """Metrics in the order of their definitions, then others."""
    if not report.evaluation:
        return []
    measured = [
        name for model in report.evaluation.models.values() for name in model.overall
    ]
    defined = [name for name in report.evaluation.definitions if name in measured]
    return list(dict.fromkeys([*defined, *measured]))


def _samples(report: data.RunReport) -> list[data.Sample]:
    """What the exported model wrote, and then the newest of the training."""
    exported = report.evaluation.samples if report.evaluation else []
    written = [data.Sample(**one.model_dump()) for one in exported]
    if report.training:
        written += [
            data.Sample(text=sample.text, step=sample.step)
            for sample in reversed(report.training.samples)
        ]
    return written[:_SAMPLES]


def _value(report: data.RunReport, metric: str) -> float:
    measure = report.metrics.get(metric)
    return measure.value if measure else math.nan
