"""Commands that run the pipeline, here or compiled."""

from __future__ import annotations

import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import __version__, importing
from .common import (
    ConfigFile,
    Corpus,
    Settings,
    app,
    exit_with,
    load_config,
    new_table,
    print_json,
    print_table,
    print_text,
    quiet,
    reported_errors,
    short,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..pipelines.configuration.config import Config
    from ..pipelines.kubeflow.resources import Resources
    from ..pipelines.local.runner import RunResult

_DEMO_PROMPT = "Return the number of"
_DEMO_NEW_TOKENS = 24


@app.command()
def run(
    config: ConfigFile = None,
    corpus: Corpus = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse files or records that cannot be used."),
    ] = False,
    accept_baseline: Annotated[
        bool,
        typer.Option(
            "--accept-baseline",
            help="Bless the model though it be no better than the last blessed one.",
        ),
    ] = False,
    settings: Settings = None,
) -> None:
    """Run the pipeline: text in, a gated model pushed.

    Ends with status 0 where the model is pushed (or was already), 3 where the gate
    refuses it, 4 where the model server does, 1 for an error.
    """
    loaded = load_config(config, corpus, strict, settings)
    exit_with(_run(loaded, accept_baseline))


# What learns most in its time, if it is better than counting.
_OF_DEMO = (
    "model.family=mixture",
    "gate.rules=[{metric: bits_per_byte, against: ngram, significant: true}]",
)


@app.command()
def demo() -> None:
    """Run the demo: pipeline, server, a question to it, a table of what happened.

    It is `langzoo run` with a mixture of an LSTM and n-grams, which the gate holds
    against n-grams alone.
    """
    from ..pipelines.configuration.loading import load

    config = load(settings=_OF_DEMO)
    result = _run(config)
    rows = _summary_rows(config, result)
    if result.pushed is not None:
        rows += _ask(result.pushed.parent)
    _print_table(rows)
    exit_with(result)


@app.command("compile")
def compile_command(
    output: Annotated[Path, typer.Option(help="File to write, .yaml or .json.")],
    config: ConfigFile = None,
    corpus: Corpus = None,
    settings: Settings = None,
) -> None:
    """Compile the pipeline for Kubeflow Pipelines."""
    loaded = load_config(config, corpus, settings=settings)
    # The root is one of the cluster's, which is not seen from here.
    logs = Path(tempfile.mkdtemp(prefix="langzoo-"))
    with reported_errors(), quiet(loaded, logs=logs):
        with importing():
            from ..pipelines.kubeflow.compiler import compile_pipeline

        compile_pipeline(loaded, output)
    typer.echo(f"wrote {output}")


@app.command()
def rehearse(
    specification: Annotated[
        Path, typer.Argument(metavar="PIPELINE.yaml", help="What compile has written.")
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set a pipeline parameter."),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(help="Folder or store for artifacts; default: PIPELINE.yaml's."),
    ] = None,
) -> None:
    """Execute a compiled pipeline on this machine, container by container."""
    with reported_errors():
        from ..pipelines.kubeflow import rehearsal

        result = rehearsal.rehearse(specification, parameters or [], root, print_text)
        pushed = result.outputs.get("Pusher", {}).get("pushed_model", {})
        version = pushed.get("metadata", {}).get("pushed_destination")
    _print_resources(result.resources)
    typer.echo(f"version {version}" if version else "nothing was pushed")
    typer.echo(f"each task's input, output and log are in {result.folder}")


@app.command()
def worker(
    config: ConfigFile = None, corpus: Corpus = None, settings: Settings = None
) -> None:
    """Take part in the training of a run elsewhere, as TF_CONFIG says.

    The configuration's root must be the run's own, on storage that both reach.
    """
    from ..pipelines.local.console import NodeProgress

    loaded = load_config(config, corpus, settings=settings)
    with (
        reported_errors(),
        quiet(loaded) as console,
        NodeProgress(console).attached() as progress,
    ):
        progress.start("Worker")
        with importing():
            from ..components.trainer import workers

        workers.work(loaded.checkpoint_root)
        progress.finish(cached=False)


@app.command()
def models(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one line a preset.")
    ] = False,
) -> None:
    """List the presets: parameters, context, floating-point operations a token."""
    from ..models.families.presets import PRESETS

    if not as_json:
        _print_presets()
        return
    for name, preset in PRESETS.items():
        size = preset.size._asdict() if preset.size else {}
        print_json(preset=name, **preset.described(), **size)


