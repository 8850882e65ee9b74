"""Records: what is reached on fixed splits at fixed budgets, a YAML file each.

`records/TASK/task.yaml` says what is learned from, what may be spent and what is
measured; `records/TASK/NAME.yaml` is a record. Its configuration is the task's with
what it says itself, and is run by the pipeline as `langzoo compare` runs one, once a
seed. What came of it is a line of `records/results.jsonl`, of which the table of
docs/records.md is made.
"""

from __future__ import annotations

import copy
import datetime
import functools
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from langzoo.components.records import Record
from langzoo.models.settings import Section, explain
from langzoo.pipelines.configuration.config import Config
from langzoo.pipelines.configuration.loading import ConfigError, load

from .apart import measure_apart
from .tables import show, table_of

FOLDER = Path(__file__).parent / "records"
RESULTS = "results.jsonl"
SEEDS = 3
_TASK = "task.yaml"


class Budget(Section):
    """What a record may spend; what is not given is not bounded."""

    tokens: int | None = None
    """Tokens learned from: without `trainer.steps` all of them are used."""
    seconds: float | None = None
    """Of training on two cores, the median of the seeds."""


class Cut(Section):
    """A file whose first part is for training, and the rest for evaluation."""

    file: str
    """Its name in the folder of texts."""
    share: float
    """The first part's share of its bytes. They are in `train.txt`, the rest in
    `eval.txt`."""


class Task(Section):
    """What records are comparable by: a folder of `records/`."""

    title: str
    """What is learned."""
    metric: str
    """`eval_loss` of the training, or one of docs/metrics.md."""
    unit: str
    """That of the metric."""
    better: Literal["lower", "higher"] = "lower"
    """Which is better."""
    budget: Budget = Budget()
    cut: Cut | None = None
    """What the paths of the corpus come from, if they are no files of their own."""
    labelled: list[str] = []
    """Likewise: `NAME.txt` in the folder of texts, of lines with a label before the
    first blank, becomes `NAME.jsonl`, with the fields `label` and `text`."""
    configuration: dict[str, Any]
    """What all its records have in common."""


class Entry(Section):
    """A record: a file beside `task.yaml`."""

    configuration: dict[str, Any] = {}
    """What it has besides the task's."""
    pretraining: dict[str, Any] = {}
    """What a run has besides the task's configuration whose weights are the initial
    ones; it is not measured, nor its time."""
    peer: str = ""
    """In its place: a module of `benchmarks/` with `measure(folder, seed)`."""
    seeds: int = SEEDS
    """The seeds that make a difference; 1 where chance decides nothing."""

    @pydantic.model_validator(mode="after")
    def _is_one_of_both(self) -> Entry:
        if bool(self.peer) == bool(self.configuration):
            raise ValueError("a record has a configuration or a peer")
        return self


class Result(Record):
    """What came of a record: a line of `results.jsonl`."""

    task: str
    name: str
    date: str
    """As ISO 8601."""
    commit: str
    """With a `+` where the checkout had changes."""
    parameters: int
    tokens: int
    """Learned from."""
    seconds: float
    """Of training, the median."""
    values: list[float]
    """One a seed."""

    @property
    def mean(self) -> float:
        """Of the seeds."""
        return statistics.mean(self.values)

    @property
    def told(self) -> str:
        """Mean and spread, the standard deviation of the seeds."""
        spread = statistics.stdev(self.values) if len(self.values) > 1 else None
        return f"{self.mean:.4g}" + ("" if spread is None else f" ± {spread:.2g}")

    def keeps(self, budget: Budget) -> bool:
        """Whether it has spent no more."""
        spent = self.model_dump(include=set(Budget.model_fields))
        bounds = budget.model_dump(exclude_none=True)
        return all(spent[name] <= bound for name, bound in bounds.items())


def task_of(name: str, folder: Path = FOLDER) -> Task:
    """Reads a task.

    Raises:
        ConfigError: in a line that names the file.
    """
    return _read(Task, folder / name / _TASK)


def entries(folder: Path = FOLDER) -> Iterator[tuple[str, str]]:
    """Yields task and name of every record."""
    for path in sorted(folder.glob("*/*.yaml")):
        if path.name != _TASK:
            yield path.parent.name, path.stem


def entry_of(task: str, name: str, folder: Path = FOLDER) -> Entry:
    """Reads a record.

    Raises:
        ConfigError: in a line that names the file.
    """
    return _read(Entry, folder / task / f"{name}.yaml")


