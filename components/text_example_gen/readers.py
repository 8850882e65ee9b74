"""Reading a file into documents, as a stream: memory holds one document at a time."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import printable
from . import archives, formats, hubs
from .conll import read_sentences
from .documents import Document
from .files import pair_name
from .json_values import read_values
from .parquet import read_parquet
from .rows import Rows
from .settings import SourceSettings
from .streams import (
    BrokenOffError,
    UnlikeError,
    UnusableError,
    decompressed,
    open_stream,
)
from .values import (
    BLANKS,
    Broken,
    document_of,
    is_unicode,
    make_document,
    no_field,
    no_text_of,
    unify_line_ends,
)

_AROUND_JSON = " \t\n\ufeff"
_HEAD = 1 << 13  # bytes that say whether a file is text
_LARGEST = 1 << 28  # bytes or characters of a document, or of a line
_TOO_LARGE = f"more than {_LARGEST >> 20} MB in one document, or in one line"
_WAITS = (1, 5)  # seconds before what broke off is read again


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file of an archive, or a line, that no one means, and what it is."""

    name: str
    what: str


Item = Document | Broken | LeftOut


def read(path: str, source: SourceSettings) -> Iterator[Item]:
    """Reads the documents of a file or dataset.

    A document's id is the path, and `#` with its number in the file (from 0, broken
    records counted) where the file holds many. What breaks off is read again from its
    beginning, some times, to where it was.

    Args:
        path: One of the source's files.
        source: How it is read.

    Raises:
        BrokenOffError: Where reading breaks off for good.
        UnusableError: Where the file, or what is left of it, cannot be used.
    """
    num_given = 0
    waits = iter(_WAITS)
    while True:
        try:
            for item in itertools.islice(_read(path, source), num_given, None):
                num_given += 1
                yield item
            return
        except OSError as error:  # Such as a full disk.
            raise BrokenOffError.of(path, error) from error
        except BrokenOffError as error:
            wait = next(waits, None)
            if error.lasting or wait is None:
                raise
            time.sleep(wait)


def _read(path: str, source: SourceSettings) -> Iterator[Item]:
    if hubs.is_dataset(path):
        yield from _documents(path, source, "record", enumerate(hubs.read(path)))
        return
    if source.target:
        yield from _read_pairs(path, source.target, source)
        return
    with open_stream(path) as stream:
        if not stream.peek(1):
            return
        name = printable(path)
        archive_format = formats.kind_of(name).format
        if archive_format not in formats.ARCHIVES:
            yield from _read_file(stream, name, source)
            return
        for member in archives.members(stream, archive_format, name):
            yield from _read_member(member, name, source)


def _read_member(
    member: archives.Member, path: str, source: SourceSettings
) -> Iterator[Item]:
    """Reads a file of an archive; where it cannot be used, that is a broken record."""
    unmeant = formats.left_out(member.name)
    if member.content is None or unmeant:
        yield LeftOut(member.name, unmeant[1] if unmeant else member.reason)
        return
    place = f"{path}/{member.name}"
    try:
        if formats.kind_of(place).format in formats.ARCHIVES:
            raise UnusableError("an archive in an archive")
        yield from _read_file(decompressed(member.content, place), place, source)
    except UnusableError as error:
        yield Broken(member.name, str(error))


def _read_file(
    stream: io.BufferedReader, path: str, source: SourceSettings
) -> Iterator[Document | Broken]:
    file_format = source.format_of(path)
    if file_format == "parquet":
        rows = enumerate(read_parquet(stream, path, source))
        yield from _documents(path, source, "row", rows, first=1)
        return
    head = stream.peek(_HEAD)[:_HEAD]
    encoding = formats.encoding_of(head, source.encoding)
    if reason := formats.why_no_text(head, encoding):
        raise UnusableError(reason)
    if file_format == formats.TEXT:
        yield from _read_text(stream, path, source, encoding)
    elif file_format == "conll":
        yield from _read_conll(stream, path, source, encoding)
    elif file_format in ("csv", "tsv"):
        yield from _read_table(stream, path, source, file_format, encoding)
    elif _is_json_of_many_lines(stream, encoding):
        text = io.TextIOWrapper(stream, encoding, errors="surrogateescape")
        values = enumerate(read_values(text, path))
        yield from _documents(path, source, "record", values, encoding=encoding)
    else:
        yield from _read_json_lines(stream, path, source, encoding)


