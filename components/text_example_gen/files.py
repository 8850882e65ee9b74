"""Finding the files of a corpus."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence

from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from .. import s3
from ..errors import InputError
from . import hubs
from .settings import SourceSettings

_WILDCARDS = "*?["
_NUMBERS = re.compile(r"\{(SPAN|VERSION)\}")


@dataclasses.dataclass(frozen=True, order=True)
class Span:
    """Which data of a path with `{SPAN}` in it, and perhaps `{VERSION}`."""

    span: int
    version: int | None = None

    def __str__(self) -> str:
        version = "" if self.version is None else f", version {self.version}"
        return f"span {self.span}{version}"


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a corpus, or a dataset.

    Attributes:
        path: Where it is.
        source: The source that it belongs to.
        state: Size in bytes and time of last change; of a dataset "".
        span: Which span it belongs to, where the source has spans.
    """

    path: str
    source: SourceSettings
    state: str
    span: Span | None


def find(sources: Sequence[SourceSettings]) -> list[File]:
    """Lists the files of all sources, those of each sorted by path.

    Raises:
        InputError: Where nothing matches a source, two sources share a file, or a
            dataset's package is missing.
    """
    found: dict[str, File] = {}
    for source in sources:
        for file in _find(source):
            other = found.setdefault(file.path, file)
            if other is not file:
                raise InputError(
                    f"{file.path} belongs to two sources of the corpus, "
                    f"{other.source.path!r} and {source.path!r}: leave it in one"
                )
    return list(found.values())


def fingerprint(sources: Sequence[SourceSettings]) -> str:
    """Hashes path, size and time of change of every file, version of every dataset.

    Raises:
        InputError: As `find` does, or where a dataset cannot be reached.
    """
    digest = hashlib.sha256()
    for file in find(sources):
        is_dataset = hubs.is_dataset(file.path)
        state = hubs.version(file.path) if is_dataset else file.state
        digest.update(f"{file.path}\0{state}\n".encode())
    return digest.hexdigest()


def _find(source: SourceSettings) -> list[File]:
    if hubs.is_dataset(source.path):
        hubs.require_package(source.path)
        return [File(source.path, source, state="", span=None)]
    pattern = source.path
    fixed = re.split(r"[*?\[]|\{SPAN\}|\{VERSION\}", pattern, maxsplit=1)[0]
    if "/" not in fixed and fixed != pattern:
        pattern = f"./{pattern}"  # Beam lists no folder without a name
    if "{VERSION}" in pattern and "{SPAN}" not in pattern:
        raise InputError(f"{pattern}: {{VERSION}} is of a span: add {{SPAN}}")
    files = _match(_NUMBERS.sub("*", pattern), also_within="{SPAN}" in pattern)
    span = None
    if "{SPAN}" in pattern:
        spans = [_span(pattern, file.path) for file in files]
        span = max((span for span in spans if span), default=None)
        files = [file for file, of in zip(files, spans, strict=True) if of == span]
    if not files or (span is None and "{SPAN}" in pattern):
        raise InputError(
            f"no file matches the corpus {pattern!r}: name a text file, a folder of "
            "text files or a pattern such as 'texts/*.txt'"
        )
    return [File(file.path, source, _state(file), span) for file in files]


def _match(pattern: str, also_within: bool) -> list[FileMetadata]:
    """Lists the files that match, and those in folders that do, sorted by path."""
    patterns = [pattern]
    if also_within or not _has_wildcards(pattern):
        # A folder has no files of its own name; its content has.
        patterns.append(FileSystems.join(pattern, "**"))
    try:
        listed = _list(patterns)
    except (ValueError, OSError) as error:  # such as a filesystem without its package
        reason = " ".join(str(error).split())
        raise InputError(
            f"the corpus {pattern!r} cannot be listed: {reason}"
        ) from error
    files = {file.path: file for file in listed if not _is_folder(file.path)}
    return [files[path] for path in sorted(files)]


def _list(patterns: list[str]) -> list[FileMetadata]:
    if s3.is_s3(patterns[0]):
        return [file for pattern in patterns for file in s3.match(pattern)]
    matches = FileSystems.match(patterns)
    return [file for match in matches for file in match.metadata_list]


def _has_wildcards(pattern: str) -> bool:
    return any(wildcard in pattern for wildcard in _WILDCARDS)


def _span(pattern: str, path: str) -> Span | None:
    """Returns what stands for `{SPAN}` and `{VERSION}` in a path; none if no number."""
    expression = ""
    for piece in re.split(r"(\{SPAN\}|\{VERSION\})", pattern):
        if number := _NUMBERS.fullmatch(piece):
            name = number[1]
            known = f"(?P<{name}>" in expression
            expression += f"(?P={name})" if known else f"(?P<{name}>[0-9]+)"
        else:
            glob = FileSystem.translate_pattern(piece)
            expression += glob.removeprefix("(?ms)").removesuffix(r"\Z")
    match = re.fullmatch(f"(?ms){expression}(/.*)?", path)
    if match is None:
        return None
    numbers = match.groupdict()
    version = numbers.get("VERSION")
    return Span(int(numbers["SPAN"]), None if version is None else int(version))


def _state(file: FileMetadata) -> str:
    return f"{file.size_in_bytes}\0{file.last_updated_in_seconds}"


def _is_folder(path: str) -> bool:
    # Beam lists local folders beside files when a pattern matches them, and what
    # stands for folders in object stores.
    return path.endswith("/") or os.path.isdir(path)