def _read(kind: type[Any], path: Path) -> Any:
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def configured(
    task: str, name: str, seed: int, texts: Path, root: Path, folder: Path = FOLDER
) -> Config:
    """The whole configuration of a record, which is written to `root`, too.

    Args:
        task: Of the record.
        name: Its own.
        seed: Of the training.
        texts: Where the corpus lies.
        root: For what runs leave behind.
        folder: Where records are.

    Raises:
        ConfigError: in a line.
    """
    told, entry = task_of(task, folder), entry_of(task, name, folder)
    parts = [told.configuration, entry.configuration]
    if entry.pretraining:
        before = pretraining(task, name, seed, texts, root, folder)
        parts.append({"model": {"initial_weights": str(before.folder)}})
    path, content = _written(root / f"{name}.yaml", parts, task, seed, texts)
    config = load(path)
    if told.budget.tokens and "steps" not in content["trainer"]:
        tokens_a_step = config.trainer.batch_size * config.model.context_length
        config = load(path, [("trainer.steps", told.budget.tokens // tokens_a_step)])
    return config


def pretraining(
    task: str, name: str, seed: int, texts: Path, root: Path, folder: Path = FOLDER
) -> Config:
    """The configuration of the run before that of `configured`, if there is one."""
    parts = [
        task_of(task, folder).configuration,
        entry_of(task, name, folder).pretraining,
    ]
    path = root / f"{name}_pretraining.yaml"
    return load(_written(path, parts, f"{task}_pretraining_{seed}", seed, texts)[0])


def _written(
    path: Path, parts: list[dict[str, Any]], name: str, seed: int, texts: Path
) -> tuple[Path, dict[str, Any]]:
    """The file of a configuration of parts, the last going over the others."""
    own = {"name": name, "root": str(path.parent), "trainer": {"seed": seed}}
    content = functools.reduce(_merged, [*parts, own])
    for source in content.get("corpus", {}).get("sources", []):
        source["path"] = str(texts / source["path"])
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path, content


def _merged(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings in one; theirs go over ours, and null takes a key away."""
    merged = copy.deepcopy(ours)
    for key, value in theirs.items():
        if value is None:
            merged.pop(key, None)
            continue
        old = merged.get(key)
        nested = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merged(old, value) if nested else copy.deepcopy(value)
    return merged


def lacking(task: Task, texts: Path | None) -> str:
    """What a task needs and is not in the folder of texts, in words."""
    sources = task.configuration.get("corpus", {}).get("sources", [])
    paths = [source["path"] for source in sources]
    needed = [task.cut.file] if task.cut else task.labelled or paths
    if needed and texts is None:
        return f"it needs --data FOLDER with {', '.join(needed)}"
    missing = [name for name in needed if texts and not (texts / name).is_file()]
    return f"{texts} lacks {', '.join(missing)}" if missing else ""


def laid_out(task: Task, texts: Path | None, scratch: Path) -> Path:
    """The folder that the paths of a task's corpus are in."""
    if texts is None or not (task.cut or task.labelled):
        return (texts or scratch).absolute()
    for name in task.labelled:
        lines = (texts / name).read_text(encoding="utf-8").splitlines()
        pairs = (line.partition(" ") for line in lines)
        records = [{"label": label, "text": text} for label, _, text in pairs]
        text = "".join(f"{json.dumps(record)}\n" for record in records)
        (scratch / name).with_suffix(".jsonl").write_text(text)
    if task.cut:
        content = (texts / task.cut.file).read_bytes()
        end = int(task.cut.share * len(content))
        (scratch / "train.txt").write_bytes(content[:end])
        (scratch / "eval.txt").write_bytes(content[end:])
    return scratch


def measure(
    task: str, name: str, seed: int, texts: Path, root: Path, folder: Path = FOLDER
) -> dict[str, float]:
    """Runs a record with a seed; returns value, seconds, parameters and tokens."""
    entry = entry_of(task, name, folder)
    if entry.peer:
        peer = importlib.import_module(f"{__package__}.{entry.peer}")
        return peer.measure(texts, seed)  # type: ignore[no-any-return]
    from langzoo.pipelines.local import runner
    from langzoo.pipelines.local.console import libraries_to_log
    from langzoo.pipelines.report.reading import Runs

    with libraries_to_log(root / "log") as console:
        if entry.pretraining:
            before = pretraining(task, name, seed, texts, root, folder)
            runner.execute(before, console, compared=True)
        config = configured(task, name, seed, texts, root, folder)
        run_id = runner.execute(config, console, compared=True)
    run = Runs(config.folder).read(run_id)
    assert run.training is not None
    metric = task_of(task, folder).metric
    return {
        "value": run.training.eval_loss
        if metric == "eval_loss"
        else run.metrics[metric].value,
        "seconds": run.training.seconds,
        "parameters": run.training.parameters,
        "tokens": run.training.tokens_seen,
    }


def main(only: str, seeds: int, texts: Path | None, folder: Path = FOLDER) -> None:
    """Runs the records whose `TASK/NAME` holds a text, and prints their table."""
    found = []
    for task, name in entries(folder):
        if only not in f"{task}/{name}":
            continue
        told = task_of(task, folder)
        if reason := lacking(told, texts):
            print(f"{task}/{name} is left out: {reason}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as root:
            corpus = laid_out(told, texts, Path(root))
            count = min(seeds, entry_of(task, name, folder).seeds)
            runs = [
                measure_apart(__name__, task, name, seed, corpus, root, folder)
                for seed in range(count)
            ]
        result = _result(task, name, runs)
        with open(folder / RESULTS, "a", encoding="utf-8") as file:
            print(json.dumps(result.model_dump()), file=file)
        found.append(result)
    _print(found, folder)


def _result(task: str, name: str, runs: list[dict[str, float]]) -> Result:
    return Result(
        task=task,
        name=name,
        date=datetime.date.today().isoformat(),
        commit=_commit(),
        parameters=round(runs[0]["parameters"]),
        tokens=round(runs[0]["tokens"]),
        seconds=statistics.median(run["seconds"] for run in runs),
        values=[run["value"] for run in runs],
    )


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(FOLDER), *arguments]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    # What was measured before is no change of what is measured.
    others = (":/", f":(exclude){RESULTS}")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *others)
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def results(folder: Path = FOLDER) -> list[Result]:
    """All that was measured, the oldest first."""
    path = folder / RESULTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Result.parse(line) for line in lines]


def beats(result: Result, before: list[Result], task: Task) -> str:
    """Whether the mean is better than all that were measured before, in a word or two.

    What has spent more than the budget has no record.
    """
    if not result.keeps(task.budget):
        return "over the budget"
    others = [
        other.mean
        for other in before
        if (other.task, other.name) != (result.task, result.name)
        and other.task == result.task
        and other.keeps(task.budget)
    ]
    if not others:
        return "first"
    best = (min if task.better == "lower" else max)(others)
    is_better = result.mean < best if task.better == "lower" else result.mean > best
    return f"{'yes' if is_better else 'no'}, {best:.4g}"


_HEADS = ("record", "date", "commit", "parameters", "tokens", "seconds")
_LAST = "better than all before"


def rows(task: str, folder: Path = FOLDER) -> Iterator[tuple[str, ...]]:
    """Yields what is told of each record of a task, as it was measured last."""
    told, known = task_of(task, folder), results(folder)
    for of_task, name in entries(folder):
        if of_task != task:
            continue
        places = [i for i, r in enumerate(known) if (r.task, r.name) == (task, name)]
        if not places:
            yield (name, *[""] * (len(_HEADS) - 1), "not measured yet", "")
            continue
        result = known[places[-1]]
        yield (*_cells(result), beats(result, known[: places[-1]], told))


def tables(folder: Path = FOLDER) -> str:
    """The tables of all tasks in Markdown, for people."""
    parts = []
    for task in dict.fromkeys(task for task, _ in entries(folder)):
        told = task_of(task, folder)
        bounds = told.budget.model_dump(exclude_none=True)
        spent = ", ".join(f"{most:,.0f} {name}" for name, most in bounds.items())
        lines = [heads(told), ("---", "---", "---", *["---:"] * 4, "---")]
        for name, *cells in rows(task, folder):
            path = (folder / task / f"{name}.yaml").relative_to(folder.parents[1])
            lines.append((f"[{name}](../{path})", *cells))
        parts += [
            f"### {told.title}",
            f"Budget: at most {spent}.",
            "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        ]
    return "\n\n".join(parts)


def heads(task: Task) -> tuple[str, ...]:
    """Those of `rows`."""
    return (*_HEADS, task.unit, _LAST)


def _cells(result: Result) -> tuple[str, ...]:
    counts = f"{result.parameters:,}", f"{result.tokens:,}", f"{result.seconds:.0f}"
    return (result.name, result.date, result.commit, *counts, result.told)


def _print(found: list[Result], folder: Path) -> None:
    for task in dict.fromkeys(result.task for result in found):
        told = task_of(task, folder)
        names = {result.name for result in found if result.task == task}
        table = table_of(told.title, *heads(told), left="record")
        for cells in rows(task, folder):
            if cells[0] in names:
                table.add_row(*cells)
        show(table)


def _main(task: str, name: str, seed: str, *folders: str) -> dict[str, float]:
    return measure(task, name, int(seed), *map(Path, folders))


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
