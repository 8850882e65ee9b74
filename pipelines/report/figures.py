"""Figures as SVG that takes its colours from the page around it.

matplotlib draws in placeholder colours, which become CSS variables: one figure is
right in light, in dark and in print.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import matplotlib as mpl
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from ...components.evaluator.records import CANDIDATE, OVERALL, Evaluation, Measure
from ...components.evaluator.wording import in_order, name_of, short
from ...components.trainer.records import TrainingResult
from ...models.tasks.task import Task
from . import data

_INK, _MUTED, _GRID, _SURFACE = "#010101", "#010102", "#010103", "#010104"
_SERIES = [f"#0101{number:02x}" for number in range(0x11, 0x17)]
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _GRID: "--grid",
    _SURFACE: "--card",
    **{colour: f"--series-{n}" for n, colour in enumerate(_SERIES, start=1)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # Text stays text: smaller, and it can be searched.
    "font.size": 9,
    "text.color": _INK,
    "axes.axisbelow": True,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": _MUTED,
    "axes.prop_cycle": cycler(color=_SERIES),
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    # A corpus may hold anything, and so may the names in it.
    "text.parse_math": False,
}
_WIDTH, _HEIGHT = 5.0, 3.0  # inches
_ROW = 0.3  # height of a row of a chart of intervals
_CURVE_POINTS = 400
_CONFUSED = 20  # labels of a confusion matrix

_Row = TypeVar("_Row")


def training_curves(training: TrainingResult, task: Task) -> Markup | None:
    """Loss over steps: of batches, and of the evaluation split."""
    if not training.history and not training.evaluations:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, _thinned(training.history), "loss", label="training batches")
        if training.evaluations:
            _line(
                axes, training.evaluations, "loss", label="evaluation split",
                marker="o", color=_SERIES[1],
            )  # fmt: skip
        result = [{"step": training.steps, "loss": training.eval_loss}]
        _line(
            axes, result, "loss", label="result, evaluation split",
            marker="D", markersize=6, linestyle="", color=_SERIES[1],
        )  # fmt: skip
        axes.set(xlabel="step", ylabel=f"nats a {task.target}")
        axes.legend()

    return _figure(draw, "Loss over training steps")


def learning_rate(training: TrainingResult) -> Markup | None:
    """Learning rate and speed over steps."""
    rows = [row for row in _thinned(training.history) if "learning_rate" in row]
    if len(rows) < 2:
        return None

    def draw(upper: Axes, lower: Axes) -> None:
        _line(upper, rows, "learning_rate")
        upper.set(ylabel="learning rate")
        upper.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        timed = [row for row in rows if "tokens_per_second" in row]
        _line(lower, timed, "tokens_per_second", color=_SERIES[2])
        lower.set(xlabel="step", ylabel="tokens a second")
        lower.set_ylim(bottom=0)
        lower.yaxis.set_major_formatter(lambda value, _: short(value))

    return _figure(draw, "Learning rate and tokens a second over steps", rows=2)


def gated(training: TrainingResult, task: Task) -> Markup | None:
    """What the gate asks for, of the evaluations during training."""
    rows = [row for row in training.evaluations if task.metric in row]
    if len(rows) < 2:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, rows, task.metric, marker="o", color=_SERIES[1])
        step, value = rows[-1]["step"], rows[-1][task.metric]
        axes.annotate(
            f"{value:.3f}", (step, value), (0, 7), ha="right", color=_INK,
            textcoords="offset points",
        )  # fmt: skip
        axes.set(xlabel="step", ylabel=task.words)

    said = f"{task.words.capitalize()} of the evaluation split over steps"
    return _figure(draw, said)


def reliability(evaluation: Evaluation) -> Markup | None:
    """How often the likeliest answer is right, by how sure the model is of it."""
    bins = {
        model: [row for row in evaluated.slices[OVERALL].calibration if row[0]]
        for model, evaluated in evaluation.models.items()
        if OVERALL in evaluated.slices
    }
    if not bins.get(CANDIDATE):
        return None

    def draw(upper: Axes, lower: Axes) -> None:
        upper.plot([0, 1], [0, 1], color=_MUTED, linestyle=":", linewidth=1.2)
        upper.annotate(
            "perfect", (0.9, 0.9), (0, 3), color=_MUTED, rotation=27, ha="center",
            textcoords="offset points",
        )  # fmt: skip
        for model, rows in bins.items():
            if rows:
                sure = [confidence / tokens for tokens, confidence, _ in rows]
                right = [right / tokens for tokens, _, right in rows]
                upper.plot(sure, right, marker="o", label=name_of(model))
        upper.set(ylabel="share right", xlim=(0, 1), ylim=(0, 1))
        if len(bins) > 1:
            upper.legend(loc="upper left")
        rows = bins[CANDIDATE]
        total = sum(tokens for tokens, _, _ in rows)
        lower.bar(
            [confidence / tokens for tokens, confidence, _ in rows],
            [tokens / total for tokens, _, _ in rows],
            width=0.045,
            color=_SERIES[0],
        )
        lower.set(xlabel="probability of the likeliest answer", ylabel="answers")
        lower.set_xlim(0, 1)
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        lower.yaxis.set_major_locator(MaxNLocator(2))

    return _figure(
        draw,
        "Reliability diagram: share right by confidence",
        rows=2,
        ratio=(3, 1),
        size=(_WIDTH, 3.8),
    )


def confusion(evaluation: Evaluation) -> Markup | None:
    """What documents of each label are said to have, in shares of that label's."""
    candidate = evaluation.models.get(CANDIDATE)
    if candidate is None or not candidate.labels:
        return None
    # The most frequent ones, where there are too many to be told apart.
    frequent = sorted(
        range(len(candidate.labels)), key=lambda i: -candidate.labels[i].documents
    )
    shown = sorted(frequent[:_CONFUSED])
    names = [_clipped(candidate.labels[i].label) for i in shown]
    places = range(len(shown))

    def draw(axes: Axes) -> None:
        for row, label in enumerate(shown):
            counts = candidate.confusion[label]
            for column, said in enumerate(shown):
                share = counts[said] / max(candidate.labels[label].documents, 1)
                corner = (column - 0.5, row - 0.5)
                cell = Rectangle(corner, 1, 1, color=_SERIES[0], alpha=0.9 * share)
                axes.add_patch(cell)
                if counts[said]:
                    axes.text(
                        column, row, short(counts[said]), ha="center", va="center",
                        fontsize=7,
                    )  # fmt: skip
        axes.grid(visible=False)
        axes.set_xticks(places, names, rotation=45, ha="right")
        axes.set_yticks(places, names)
        axes.set(
            xlim=(-0.5, len(shown) - 0.5),
            ylim=(len(shown) - 0.5, -0.5),
            xlabel="is said to be",
            ylabel="is",
        )

    side = 1.6 + 0.32 * len(shown)
    return _figure(draw, "Confusion matrix", size=(max(_WIDTH, side), side))


