"""Rows of delimited text, of which one stray quote costs no more than its line."""

from __future__ import annotations

import collections
import csv
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .streams import UnusableError

_QUOTED = 1 << 24  # characters that a quoted field may have

# The module's own limit of 128 KiB is less than a long article.
csv.field_size_limit(sys.maxsize)


class Row(NamedTuple):
    """Some lines: their columns, or why they have none."""

    line: int
    """Number of the first one, from 1."""
    lines: int
    columns: list[str]
    problem: str = ""


class Rows:
    """The rows of delimited text behind its header.

    Where a quote stays open, or what follows makes no sense, and most of the lines that
    it took would be rows themselves, only the first of them is lost.

    Args:
        lines: The lines, each with its end.
        delimiter: What stands between columns.
        name: `CSV` or `TSV`. TSV has quotes as a spreadsheet writes them; a line that
            is none so, such as `"a" and b`, is read as it is.

    Raises:
        UnusableError: Where the header is none.
    """

    def __init__(self, lines: Iterator[str], delimiter: str, name: str) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self._name = name
        self._waiting: collections.deque[str] = collections.deque()
        self._taken: list[str] = []
        self._next = 1
        self._width = 0  # any, until the header is read
        self._reader = self._new_reader()
        header = next(iter(self), None)
        if header is not None and header.problem:
            raise UnusableError(f"line {header.line}: {header.problem}")
        self.header = header.columns if header else []
        self._width = len(self.header)

    def __iter__(self) -> Iterator[Row]:
        while True:
            self._taken.clear()
            problem, columns = "", []
            try:
                columns = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"not {self._name} ({error})"
            if columns or problem:
                yield self._row(columns, problem)
            else:
                self._next += len(self._taken)

    def _row(self, columns: list[str], problem: str) -> Row:
        width = self._width or len(columns)
        if columns and len(columns) != width:
            problem = f"{len(columns)} columns where the header has {width}"
        used = len(self._taken)
        if self._name == "TSV" and (problem or used > 1):
            as_written = [
                line.rstrip("\r\n").split(self._delimiter) for line in self._taken
            ]
            fits = [len(one) == width for one in as_written]
            if all(fits) or (problem and fits[0]):
                columns, problem, used = as_written[0], "", 1
        if problem and self._are_mostly_rows(self._taken[1:]):
            used = 1
        if problem or used < len(self._taken):
            self._waiting.extendleft(reversed(self._taken[used:]))
            self._reader = self._new_reader()
        self._next += used
        return Row(self._next - used, used, columns, problem)

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self._take(), delimiter=self._delimiter, strict=True)

    def _take(self) -> Iterator[str]:
        size = 0
        while True:
            line = self._waiting.popleft() if self._waiting else next(self._lines, None)
            if line is None:
                return
            size = size + len(line) if self._taken else len(line)
            self._taken.append(line)
            if size > _QUOTED:
                raise csv.Error(f"a quote that is open for {_QUOTED:,} characters")
            yield line

    def _are_mostly_rows(self, lines: list[str]) -> bool:
        return 2 * sum(map(self._is_row, lines)) > len(lines)

    def _is_row(self, line: str) -> bool:
        try:
            (columns,) = csv.reader([line], delimiter=self._delimiter, strict=True)
        except (csv.Error, ValueError):
            return False
        return len(columns) == self._width and line.count('"') % 2 == 0
