"""Text of others where people read it: nothing in it acts, or begins a line.

Texts of models, corpora and requests may hold what a terminal obeys, such as the escape
sequences of ANSI, or line breaks with which they would forge the lines of a log.
"""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

# Control characters but tab and line feed, other line breaks, what turns the direction
# of writing around, and what is no character.
_ACTS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
    r"\ud800-\udfff]"
)
# How parts of a traceback begin that are not an error's own words.
_OF_CODE = ("Traceback ", "  File ", "\nDuring ", "\nThe above ")
_BREAKS = re.compile(rf"[\t\n]|{_ACTS.pattern}")


def visible(text: str) -> str:
    r"""Shows control characters as Python writes them, such as `\x1b`.

    Tabs and line feeds stay as they are.
    """
    return _ACTS.sub(_escaped, text)


def in_one_line(text: str) -> str:
    r"""Shows tabs and line feeds, too, as `\t` and `\n`."""
    return _BREAKS.sub(_escaped, text)


def visible_json(text: str) -> str:
    """Shows control characters as JSON writes them, of which it lets some stand."""
    return _ACTS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    # Bytes that were no UTF-8 are characters of their own, U+DC80 to U+DCFF.
    is_byte = "\udc80" <= found[0] <= "\udcff"
    character = chr(ord(found[0]) - 0xDC00) if is_byte else found[0]
    return character.encode("unicode_escape").decode()


class LineFormatter(logging.Formatter):
    """Writes what a record or its error says as one line each."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's own line."""
        return in_one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """The lines of code that led to an error, and what it says."""
        parts = (part.rstrip("\n") for part in traceback.format_exception(*ei))
        return "\n".join(
            part if part.startswith(_OF_CODE) else in_one_line(part) for part in parts
        )


def log_in_lines() -> None:
    """Has this process's loggers write to standard error as `LineFormatter` does."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler])
