"""Documents of records: the text and the fields, by name, as they are written."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import posixpath
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from .documents import Document
from .settings import SourceSettings

BLANKS = "\n \t"
WHITE_SPACE = re.compile("[ \\t-\\r]+")
"""What stands between words: of ASCII alone, as `tf.strings.split` has it."""

_FIELDS_SHOWN = 8
_AS_TEXT = (
    *(str, int, float, decimal.Decimal, uuid.UUID),
    *(datetime.date, datetime.time, datetime.timedelta),
)


@dataclasses.dataclass(frozen=True)
class Broken:
    """A record that is skipped: where it stands and why."""

    place: str
    reason: str


class _BrokenRecordError(ValueError):
    """Why a record cannot be used."""


def document_of(
    path: str,
    source: SourceSettings,
    number: int,
    place: str,
    record: Any,
    encoding: str = "utf-8",
) -> Document | Broken:
    """Makes a document of a record.

    Args:
        path: The file.
        source: Which of its fields are meant.
        number: The record's in the file, from 0.
        place: Where it stands, for a person.
        record: A mapping from names to values; names with dots are also looked for in
            the mappings within. A field that is null is left out.
        encoding: How its bytes were read, with lone surrogates for what is not so.
    """
    try:
        if not isinstance(record, Mapping):
            raise _BrokenRecordError("no JSON object")
        text, tags = _text_and_tags(record, source)
        target = _text(record, source.target_field) if source.target_field else None
        fields = {
            name: told
            for name, column in source.fields.items()
            if (told := _as_text(record, column)) is not None
        }
        labels = _labels(record, source) if source.label_field else None
        group = _as_text(record, source.split_field) if source.split_field else None
    except _BrokenRecordError as error:
        return Broken(place, str(error))
    known = [text, target or "", group or "", *fields.values()]
    known += [*(labels or ()), *(tags or ())]
    if not all(map(is_unicode, known)):
        return Broken(place, no_text_of(encoding))
    name = f"{path}#{number}"
    document = make_document(name, text, path, source, fields, group)
    return dataclasses.replace(document, target=target, labels=labels, tags=tags)


def make_document(
    name: str,
    text: str,
    path: str,
    source: SourceSettings,
    fields: dict[str, str] | None = None,
    group: str | None = None,
) -> Document:
    """A document of a file, with what its source says of all of them."""
    if source.split_by == "file":
        group = _within(path, source.path)
    return Document(
        name,
        text,
        fields or {},
        weight=source.weight,
        split=source.split or "",
        group=group or "",
    )


def _within(path: str, pattern: str) -> str:
    """A file's path in the folder that a pattern names, wherever that folder is."""
    if "://" in path:
        return path
    root = re.split(r"[*?\[{]", pattern, maxsplit=1)[0]
    if not path.startswith(f"{root.rstrip('/')}/"):
        root = posixpath.dirname(root)
    return posixpath.relpath(path, root or ".")


def no_field(name: str, known: Iterable[str]) -> str:
    """What is said where there is no such field, but others."""
    names = [repr(other) for other in known]
    shown = ", ".join(names[:_FIELDS_SHOWN])
    more = ", ..." if len(names) > _FIELDS_SHOWN else ""
    return f"without the field {name!r} (it has {shown}{more})"


def no_text_of(encoding: str) -> str:
    """What is said of bytes that are not text of an encoding."""
    return f"not {encoding.upper().removesuffix('-SIG')}"


def unify_line_ends(text: str) -> str:
    r"""Puts `"\n"` for the line ends of other systems."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_unicode(text: str) -> bool:
    """Whether a string has no lone surrogates, as bytes that are no text become."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _value(record: Mapping[str, Any], name: str) -> Any:
    value = _look_up(record, name)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise _BrokenRecordError(no_text_of("utf-8")) from None
    return value


def _look_up(record: Mapping[str, Any], name: str) -> Any:
    if name in record:
        return record[name]
    outer, _, inner = name.partition(".")
    within = record.get(outer)
    if inner and within is None and outer in record:
        return None
    if not inner or not isinstance(within, Mapping):
        raise _BrokenRecordError(no_field(name, record))
    return _look_up(within, inner)


def _text_and_tags(
    record: Mapping[str, Any], source: SourceSettings
) -> tuple[str, tuple[str, ...] | None]:
    """The text of a document, and where its words have tags, these."""
    name, of_tags = source.text_field, source.tags_field
    if of_tags:
        words, tags = _words(record, name), _words(record, of_tags)
        if len(words) != len(tags):
            raise _BrokenRecordError(
                f"{of_tags!r} has {len(tags)} for the {len(words)} words of {name!r}"
            )
        return " ".join(words), tags
    return _text(record, name), None


def _text(record: Mapping[str, Any], name: str) -> str:
    """A field that must have text."""
    text = _value(record, name)
    if text is None:
        raise _BrokenRecordError(f"{name!r} is null")
    if not isinstance(text, str):
        kind = type(text).__name__
        raise _BrokenRecordError(f"{name!r} is {kind}, not a string")
    text = unify_line_ends(text)
    if not text.strip(BLANKS):
        raise _BrokenRecordError(f"{name!r} is empty")
    return text


def _words(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The words of a document, or their tags: a list, or text with blanks between."""
    value = _value(record, name)
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if value is None:
        raise _BrokenRecordError(f"{name!r} is null")
    if isinstance(value, str):
        values = WHITE_SPACE.sub(" ", value).strip(" ").split(" ")
    elif isinstance(value, (list, tuple, np.ndarray)):
        values = [_text_of(one, name) or "" for one in value]
    else:
        kind = type(value).__name__
        raise _BrokenRecordError(f"{name!r} is {kind}, neither a list nor a string")
    if not any(values):
        raise _BrokenRecordError(f"{name!r} is empty")
    for number, word in enumerate(values, 1):
        if not word or WHITE_SPACE.search(word):
            what = f"has white space in {word!r}" if word else "is empty"
            raise _BrokenRecordError(f"{name!r}, number {number}, {what}")
    return tuple(values)


def _labels(record: Mapping[str, Any], source: SourceSettings) -> tuple[str, ...]:
    """The labels of a document, each once."""
    name = source.label_field or ""
    value = _value(record, name)
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if value is None:
        raise _BrokenRecordError(f"{name!r} is null")
    several = isinstance(value, (list, tuple, np.ndarray))
    if several and not source.multi_label:
        raise _BrokenRecordError(
            f"{name!r} is a list: corpus.multi_label says that there may be several"
        )
    values = list(value) if several else [value]
    if source.multi_label and isinstance(value, str):
        values = [part for part in value.split(source.label_separator) if part.strip()]
    labels = [(_text_of(one, name) or "").strip() for one in values]
    for label in labels:
        if not label or "\n" in label:
            what = "has a line end in it" if label else "is empty"
            raise _BrokenRecordError(f"{name!r} {what}")
    return tuple(dict.fromkeys(labels))


def _as_text(record: Mapping[str, Any], name: str) -> str | None:
    return _text_of(_value(record, name), name)


def _text_of(value: Any, name: str) -> str | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, _AS_TEXT):
        kind = type(value).__name__
        raise _BrokenRecordError(f"{name!r} is {kind}, not a string or number")
    return str(value)
