"""Finding the files of a corpus."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from apache_beam.io.filesystem import FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

from .. import s3
from ..errors import InputError, printable
from . import formats, hubs
from .settings import SourceSettings

_WILDCARDS = "*?["
_PATHS_SHOWN = 5
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
        source: The source that it belongs to; of two files side by side, it says where
            the other is.
        state: Size in bytes and time of last change; of a dataset "".
        span: Which span it belongs to, where the source has spans.
    """

    path: str
    source: SourceSettings
    state: str
    span: Span | None

    @property
    def name(self) -> str:
        """What it is called, with the file of its targets where it has one."""
        return pair_name(self.path, self.source.target)


class Found(NamedTuple):
    """What lies where sources are.

    Attributes:
        files: Files and datasets to be read, those of each source sorted by path.
        left_out: Paths of files and folders that no one means, and what they are.
    """

    files: list[File]
    left_out: dict[str, str]


def pair_name(path: str, target: str | None) -> str:
    """What a file is called, or two side by side."""
    return f"{path} and {target}" if target else path


def say_left_out(counts: Mapping[str, int], paths: Iterable[str]) -> str:
    """Tells of files that are left out: how many of what, and the first paths."""
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items())
    first = sorted(paths)
    more = ", ..." if len(first) > _PATHS_SHOWN else ""
    shown = f" ({', '.join(first[:_PATHS_SHOWN])}{more})" if first else ""
    return f"left out {told}{shown}"


def find(sources: Sequence[SourceSettings]) -> Found:
    """Lists the files of all sources.

    Raises:
        InputError: Where nothing matches a source, two sources share a file, a source
            says what its files cannot have, or a dataset's package is missing.
    """
    found: dict[str, File] = {}
    left_out: dict[str, str] = {}
    for source in sources:
        files = _find(source, left_out)
        _require_use(source, files)
        for file in files:
            other = found.setdefault(file.name, file)
            if other is not file:
                raise InputError(
                    f"{file.name} belongs to two sources of the corpus, "
                    f"{other.source.path!r} and {source.path!r}: leave it in one"
                )
    told = {printable(path): what for path, what in left_out.items()}
    return Found(list(found.values()), told)


def fingerprint(sources: Sequence[SourceSettings]) -> str:
    """Hashes path, size and time of change of every file, version of every dataset.

    Raises:
        InputError: As `find` does, or where a dataset cannot be reached.
    """
    digest = hashlib.sha256()
    for file in find(sources).files:
        is_dataset = hubs.is_dataset(file.path)
        state = hubs.version(file.path) if is_dataset else file.state
        digest.update(os.fsencode(f"{file.path}\0{state}\n"))
    return digest.hexdigest()


def _find(source: SourceSettings, left_out: dict[str, str]) -> list[File]:
    if hubs.is_dataset(source.path):
        hubs.require_package(source.path)
        return [File(source.path, source, state="", span=None)]
    if source.target:
        return [_side_by_side(source, left_out)]
    pattern = source.path
    fixed = re.split(r"[*?\[]|\{SPAN\}|\{VERSION\}", pattern, maxsplit=1)[0]
    if "/" not in fixed and fixed != pattern:
        pattern = f"./{pattern}"  # Beam lists no folder without a name
    if "{VERSION}" in pattern and "{SPAN}" not in pattern:
        raise InputError(f"{pattern}: {{VERSION}} is of a span: add {{SPAN}}")
    globs = _NUMBERS.sub("*", pattern)
    listed = _match(globs, also_within="{SPAN}" in pattern)
    files = _meant(listed, globs, left_out)
    span = None
    if "{SPAN}" in pattern:
        spans = [_span(pattern, file.path) for file in files]
        span = max((span for span in spans if span), default=None)
        files = [file for file, of in zip(files, spans, strict=True) if of == span]
    if not files or (span is None and "{SPAN}" in pattern):
        unmeant = f" (what does is left out: {', '.join(left_out)})" if listed else ""
        raise InputError(
            f"no file matches the corpus {pattern!r}{unmeant}: name a text file, a "
            "folder of text files or a pattern such as 'texts/*.txt'"
        )
    return [File(file.path, source, _state(file), span) for file in files]


def _side_by_side(source: SourceSettings, left_out: dict[str, str]) -> File:
    """Two files, of which one has the targets of the other's lines."""
    sides = list[File]()
    for path in source.paths:
        found = _find(SourceSettings(path=path), left_out)
        if len(found) != 1:
            raise InputError(
                f"{path}: {len(found)} files, and a source and its target are one file "
                "each, whose lines belong together: name each pair as a source"
            )
        sides += found
        of_name = formats.kind_of(found[0].path).format
        if of_name in formats.ARCHIVES or source.format_of(path) != formats.TEXT:
            raise InputError(
                f"{found[0].path} is {of_name}, by its name, and a source and its "
                "target are text, line by line: a table of both needs a path, and "
                "corpus.text_field and corpus.target_field"
            )
    one, other = sides
    if one.span != other.span:
        raise InputError(
            f"{one.path} is of {one.span or 'no span'}, and {other.path} of "
            f"{other.span or 'no span'}: they must be of the same"
        )
    return File(
        one.path,
        source.model_copy(update={"target": other.path}),
        state=f"{one.state}\0{other.path}\0{other.state}",
        span=one.span,
    )


