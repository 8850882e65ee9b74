"""What a run shows on the terminal: the node at work, its time and its own words."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

_NAME_WIDTH = 18


@contextlib.contextmanager
def libraries_to_log(log_path: Path) -> Iterator[Console]:
    """Sends this process's standard output and error to a file.

    TFX, Beam and TensorFlow write thousands of lines, some of them from C++, so it is
    the file descriptors that are redirected.

    Yields:
        A console on the real standard output.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with open(log_path, "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        with os.fdopen(os.dup(kept[0]), "w", buffering=1) as terminal:
            yield Console(file=terminal, highlight=False)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for descriptor, copy in enumerate(kept, start=1):
            os.dup2(copy, descriptor)
            os.close(copy)


class NodeProgress(logging.Handler):
    """Follows a pipeline through its log records.

    TFX's LocalDagRunner has no callbacks; it logs when a node starts and ends. The
    components' own lines come by the logger `langzoo` (see `components.progress`).

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._status: Status | None = None
        self._node = ""
        self._cached = False
        self._started = 0.0
        self.executed: list[str] = []
        """Nodes that did work; the others' results came from the cache."""

    @contextlib.contextmanager
    def attached(self) -> Iterator[NodeProgress]:
        """Listens for the length of a `with` statement."""
        absl, ours = logging.getLogger("absl"), logging.getLogger("langzoo")
        levels = absl.level, ours.level
        for logger in (absl, ours):
            logger.setLevel(logging.INFO)
            logger.addHandler(self)
        try:
            yield self
        finally:
            for logger, level in zip((absl, ours), levels, strict=True):
                logger.removeHandler(self)
                logger.setLevel(level)
            self._stop_status()

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a record of the components, or follows TFX's."""
        if record.name == "langzoo":
            self._show(record.getMessage(), getattr(record, "transient", False))
        elif record.msg == "Component %s is running.":
            self._start(str(record.args[0]))  # type: ignore[index]
        elif record.msg == "A cached execution %d is used.":
            self._cached = True
        elif record.msg == "Component %s is finished.":
            self._finish()

    def _start(self, node: str) -> None:
        self._node, self._cached, self._started = node, False, time.monotonic()
        if self._console.is_terminal:
            self._status = self._console.status(self._state(""))
            self._status.start()

    def _show(self, message: str, transient: bool) -> None:
        if not transient:
            self._console.print(Text(f"{'':{_NAME_WIDTH + 2}}{message}", style="dim"))
        elif self._status:
            self._status.update(self._state(message))

    def _finish(self) -> None:
        self._stop_status()
        if not self._cached:
            self.executed.append(self._node)
        seconds = time.monotonic() - self._started
        took = "cached" if self._cached else f"{seconds:.1f} s"
        self._console.print(Text(f"  {self._node:{_NAME_WIDTH}}{took:>8}"))

    def _state(self, message: str) -> Text:
        return Text(f"{self._node:{_NAME_WIDTH}}{message}")

    def _stop_status(self) -> None:
        if self._status:
            self._status.stop()
            self._status = None