def _documents(
    path: str,
    source: SourceSettings,
    what: str,
    records: Iterable[tuple[int, Any]],
    first: int = 0,
    encoding: str = "utf-8",
) -> Iterator[Document | Broken]:
    for number, record in records:
        place = f"{what} {number + first}"
        yield document_of(path, source, number, place, record, encoding)


def split_lines(lines: Iterable[str], unit: str) -> Iterator[tuple[int, str]]:
    r"""Splits text into documents.

    Args:
        lines: The lines of the text, each with its `"\n"`.
        unit: `"paragraph"` or `"line"`.

    Yields:
        The number of its first line, from 1, and a document; none is blank.
    """
    start, piece, size = 1, [], 0
    for number, line in enumerate(lines, 1):
        # As the expression \n\s*\n sees it, blank needs a line end on either side.
        is_blank = number > 1 and line.isspace() and line.endswith("\n")
        if not is_blank:
            piece.append(line)
            size += len(line)
            if size > _LARGEST:
                raise UnusableError(_TOO_LARGE)
        if unit == "line" or is_blank:
            if document := without_blank_lines("".join(piece)):
                yield start, document
            start, piece, size = number + 1, [], 0
    if document := without_blank_lines("".join(piece)):
        yield start, document


def without_blank_lines(text: str) -> str:
    """Leaves out the blank lines around a text, and the end of its last line."""
    end = len(text.rstrip(BLANKS))
    if not end:
        return ""
    first = text.rfind("\n", 0, len(text) - len(text.lstrip(BLANKS))) + 1
    return text[first:end] + text[end:].partition("\n")[0]


def _lines(
    stream: io.BufferedReader, encoding: str, newline: str | None = None
) -> Iterator[str]:
    """The lines of a text, with lone surrogates for bytes that are none of it.

    Without a name for newlines, those of any system are translated.
    """
    text = io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline=newline)
    for line in iter(functools.partial(text.readline, _LARGEST), ""):
        if len(line) == _LARGEST:
            raise UnusableError(_TOO_LARGE)
        yield line


def _read_text(
    stream: io.BufferedReader, path: str, source: SourceSettings, encoding: str
) -> Iterator[Document | Broken]:
    if source.means_records:
        raise UnusableError(
            "text without fields: corpus.fields, corpus.text_field, "
            "corpus.label_field, corpus.target_field and corpus.split_by need JSON, "
            "CSV, TSV or Parquet, and corpus.tags_field one of these or format conll"
        )
    if source.documents == "file":
        content = stream.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise UnusableError(_TOO_LARGE)
        try:
            text = unify_line_ends(content.decode(encoding))
        except UnicodeDecodeError as error:
            reason = f"{no_text_of(encoding)} (byte {error.start})"
            raise UnusableError(reason) from error
        if text := without_blank_lines(text):
            yield make_document(path, text, path, source)
        return
    pieces = enumerate(split_lines(_lines(stream, encoding), source.documents))
    for number, (line, text) in pieces:
        if is_unicode(text):
            yield make_document(f"{path}#{number}", text, path, source)
        else:
            yield Broken(f"line {line}", no_text_of(encoding))


