"""How components tell a person what they do.

Components log to the logger `langzoo`. The command line shows those records on the
terminal while the libraries' own logs go to a file; elsewhere they are ordinary logs.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from ..serving.wording import in_one_line

LOGGER = logging.getLogger("langzoo")


def report(message: str) -> None:
    """Shows one line that stays."""
    LOGGER.info(in_one_line(message))


def show(message: str) -> None:
    """Shows a state that the next one replaces, such as a training step."""
    LOGGER.info(in_one_line(message), extra={"transient": True})


@contextlib.contextmanager
def as_part(prefix: str) -> Iterator[None]:
    """Puts a prefix before what is told within it, of which only warnings stay."""

    def change(record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith("warning"):
            record.transient = True
        record.msg = f"{prefix}{record.msg}"
        return True

    LOGGER.addFilter(change)
    try:
        yield
    finally:
        LOGGER.removeFilter(change)
