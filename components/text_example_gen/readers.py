"""Reading a file into documents, as a stream: memory holds one document at a time."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from . import hubs
from .documents import Document
from .settings import SourceSettings
from .streams import BrokenOffError, UnusableError, open_stream

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_COMPRESSIONS = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".lzma", ".deflate")
_BLANKS = "\n \t"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_NOT_UTF_8 = "not UTF-8"
_PARQUET = b"PAR1"
_ROWS = 256  # of a Parquet file that are decoded at a time
_PARQUET_BUFFER_BYTES = 1 << 20
_FIELDS_SHOWN = 8
_WAITS = (1, 5)  # seconds before what broke off is read again

# The module's own limit of 128 KiB is less than a long article.
csv.field_size_limit(sys.maxsize)


@dataclasses.dataclass(frozen=True)
class Broken:
    """A record that is skipped: where it stands and why."""

    place: str
    reason: str


class _BrokenRecordError(ValueError):
    """Why a record cannot be used."""


def read(path: str, source: SourceSettings) -> Iterator[Document | Broken]:
    """Reads the documents of a file or dataset.

    A document's id is the path, and `#` with its number in the file (from 0, broken
    records counted) where the file holds many.

    What breaks off is read again from its beginning, some times, to where it was.

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


def _read(path: str, source: SourceSettings) -> Iterator[Document | Broken]:
    if hubs.is_dataset(path):
        for number, record in enumerate(hubs.read(path)):
            yield _document(path, source, number, f"record {number}", record)
        return
    file_format: str = source.format
    if file_format == "auto":
        file_format = _format_of(path)
    with open_stream(path) as stream:
        if file_format == "parquet":
            yield from _read_parquet(stream, path, source)
            return
        if stream.peek(2)[:2] in _UTF_16_MARKS:
            raise UnusableError(f"{_NOT_UTF_8} (byte 0)")
        reader = {"text": _read_text, "jsonl": _read_json_lines}.get(file_format)
        if reader is not None:
            yield from reader(stream, path, source)
        else:
            yield from _read_table(stream, path, source, file_format)


def _format_of(path: str) -> str:
    """The format that a file's name tells; what is not known is text."""
    name = path.lower()
    for ending in _COMPRESSIONS:
        name = name.removesuffix(ending)
    return next((f for end, f in _FORMATS.items() if name.endswith(end)), "text")


def split_lines(lines: Iterable[str], unit: str) -> Iterator[tuple[int, str]]:
    r"""Splits text into documents.

    Args:
        lines: The lines of the text, each with its `"\n"`.
        unit: `"paragraph"` or `"line"`.

    Yields:
        The number of its first line, from 1, and a document; none is blank.
    """
    start, piece = 1, []
    for number, line in enumerate(lines, 1):
        # As the expression \n\s*\n sees it, blank needs a line end on either side.
        is_blank = number > 1 and line.isspace() and line.endswith("\n")
        if not is_blank:
            piece.append(line)
        if unit == "line" or is_blank:
            if document := "".join(piece).strip(_BLANKS):
                yield start, document
            start, piece = number + 1, []
    if document := "".join(piece).strip(_BLANKS):
        yield start, document


