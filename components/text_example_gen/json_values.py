"""The values of JSON, as a stream: of an array, or one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from .streams import BrokenOffError, UnusableError

_CHUNK = 1 << 16
_LARGEST = 1 << 28  # characters of one value
_LONGEST_WORD = 16  # more than any that an error may be about because it is cut off
_CUT_SHORT = "cut short: its JSON has no end"
_BETWEEN = re.compile(r"[\s,]*")


def read_values(stream: TextIO, path: str) -> Iterator[Any]:
    """Yields values that stand one after the other, and of arrays their elements.

    Args:
        stream: The text.
        path: What an error names.

    Raises:
        BrokenOffError: Where an array or a value has no end.
        UnusableError: Where it is not JSON.
    """
    text = _Text(stream)
    is_array = False
    while first := text.skip():
        if first in "[]" and is_array == (first == "]"):
            is_array = not is_array
            text.at += 1
            continue
        try:
            yield text.value()
        except EOFError as error:
            raise BrokenOffError(path, _CUT_SHORT) from error
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UnusableError(f"not JSON ({reason})") from error
    if is_array:
        raise BrokenOffError(path, _CUT_SHORT)


class _Text:
    """What has been read of a text and not been used."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._is_all = False
        self._decoder = json.JSONDecoder()
        self.at = 0

    def skip(self) -> str:
        """Passes white space and commas; returns what follows, "" at the end."""
        while True:
            found = _BETWEEN.match(self._text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self._text):
                return self._text[self.at]
            if not self._read_on():
                return ""

    def value(self) -> Any:
        """Reads the value that begins here."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.at)
            except json.JSONDecodeError as error:
                left = len(self._text) - error.pos
                if left >= _LONGEST_WORD and "Unterminated" not in error.msg:
                    raise
                if not self._read_on():
                    raise EOFError from error
                continue
            if end < len(self._text) or not self._read_on():
                self.at = end
                return value

    def _read_on(self) -> bool:
        """Reads as much again as there is; says whether there was more."""
        rest = self._text[self.at :]
        if len(rest) > _LARGEST:
            raise ValueError(f"a value of more than {_LARGEST:,} characters")
        more = "" if self._is_all else self._stream.read(max(_CHUNK, len(rest)))
        self._is_all = not more
        self._text, self.at = rest + more, 0
        return bool(more)