def _meant(
    files: list[FileMetadata], pattern: str, left_out: dict[str, str]
) -> list[FileMetadata]:
    """The files that a pattern means; the others are added to those left out."""
    kept = []
    for file in files:
        unmeant = formats.left_out(file.path, pattern)
        if unmeant is None and file.path != pattern and _is_irregular(file.path):
            unmeant = file.path, "pipes, devices and links to nothing"
        if unmeant is None:
            kept.append(file)
        else:
            left_out[unmeant[0]] = unmeant[1]
    links = {file.path for file in kept if os.path.islink(file.path)}
    if links:
        once = {os.path.realpath(f.path) for f in kept if f.path not in links}
        again = {path for path in links if os.path.realpath(path) in once}
        left_out.update(dict.fromkeys(again, "other names of files that are read"))
        kept = [file for file in kept if file.path not in again]
    return kept


def _require_use(source: SourceSettings, files: list[File]) -> None:
    """Refuses what is told of records where all files are text, by their names."""
    if not source.means_records or hubs.is_dataset(source.path):
        return
    told = {formats.kind_of(file.path).format for file in files}
    if not told & set(formats.ARCHIVES) and all(
        source.format_of(file.path) == formats.TEXT for file in files
    ):
        raise InputError(
            "corpus.text_field, corpus.label_field, corpus.target_field, corpus.fields "
            f"and corpus.split_by by a field are of records, and {source.path} is "
            f"text, by the name of {files[0].path}: corpus.format can say what it is"
        )


def _match(pattern: str, also_within: bool) -> list[FileMetadata]:
    """Lists the files that match, and those in folders that do, sorted by path."""
    try:
        if "://" not in pattern:
            listed = [*_list_here(pattern, also_within)]
        else:
            patterns = [pattern]
            if also_within or not _has_wildcards(pattern):
                # A folder has no files of its own name; its content has.
                patterns.append(FileSystems.join(pattern, "**"))
            listed = _list(patterns)
    except (ValueError, OSError) as error:  # such as a filesystem without its package
        reason = " ".join(str(error).split())
        raise InputError(
            f"the corpus {pattern!r} cannot be listed: {reason}"
        ) from error
    # What stands for a folder in an object store ends so.
    files = {file.path: file for file in listed if not file.path.endswith("/")}
    return [files[path] for path in sorted(files)]


def _list_here(pattern: str, also_within: bool) -> Iterator[FileMetadata]:
    """Lists files of this machine.

    Beam's own list lacks, without a word, what lies in folders that are links or must
    not be read.
    """
    if os.path.isdir(pattern):
        folder, matches = pattern, re.compile("").match
    elif os.path.exists(pattern) or not _has_wildcards(pattern):
        folder, matches = "", re.compile("").match
        if os.path.exists(pattern):
            yield _metadata(pattern)
    else:
        folder = os.path.dirname(re.split(r"[*?\[]", pattern, maxsplit=1)[0])
        within = "(/.*)?" if also_within else ""
        matches = re.compile(f"(?ms){_expression(pattern)}{within}\\Z").match
    waiting, seen = [folder] if os.path.isdir(folder) else [], set()
    for link in waiting:
        for here, folders, names in os.walk(link, onerror=_cannot_be_listed):
            if (real := os.path.realpath(here)) in seen:
                folders.clear()
                continue
            seen.add(real)
            paths = [os.path.join(here, name) for name in folders]
            waiting += sorted(path for path in paths if os.path.islink(path))
            files = (os.path.join(here, name) for name in names)
            yield from map(_metadata, filter(matches, files))


def _metadata(path: str) -> FileMetadata:
    try:
        state = os.stat(path)
    except FileNotFoundError:  # A link to nothing.
        return FileMetadata(path, 0, 0.0)
    return FileMetadata(path, state.st_size, state.st_mtime)


def _cannot_be_listed(error: OSError) -> NoReturn:
    raise error


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
            expression += _expression(piece)
    match = re.fullmatch(f"(?ms){expression}(/.*)?", path)
    if match is None:
        return None
    numbers = match.groupdict()
    version = numbers.get("VERSION")
    return Span(int(numbers["SPAN"]), None if version is None else int(version))


def _state(file: FileMetadata) -> str:
    return f"{file.size_in_bytes}\0{file.last_updated_in_seconds}"


def _expression(pattern: str) -> str:
    glob: str = FileSystem.translate_pattern(pattern)
    return glob.removeprefix("(?ms)").removesuffix(r"\Z")


def _is_irregular(path: str) -> bool:
    return "://" not in path and not os.path.isfile(path)