def slices(evaluation: Evaluation, metric: str) -> Markup | None:
    """A metric with its interval by slice, of all models."""
    candidate = evaluation.models.get(CANDIDATE)
    measured = candidate.slices if candidate else {}
    names = [name for name in in_order(measured) if metric in measured[name].metrics]
    if len(names) < 2:
        return None
    rows = {
        name: {
            model: evaluated.slices[name].metrics[metric]
            for model, evaluated in evaluation.models.items()
            if metric in getattr(evaluated.slices.get(name), "metrics", {})
        }
        for name in names
    }
    return _intervals(rows, metric, f"{name_of(metric)} by slice")


def ranking(report: data.ComparisonReport) -> Markup | None:
    """The metric that ranks, with its interval, of each candidate."""
    rows = {
        candidate.name: {"": candidate.run.metrics[report.metric]}
        for candidate in report.candidates
        if candidate.run and report.metric in candidate.run.metrics
    }
    if not rows:
        return None
    return _intervals(rows, report.metric, f"{name_of(report.metric)} by model")


def quality_and_cost(
    report: data.ComparisonReport, cost: str, value: Callable[[data.RunReport], float]
) -> Markup | None:
    """A cost, on a logarithmic axis, and the metric that ranks, of each candidate.

    Args:
        report: The comparison.
        cost: What the cost is, with its unit.
        value: Gives it for a run; NaN or 0 where there is none.
    """
    points = []
    for number, candidate in enumerate(report.candidates):
        quality = candidate.run and candidate.run.metrics.get(report.metric)
        if not candidate.run or not quality or not math.isfinite(quality.value):
            continue
        if value(candidate.run) > 0:
            colour = _SERIES[number % len(_SERIES)]
            points.append((value(candidate.run), quality, candidate.name, colour))
    if len(points) < 2:
        return None

    def draw(axes: Axes) -> None:
        lower = report.gated.direction == "lower"
        front = _front([(x, quality.value) for x, quality, *_ in points], lower)
        axes.plot(*zip(*front, strict=True), color=_GRID, linewidth=1.4, zorder=1)
        for x, quality, name, colour in points:
            axes.errorbar(
                x, quality.value, yerr=_error(quality), fmt="o", color=colour,
                markersize=7, elinewidth=1.2,
            )  # fmt: skip
            axes.annotate(
                name, (x, quality.value), (7, 4), textcoords="offset points", color=_INK
            )
        axes.set(xscale="log", xlabel=f"{cost} (log scale)", ylabel=report.gated.words)
        axes.margins(x=0.25, y=0.18)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
        axes.xaxis.set_minor_formatter(lambda value, _: "")

    return _figure(draw, f"{report.gated.words.capitalize()} against {cost}")


