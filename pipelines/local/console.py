"""What a run shows on the terminal: the node at work, its time and its own words."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ...serving.wording import visible

_NAME_WIDTH = 18
_INDENT = 30  # Past a node's name and time.


@contextlib.contextmanager
def libraries_to_log(log_path: Path) -> Iterator[Console]:
    """Sends this process's standard output and error to a file.

    TFX, Beam and TensorFlow write thousands of lines, some of them from C++, so it is
    the file descriptors that are redirected.

    Yields:
        A console on the real standard output.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with open(log_path, "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        with os.fdopen(os.dup(kept[0]), "w", buffering=1) as terminal:
            yield plain_console(terminal)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, copy in enumerate(kept, start=1):
            os.dup2(copy, descriptor)
            os.close(copy)


def plain_console(file: IO[str] | None = None) -> Console:
    """A console for words of others, in which nothing is markup, or acts.

    Args:
        file: Where it writes; standard output by default.
    """
    return _PlainConsole(file=file, highlight=False, markup=False, emoji=False)


class _PlainConsole(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


def new_table(**options: Any) -> Table:
    """A table as all commands print it."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), **options)


def spinner(console: Console, message: str) -> Live:
    """A line that shows work going on; used in a `with` statement.

    Rich would show what is written to standard output and error meanwhile; here
    these are the libraries', and stay in the log.
    """
    return Live(
        Spinner("dots", Text(message)),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class NodeProgress(logging.Handler):
    """Shows which node of a pipeline is at work, what it says and how long it took.

    Components speak by the logger `langzoo` (see `components.progress`).

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._live: Live | None = None
        self._node = ""
        self._started = 0.0

    @contextlib.contextmanager
    def attached(self) -> Iterator[NodeProgress]:
        """Listens to the components for the length of a `with` statement."""
        logger = logging.getLogger("langzoo")
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        try:
            yield self
        finally:
            logger.removeHandler(self)
            logger.setLevel(level)
            self._stop_live()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record of a component."""
        message = record.getMessage()
        if not getattr(record, "transient", False):
            self._print(f"{'':{_INDENT}}{message}", style="dim")
        elif self._live:
            self._live.update(Spinner("dots", Text(self._line(message))))

    def start(self, node: str) -> None:
        """Shows that a node is at work."""
        self._node, self._started = node, time.monotonic()
        if self._console.is_terminal:
            self._live = spinner(self._console, self._line(""))
            self._live.start()

    def finish(self, *, cached: bool) -> None:
        """Shows that the node has ended, and its time."""
        self._stop_live()
        seconds = time.monotonic() - self._started
        took = "cached" if cached else f"{seconds:.1f} s"
        self._print(f"  {self._node:{_NAME_WIDTH}}{took:>8}")

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(line, style=style, soft_wrap=True)

    def _line(self, message: str) -> str:
        # Room for the spinner; a line that the terminal wraps is not cleared whole.
        width = max(self._console.width - 4 - _NAME_WIDTH, 1)
        lines = textwrap.wrap(message, width) or [""]
        first = f"{self._node:{_NAME_WIDTH}}{lines[0]}"
        return "\n".join([first, *(f"{'':{_NAME_WIDTH}}{line}" for line in lines[1:])])

    def _stop_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
