"""What the commands share: the application, options, errors in a line, tables, JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .. import __version__
from ..components.errors import printable
from ..serving.wording import visible, visible_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..pipelines.configuration.config import Config
    from ..pipelines.configuration.loading import Setting
    from ..pipelines.local.runner import RunResult

EXIT_ERROR = 1
EXIT_REFUSED = 3
EXIT_SERVING_REFUSED = 4
EXIT_INTERRUPTED = 130


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="From raw text to a gated, served language model.",
    pretty_exceptions_enable=False,
)
ConfigFile = Annotated[
    Path | None,
    typer.Argument(metavar="[CONFIG.yaml]", help="Configuration; default: the demo's."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a key, such as trainer.steps=500."
    ),
]
Corpus = Annotated[
    str | None,
    typer.Option(help="A file, a folder or a pattern, such as 'texts/*.txt'."),
]


def main() -> None:
    """Runs the command line."""
    # Beam's workers, too, take no module of the working directory for an installed one.
    os.environ["PYTHONSAFEPATH"] = "1"
    app()


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"langzoo {__version__}")
        raise typer.Exit


def load_config(
    path: Path | None,
    corpus: str | None = None,
    strict: bool = False,
    settings: list[str] | None = None,
) -> Config:
    """Reads the configuration; a mistake in it ends the command in a line."""
    from ..pipelines.configuration.loading import ConfigError, load

    try:
        return load(path, changes_of(corpus, strict, settings, names=path is None))
    except ConfigError as error:
        fail(str(error))


def changes_of(
    corpus: str | None = None,
    strict: bool = False,
    settings: list[str] | None = None,
    *,
    names: bool = False,
) -> list[Setting]:
    """What options change of the configuration.

    Args:
        corpus: The value of --corpus.
        strict: Whether there is a --strict.
        settings: The values of --set.
        names: Whether a corpus gives the pipeline its name, where none is set.
    """
    changes: list[Setting] = [*(settings or [])]
    if corpus is not None:
        from ..components.text_example_gen import demo_corpus
        from ..pipelines.configuration.loading import name_of

        changes.append(("corpus.path", corpus))
        if names and corpus != demo_corpus.NAME:
            # A name that is set goes over it.
            changes.insert(0, ("name", name_of(corpus)))
    if strict:
        changes.append(("corpus.strict", True))
    return changes


@contextlib.contextmanager
def quiet(
    config: Config, silent: bool = False, logs: Path | None = None
) -> Iterator[Console]:
    """Sends the libraries' words to a log, in a folder; gives the console for ours."""
    from ..components import storage
    from ..pipelines.local.console import libraries_to_log

    log = (logs or config.folder / "logs") / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}.log"
    try:
        # The push folder is in it, unless another is set.
        storage.make_passable(log.parent.parent)
        log.parent.mkdir(exist_ok=True)
        log.touch()
    except OSError as error:
        fail(
            f"{log.parent} cannot be written ({error.strerror}): set root to a folder "
            "that can be written"
        )
    with libraries_to_log(log) as console:
        console.quiet = silent
        console.print(f"the libraries' log is {log}", soft_wrap=True)
        yield console


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Turns what a user can cause into one line and a status."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted, what is done is kept; to go on: {_this_command()}", err=True
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        from ..components.errors import InputError

        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        if cause is None:
            raise
        fail(str(cause))


def _this_command() -> str:
    called = Path(sys.argv[0])
    by_module = called.name == "__main__.py"
    name = ["python", "-m", "langzoo"] if by_module else [called.name]
    return shlex.join([*name, *sys.argv[1:]])


def fail(message: str) -> NoReturn:
    """Ends the command with one line."""
    typer.echo(visible(f"langzoo: {message}"), err=True)
    raise typer.Exit(EXIT_ERROR)


def exit_with(result: RunResult) -> None:
    """Ends the command with the status of a run, if that is not 0."""
    if not result.decision.blessed:
        raise typer.Exit(EXIT_REFUSED)
    if result.infra_refusal:
        raise typer.Exit(EXIT_SERVING_REFUSED)


def new_table(**options: Any) -> Table:
    """A table as all commands print it."""
    from ..pipelines.local import console

    return console.new_table(**options)


def print_table(table: Table) -> None:
    """Prints a table on standard output."""
    from ..pipelines.local.console import plain_console

    plain_console().print(table)


def short(number: float | None) -> str:
    """A count in three digits or four, such as `124.4 M`."""
    if number is None:
        return "-"
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:#.4g}{unit}"
        number /= 1000
    return f"{number:#.4g} G"


def fields_of(result: Any) -> dict[str, Any]:
    """The fields of a dataclass, nested ones too."""
    return dataclasses.asdict(result)


def print_text(text: str) -> None:
    """Prints a text of a model's or the user's: on a terminal so that nothing acts.

    Whoever reads standard output else gets every byte as it is.
    """
    if sys.stdout.isatty():
        typer.echo(visible(text))
    else:
        typer.echo(text.encode("utf-8", "surrogateescape"))


def print_json(**values: Any) -> None:
    """Prints one line of JSON, in which control characters are escaped."""
    shown = {name: _json_value(value) for name, value in values.items()}
    typer.echo(visible_json(json.dumps(shown, ensure_ascii=False)))


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON knows neither infinity nor what is no number
    return printable(value) if isinstance(value, str) else value
