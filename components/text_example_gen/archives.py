"""The files in an archive, one after the other."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, BinaryIO, NamedTuple

from .streams import BrokenOffError, Raw, UnusableError

_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError)
_ZIP = b"PK\x03\x04"


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: Its path in it.
        content: Its bytes, to be read before the next member; `None` where it is none.
        reason: Why it is none.
    """

    name: str
    content: io.BufferedReader | None = None
    reason: str = ""


def members(
    stream: io.BufferedReader, archive_format: str, path: str
) -> Iterator[Member]:
    """Yields the files of an archive.

    Args:
        stream: The archive.
        archive_format: `tar` or `zip`.
        path: What an error names.

    Raises:
        BrokenOffError: Where the archive, or what is read of a member, is damaged or
            cut short.
        UnusableError: Where it is no such archive.
    """
    is_begun = stream.peek(len(_ZIP)).startswith(_ZIP)
    try:
        for name, content in _FORMATS[archive_format](stream):
            is_begun = True
            if content is None:
                yield Member(name, reason="links in archives")
            else:
                raw: Any = _Content(f"{path}/{name}", content)
                yield Member(name, io.BufferedReader(raw))
    except _ERRORS as error:
        reason = f"not {archive_format} ({' '.join(str(error).split())})"
        if is_begun:
            raise BrokenOffError(path, reason) from error
        raise UnusableError(reason) from error


@contextlib.contextmanager
def seekable(stream: io.BufferedReader) -> Iterator[BinaryIO]:
    """Gives a stream in which one can go back: itself, or a copy on disk."""
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


def _of_tar(stream: io.BufferedReader) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isfile():
                yield member.name, archive.extractfile(member)
            elif not member.isdir():
                yield member.name, None


def _of_zip(stream: io.BufferedReader) -> Iterator[tuple[str, IO[bytes] | None]]:
    with seekable(stream) as content, zipfile.ZipFile(content) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            try:
                file = archive.open(member)
            except (RuntimeError, NotImplementedError) as error:  # Such as a password.
                raise UnusableError(f"{member.filename}: {error}") from error
            with file:
                yield member.filename, file


_FORMATS: dict[str, Callable[[io.BufferedReader], Any]] = {
    "tar": _of_tar,
    "zip": _of_zip,
}


class _Content(Raw):
    """What a member holds; whatever fails in reading it is a `BrokenOffError`."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        super().__init__()
        self._path = path
        self._file = file

    def read_some(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except _ERRORS as error:
            raise BrokenOffError.of(self._path, error) from error