def _read_pairs(path: str, target_path: str, source: SourceSettings) -> Iterator[Item]:
    """Reads two files side by side: the lines of one, and their targets.

    A number is that of the line, from 0, whatever lines before it are.

    Raises:
        UnlikeError: Where one has more lines.
    """
    paths = printable(path), printable(target_path)
    with open_stream(path) as one, open_stream(target_path) as other:
        lines = [
            _lines_side_by_side(stream, name, source.encoding)
            for stream, name in zip((one, other), paths, strict=True)
        ]
        for number, pair in enumerate(itertools.zip_longest(*lines)):
            if None in pair:
                counts = [
                    number + (text is not None) + sum(1 for _ in rest)
                    for text, rest in zip(pair, lines, strict=True)
                ]
                raise UnlikeError(dict(zip(paths, counts, strict=True)))
            place = f"line {number + 1}"
            blank = [
                name for name, text in zip(paths, pair, strict=True) if not text.strip()
            ]
            if len(blank) == 2:
                yield LeftOut(place, "pairs of blank lines")
            elif blank:
                yield Broken(place, f"blank in {blank[0]}, and not in the other file")
            elif not all(map(is_unicode, pair)):
                yield Broken(place, f"not {source.encoding.upper()}")
            else:
                name = f"{pair_name(*paths)}#{number}"
                document = make_document(name, pair[0], path, source)
                yield dataclasses.replace(document, target=pair[1])


def _lines_side_by_side(
    stream: io.BufferedReader, path: str, encoding: str
) -> Iterator[str]:
    r"""The lines of a file, without their ends: nothing but `"\n"` ends one.

    Others that a person, Unicode or `str.splitlines` may take for the end of a line
    stand within lines, and would put all that follows beside a wrong counterpart.
    """
    try:
        head = stream.peek(_HEAD)[:_HEAD]
        encoding = formats.encoding_of(head, encoding)
        if reason := formats.why_no_text(head, encoding):
            raise UnusableError(reason)
        for line in _lines(stream, encoding, newline="\n"):
            yield unify_line_ends(line).removesuffix("\n")
    except UnusableError as error:
        raise UnusableError(f"{path}: {error}") from error


def _is_json_of_many_lines(stream: io.BufferedReader, encoding: str) -> bool:
    """Whether JSON is an array, or of values of several lines."""
    head = stream.peek().decode(encoding, errors="ignore").lstrip()
    first, line_end, _ = head.partition("\n")
    return head.startswith("[") or (bool(line_end) and first.strip() == "{")


def _read_json_lines(
    stream: io.BufferedReader, path: str, source: SourceSettings, encoding: str
) -> Iterator[Document | Broken]:
    numbered = enumerate(_lines(stream, encoding), 1)
    lines = ((n, line.strip(_AROUND_JSON)) for n, line in numbered)
    records = ((n, line) for n, line in lines if line)
    for number, (line_number, line) in enumerate(records):
        place = f"line {line_number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            reason = "not JSON" if is_unicode(line) else no_text_of(encoding)
            yield Broken(place, reason)
        else:
            yield document_of(path, source, number, place, record, encoding)


def _read_table(
    stream: io.BufferedReader,
    path: str,
    source: SourceSettings,
    file_format: str,
    encoding: str,
) -> Iterator[Document | Broken]:
    delimiter = source.delimiter or ("," if file_format == "csv" else "\t")
    rows = Rows(_lines(stream, encoding, newline=""), delimiter, file_format.upper())
    if rows.header:
        _require_columns(rows.header, source)
    for number, row in enumerate(rows):
        place = f"line {row.line}"
        if row.problem:
            last = row.line + row.lines - 1
            lost = f"lines {row.line} to {last}" if row.lines > 1 else place
            yield Broken(lost, row.problem)
            continue
        record = dict(zip(rows.header, row.columns, strict=True))
        yield document_of(path, source, number, place, record, encoding)


def _read_conll(
    stream: io.BufferedReader, path: str, source: SourceSettings, encoding: str
) -> Iterator[Document | Broken]:
    lines = _lines(stream, encoding)
    for number, sentence in enumerate(read_sentences(lines, source.delimiter)):
        place = f"line {sentence.line}"
        if sentence.problem:
            yield Broken(place, sentence.problem)
            continue
        yield document_of(path, source, number, place, sentence.columns, encoding)


def _require_columns(columns: list[str], source: SourceSettings) -> None:
    for name in source.columns:
        if name not in columns:
            raise UnusableError(no_field(name, columns))
        if columns.count(name) > 1:
            raise UnusableError(f"with {columns.count(name)} columns named {name!r}")
