"""Files of a word a line, as the shared tasks of CoNLL have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .settings import SourceSettings
from .values import WHITE_SPACE

_BLANK = " \t\n\r\v\f"
_BEGINS_DOCUMENT = "-DOCSTART-"
_FIRST = str(SourceSettings.model_fields["text_field"].default)


class Sentence(NamedTuple):
    """Some lines: what their columns say, or why that cannot be known.

    Attributes:
        line: Number of the first one, from 1.
        columns: The values of each column with blanks in between, by its number from 1,
            and from -1 at the end; the first one also by the default name of a text.
        problem: Why there are none.
    """

    line: int
    columns: dict[str, str]
    problem: str = ""


def read_sentences(lines: Iterable[str], delimiter: str | None) -> Iterator[Sentence]:
    """The sentences of lines, between which blank lines stand.

    Left out are lines that only say that a document begins, and comments: what begins
    with `#` and has not as many columns as the last line of its sentence.

    Args:
        lines: The lines, each with its end.
        delimiter: What stands between columns; `None` for a tab where a line has one,
            and else white space.
    """
    first, rows = 1, list[list[str]]()
    for number, line in enumerate(lines, 1):
        if line := line.rstrip(_BLANK):
            first = first if rows else number
            rows.append(_columns(line, delimiter))
        elif rows:
            yield from _sentence(first, rows)
            rows = []
    if rows:
        yield from _sentence(first, rows)


def _columns(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None and "\t" not in line:
        return WHITE_SPACE.split(line)
    return line.split(delimiter or "\t")


def _sentence(first: int, rows: list[list[str]]) -> Iterator[Sentence]:
    width = len(rows[-1])
    kept = [
        (first + number, row)
        for number, row in enumerate(rows)
        if row[0] != _BEGINS_DOCUMENT
        and (len(row) == width or not row[0].startswith("#"))
    ]
    for number, row in kept:
        if len(row) != width:
            problem = f"{len(row)} columns, and {width} at the end of the sentence"
            yield Sentence(number, {}, problem)
            return
    if not kept:
        return
    values = list(zip(*(row for _, row in kept), strict=True))
    for column, found in enumerate(values, 1):
        for (number, _), value in zip(kept, found, strict=True):
            if not value or WHITE_SPACE.search(value):
                what = f"white space in {value!r}" if value else "nothing"
                yield Sentence(number, {}, f"{what} in column {column}")
                return
    numbered = {str(number): " ".join(one) for number, one in enumerate(values, 1)}
    from_the_end = {str(number - width): " ".join(v) for number, v in enumerate(values)}
    yield Sentence(first, {_FIRST: numbered["1"], **numbered, **from_the_end})