def _read_text(
    stream: io.BufferedReader, path: str, source: SourceSettings
) -> Iterator[Document | Broken]:
    if source.fields:
        raise UnusableError(
            "text without fields: corpus.fields need JSON Lines, CSV, TSV or Parquet"
        )
    if source.documents == "file":
        try:
            text = _unify_line_ends(stream.read().decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UnusableError(f"{_NOT_UTF_8} (byte {error.start})") from error
        if text := text.strip(_BLANKS):
            yield Document(path, text, weight=source.weight)
        return
    # Without a name for newlines, those of any system are translated.
    lines = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape")
    pieces = enumerate(split_lines(lines, source.documents))
    for number, (line, text) in pieces:
        if _is_unicode(text):
            yield Document(f"{path}#{number}", text, weight=source.weight)
        else:
            yield Broken(f"line {line}", _NOT_UTF_8)


def _read_json_lines(
    stream: io.BufferedReader, path: str, source: SourceSettings
) -> Iterator[Document | Broken]:
    lines = ((n, line.strip()) for n, line in enumerate(stream, 1))
    records = ((n, line) for n, line in lines if line)
    for number, (line_number, line) in enumerate(records):
        place = f"line {line_number}"
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError:
            yield Broken(place, _NOT_UTF_8)
        except (ValueError, RecursionError):
            yield Broken(place, "not JSON")
        else:
            yield _document(path, source, number, place, record)


def _read_table(
    stream: io.BufferedReader, path: str, source: SourceSettings, file_format: str
) -> Iterator[Document | Broken]:
    lines = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    if file_format == "csv":
        rows = csv.reader(lines, strict=True)
    else:
        # The registered media type knows no quotes: a tab cannot stand in a field.
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        header = next(rows, None)
    except csv.Error as error:
        raise UnusableError(f"line 1: not {file_format.upper()} ({error})") from error
    if header is None:
        return
    _require_columns(header, source)
    number = 0
    while True:
        place = f"line {rows.line_num + 1}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Broken(place, f"not {file_format.upper()} ({error})")
        else:
            if not row:
                continue
            if len(row) != len(header):
                reason = f"{len(row)} columns where the header has {len(header)}"
                yield Broken(place, reason)
            else:
                record = dict(zip(header, row, strict=True))
                yield _document(path, source, number, place, record)
        number += 1


def _read_parquet(
    stream: io.BufferedReader, path: str, source: SourceSettings
) -> Iterator[Document | Broken]:
    with tempfile.TemporaryFile() as seekable:
        if not stream.seekable():
            shutil.copyfileobj(stream, seekable)
            seekable.seek(0)
        try:
            content = stream if stream.seekable() else seekable
            is_begun = content.read(len(_PARQUET)) == _PARQUET
            file = pa.parquet.ParquetFile(content, buffer_size=_PARQUET_BUFFER_BYTES)
            _require_columns(file.schema_arrow.names, source)
            columns = sorted({source.text_field, *source.fields.values()})
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                for row in range(batch.num_rows):
                    record = {name: batch[name][row] for name in columns}
                    place = f"row {number + 1}"
                    yield _document(path, source, number, place, record)
                    number += 1
        except (pa.ArrowException, OSError) as error:
            reason = f"not Parquet ({' '.join(str(error).split())})"
            if is_begun:
                raise BrokenOffError(path, reason) from error
            raise UnusableError(reason) from error


def _require_columns(columns: list[str], source: SourceSettings) -> None:
    for name in (source.text_field, *source.fields.values()):
        if name not in columns:
            raise UnusableError(_no_field(name, columns))
        if columns.count(name) > 1:
            raise UnusableError(f"with {columns.count(name)} columns named {name!r}")


def _no_field(name: str, known: Iterable[str]) -> str:
    names = [repr(other) for other in known]
    shown = ", ".join(names[:_FIELDS_SHOWN])
    more = ", ..." if len(names) > _FIELDS_SHOWN else ""
    return f"without the field {name!r} (it has {shown}{more})"


def _document(
    path: str, source: SourceSettings, number: int, place: str, record: Any
) -> Document | Broken:
    """Makes a document of a record: a mapping from names to values."""
    try:
        if not isinstance(record, Mapping):
            raise _BrokenRecordError("no JSON object")
        text = _value(record, source.text_field)
        if not isinstance(text, str):
            kind = type(text).__name__
            raise _BrokenRecordError(f"{source.text_field!r} is {kind}, not a string")
        text = _unify_line_ends(text).strip(_BLANKS)
        if not text:
            raise _BrokenRecordError(f"{source.text_field!r} is empty")
        fields = {
            name: _scalar(record, column) for name, column in source.fields.items()
        }
    except _BrokenRecordError as error:
        return Broken(place, str(error))
    if not all(map(_is_unicode, (text, *fields.values()))):
        return Broken(place, _NOT_UTF_8)
    return Document(f"{path}#{number}", text, fields, source.weight)


def _value(record: Mapping[str, Any], name: str) -> Any:
    if name not in record:
        raise _BrokenRecordError(_no_field(name, record))
    value = record[name]
    try:
        value = value.as_py() if isinstance(value, pa.Scalar) else value
        value = value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise _BrokenRecordError(_NOT_UTF_8) from None
    if value is None:
        raise _BrokenRecordError(f"{name!r} is null")
    return value


def _scalar(record: Mapping[str, Any], name: str) -> str:
    value = _value(record, name)
    if isinstance(value, bool):
        return str(value).lower()
    if hasattr(value, "item"):  # NumPy's
        value = value.item()
    if not isinstance(value, str | int | float):
        kind = type(value).__name__
        raise _BrokenRecordError(f"{name!r} is {kind}, not a string or number")
    return str(value)


def _unify_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_unicode(text: str) -> bool:
    """Whether a string has no lone surrogates, as bytes that are not UTF-8 become."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