def curves_of_all(report: data.ComparisonReport) -> Markup | None:
    """Training loss over steps of every candidate that learns in steps."""
    runs = [
        (number, candidate.name, candidate.run.training)
        for number, candidate in enumerate(report.candidates)
        if candidate.run
        and candidate.run.training
        and len(candidate.run.training.history) > 1
    ]
    if not runs:
        return None

    def draw(axes: Axes) -> None:
        for number, name, training in runs:
            repeated, place = divmod(number, len(_SERIES))
            _line(
                axes, _thinned(training.history), "loss", label=name,
                color=_SERIES[place], linestyle=("-", "--", ":")[repeated % 3],
            )  # fmt: skip
        target = report.gated.target
        axes.set(xlabel="step", ylabel=f"nats a {target}, training batches")
        axes.legend()

    return _figure(draw, "Training loss of all models over steps")


def lineage(executions: Sequence[data.Execution]) -> Markup | None:
    """The run's executions, and which took what another has made."""
    made = {
        number: execution.node
        for execution in executions
        for numbers in execution.outputs.values()
        for number in numbers
    }
    sources = {
        execution.node: {
            made[number]
            for numbers in execution.inputs.values()
            for number in numbers
            if made.get(number, execution.node) != execution.node
        }
        for execution in executions
        if execution.outputs
    }
    places = _places(sources)
    if not places:
        return None
    states = {execution.node: execution.state for execution in executions}
    columns = 1 + max(x for x, _ in places.values())
    rows = 1 + max(y for _, y in places.values())

    def draw(axes: Axes) -> None:
        for node, before in sources.items():
            for source in before:
                if not _is_implied(sources, source, node):
                    _arrow(axes, places[source], places[node])
        for node, (x, y) in places.items():
            cached = states[node] == "CACHED"
            axes.text(
                x, -y, _split_name(node), ha="center", va="center", fontsize=8,
                color=_MUTED if cached else _INK,
                bbox={
                    "boxstyle": "round,pad=0.5",
                    "facecolor": _SURFACE,
                    "edgecolor": _MUTED if cached else _SERIES[0],
                    "linestyle": "--" if cached else "-",
                },
            )  # fmt: skip
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(0.5 - rows, 0.5))
        axes.axis("off")

    size = (1.25 * columns, 0.75 * rows)
    return _figure(draw, "Lineage: which component took whose output", size=size)


def _line(
    axes: Axes, rows: Sequence[Mapping[str, float]], key: str, **style: Any
) -> None:
    """Draws a column of a table over its steps."""
    axes.plot([row["step"] for row in rows], [row[key] for row in rows], **style)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate(
        "",
        (end[0] - 0.36, -end[1]),
        (start[0] + 0.36, -start[1]),
        arrowprops={
            "arrowstyle": "-|>",
            "color": _MUTED,
            "linewidth": 1,
            "connectionstyle": "arc3,rad=0",
        },
        zorder=0,
    )