def _run(config: Config, accept_baseline: bool = False) -> RunResult:
    from ..pipelines.local.console import spinner

    started = time.monotonic()
    with reported_errors(), quiet(config) as console:
        console.print(f"langzoo {__version__}, pipeline {config.name}")
        with spinner(console, "importing TFX"), importing():
            from ..pipelines.local import runner
            from ..pipelines.local.decision_table import print_decision
        result = runner.run(config, console, accept_baseline=accept_baseline)
        if not result.executed:
            console.print("nothing has changed: every result came from the cache")
        if result.search:
            trials, best = len(result.search), result.search[0]
            console.print(f"best of {trials} trials: {best}", soft_wrap=True)
        print_decision(console, result.decision)
        if result.decision.not_compared:
            console.print(
                "to bless it without that comparison: --accept-baseline", soft_wrap=True
            )
        if result.infra_refusal:
            console.print(f"not pushed: {result.infra_refusal}", soft_wrap=True)
        elif result.destination:
            folder, _, version = result.destination.rpartition("/")
            console.print(f"version {version} is in {folder}", soft_wrap=True)
        _print_where_to_look(console, result.training_folder)
        if result.report:
            console.print(f"report: {result.report}", soft_wrap=True)
        console.print(f"took {time.monotonic() - started:.0f} s")
    return result


def _print_where_to_look(console: Console, folder: Path) -> None:
    tables = ", ".join(sorted(path.name for path in folder.glob("*.csv")))
    if tables:
        console.print(f"the training's course is in {folder}: {tables}", soft_wrap=True)
    if any(folder.glob("*/events.out.tfevents.*")):
        command = shlex.join(["tensorboard", "--logdir", str(folder)])
        console.print(f"look: {command}", soft_wrap=True)


def _summary_rows(config: Config, result: RunResult) -> list[tuple[str, str]]:
    measures = result.decision.evaluation.candidate
    documents = result.ingestion.documents
    training = result.training
    return [
        (
            "documents",
            f"{documents['train']:,} + "
            f"{result.decision.evaluation.documents:,} for evaluation",
        ),
        ("tokens", f"{training.train_tokens:,} for training"),
        ("model", f"{config.model.family}, {training.parameters:,} parameters"),
        ("training", f"{training.steps} steps, {training.seconds:.0f} s"),
        ("perplexity", f"{measures['perplexity'].value:.2f} a token"),
        (result.decision.task.words, f"{result.decision.value:.3f}"),
        ("decision", str(result.decision)),
        ("version", result.pushed.name if result.pushed else "none pushed"),
    ]


def _ask(push_folder: Path) -> list[tuple[str, str]]:
    """Starts a server on the pushed model and asks it over gRPC."""
    from ..serving.client import Client
    from ..serving.server.process import running_server

    typer.echo("starting the model server and asking it over gRPC")
    with running_server(str(push_folder)) as address, Client(address) as client:
        client.wait_until_ready(timeout=120)
        (score,) = client.score([_DEMO_PROMPT])
        (generation,) = client.generate(
            [_DEMO_PROMPT], max_new_tokens=_DEMO_NEW_TOKENS, temperature=0.0
        )
    return [
        (f"score of {_DEMO_PROMPT!r}", f"{score.bits:.1f} bits, {score.tokens} tokens"),
        ("continuation", f"{_DEMO_PROMPT}{generation.text}"),
    ]


def _print_table(rows: list[tuple[str, str]]) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    print_table(table)


def _print_resources(resources: dict[str, Resources]) -> None:
    table = new_table()
    table.add_column("task", no_wrap=True)
    for heading in ("wall, s", "CPU, s", "memory at most, MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, took in resources.items():
        wall, cpu = f"{took.wall_seconds:.1f}", f"{took.cpu_seconds:.1f}"
        table.add_row(name, wall, cpu, f"{took.peak_memory_bytes / 1e6:,.0f}")
    print_table(table)


def _print_presets() -> None:
    from ..models.families.presets import PRESETS

    table = new_table(
        caption="Parameters are for that vocabulary, FLOPs a token's, of a forward "
        "pass over a full context."
    )
    table.add_column("preset", no_wrap=True)
    table.add_column("family", no_wrap=True)
    for heading in ("parameters", "vocab", "context", "FLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, preset in PRESETS.items():
        parameters, flops = map(short, preset.size or (None, None))
        vocabulary, context = preset.vocabulary_size, preset.context_length
        table.add_row(
            *(name, preset.family, parameters, f"{vocabulary:,}", f"{context:,}", flops)
        )
    print_table(table)