def _split_name(node: str) -> str:
    """A name in camel case on two lines."""
    first, *others = re.findall(r"[A-Z][a-z]*|[^A-Z]+", node)
    return f"{first}\n{''.join(others)}" if others else first


def _places(sources: Mapping[str, set[str]]) -> dict[str, tuple[float, float]]:
    """Columns by the longest way from a source, rows in order within a column."""
    column: dict[str, int] = {}
    for node, before in sources.items():  # Executions are in topological order.
        column[node] = 1 + max((column.get(name, 0) for name in before), default=-1)
    heights = {x: list(column.values()).count(x) for x in column.values()}
    highest = max(heights.values(), default=0)
    seen: dict[int, int] = {}
    places = {}
    for node, x in column.items():
        row = seen.get(x, 0)
        seen[x] = row + 1
        places[node] = (float(x), row + (highest - heights[x]) / 2)
    return places


def _is_implied(sources: Mapping[str, set[str]], start: str, end: str) -> bool:
    """Whether there is a longer way, which says the same."""

    def reaches(node: str) -> bool:
        return start in sources[node] or any(map(reaches, sources[node]))

    return any(reaches(node) for node in sources[end] - {start})


def _intervals(
    rows: Mapping[str, Mapping[str, Measure]], metric: str, label: str
) -> Markup:
    """A row each, with a point and its interval for every model."""
    models = list(dict.fromkeys(model for row in rows.values() for model in row))

    def draw(axes: Axes) -> None:
        for number, model in enumerate(models):
            present = [(i, row[model]) for i, row in enumerate(rows.values())
                       if model in row and math.isfinite(row[model].value)]  # fmt: skip
            shift = (number - (len(models) - 1) / 2) * 0.22
            errors = [_error(measure) or ((0,), (0,)) for _, measure in present]
            axes.errorbar(
                [measure.value for _, measure in present],
                [place + shift for place, _ in present],
                xerr=[[e[side][0] for e in errors] for side in (0, 1)],
                fmt="o",
                markersize=5,
                elinewidth=1.6,
                label=name_of(model),
            )
        axes.set_yticks(range(len(rows)), [_clipped(name) for name in rows])
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(name_of(metric))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        if len(models) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(models))

    height = 0.9 + _ROW * len(rows) * max(1, 0.6 * len(models))
    return _figure(draw, label, size=(_WIDTH, height))


def _clipped(name: str, length: int = 28) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _error(measure: Measure) -> tuple[tuple[float], tuple[float]] | None:
    if measure.low is None or measure.high is None:
        return None
    below, above = measure.value - measure.low, measure.high - measure.value
    return (max(below, 0.0),), (max(above, 0.0),)


def _front(points: list[tuple[float, float]], lower: bool) -> list[tuple[float, float]]:
    """The points that no other is both cheaper and better than."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or (point[1] < front[-1][1] if lower else point[1] > front[-1][1]):
            front.append(point)
    return front


def _thinned(rows: Sequence[_Row]) -> Sequence[_Row]:
    """At most some hundred rows, evenly, the last among them."""
    every = math.ceil(len(rows) / _CURVE_POINTS) or 1
    return rows[::-1][::every][::-1]


def _figure(
    draw: Callable[..., None],
    label: str,
    *,
    rows: int = 1,
    ratio: Sequence[float] | None = None,
    size: tuple[float, float] = (_WIDTH, _HEIGHT),
) -> Markup:
    # Two figures on a page must not share the names of their parts.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure = Figure(size, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, 1, squeeze=False, sharex=True, height_ratios=ratio)
        draw(*axes[:, 0])
        output = io.StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(output, format="svg", metadata=metadata)
    return _inlined(output.getvalue(), label)


def _inlined(svg: str, label: str) -> Markup:
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    opening = f'<svg role="img" aria-label="{escape(label)}"'
    return Markup(svg.replace("<svg", opening, 1))
