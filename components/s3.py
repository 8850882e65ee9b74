"""`s3://` in TFX's fileio, and for corpora, with the client of S3 that PyArrow has.

TensorFlow has no filesystem for it, and Beam's wants another package and repeats for
minutes what cannot succeed. Importing this module makes TFX's fileio know `s3://`.

The store and the key to it are found as AWS' own tools find them: `AWS_ENDPOINT_URL`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, or what the
machine or the pod has.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import pyarrow.fs
from apache_beam.io.filesystem import FileMetadata, FileSystem
from tfx.dsl.io import fileio, filesystem, filesystem_registry

SCHEME = "s3://"

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_BUFFER_BYTES = 8 << 20  # what one request reads
_WILDCARD = re.compile(r"[*?\[]")


def is_s3(path: str) -> bool:
    """Whether a path is of S3."""
    return path.startswith(SCHEME)


def match(pattern: str) -> list[FileMetadata]:
    """Lists the files whose path matches, in Beam's language of patterns.

    Raises:
        OSError: Where the bucket is missing, must not be listed, or is not reached.
    """
    return [
        FileMetadata(f"{SCHEME}{info.path}", info.size, info.mtime_ns / 1e9)
        for info in _match(pattern)
        if info.is_file
    ]


class Stat(NamedTuple):
    """What is known of a file, by the names that TensorFlow's filesystems have."""

    length: int
    mtime_nsec: int
    is_directory: bool


class S3Filesystem(filesystem.Filesystem):
    """What TFX's fileio asks of a filesystem.

    There are no folders but in the names of files: making one does nothing, and one
    without files does not exist. A file that is written appears when it is closed.
    """

    SUPPORTED_SCHEMES: ClassVar = [SCHEME]

    @staticmethod
    def open(name: str, mode: str = "r") -> Any:
        """Opens a file; for reading `r` and `rb`, for writing `w` and `wb`."""
        file: Any
        with _not_found():
            if mode in ("r", "rb"):
                raw = _store().open_input_file(_key(name))
                file = io.BufferedReader(raw, _BUFFER_BYTES)
            elif mode in ("w", "wb"):
                file = _store().open_output_stream(_key(name))
            else:
                raise ValueError(f"{name}: mode {mode!r} is none of S3's")
        return file if "b" in mode else io.TextIOWrapper(file, "utf-8")

    @staticmethod
    def copy(src: str, dst: str, overwrite: bool = False) -> None:
        """Copies a file within the store."""
        _require_free(dst, overwrite)
        _require_file(src)
        _store().copy_file(_key(src), _key(dst))

    @staticmethod
    def exists(path: str) -> bool:
        """Whether there is a file of this name, or one in a folder of this name."""
        return _info(path).type != pyarrow.fs.FileType.NotFound

    @staticmethod
    def glob(pattern: str) -> list[str]:
        """Lists the files and folders that match; `**` also stands for slashes."""
        return sorted(f"{SCHEME}{info.path}" for info in _match(pattern))

    @staticmethod
    def isdir(path: str) -> bool:
        """Whether there is a file in a folder of this name."""
        return _info(path).type == pyarrow.fs.FileType.Directory

    @staticmethod
    def listdir(path: str) -> list[str]:
        """Lists the names in a folder."""
        return [info.base_name for info in _list(path)]

    @staticmethod
    def makedirs(path: str) -> None:
        """Does nothing."""

    mkdir = makedirs

    @staticmethod
    def remove(path: str) -> None:
        """Removes a file."""
        with _not_found():
            _store().delete_file(_key(path))

    @staticmethod
    def rename(src: str, dst: str, overwrite: bool = False) -> None:
        """Copies a file, and removes the first; a folder cannot be renamed."""
        S3Filesystem.copy(src, dst, overwrite)
        S3Filesystem.remove(src)

    @staticmethod
    def rmtree(path: str) -> None:
        """Removes all files of a folder."""
        with _not_found():
            _store().delete_dir(_key(path))

    @staticmethod
    def stat(path: str) -> Stat:
        """Size and time of change."""
        info = _info(path)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise fileio.NotFoundError(f"there is no file {path}")
        return Stat(info.size or 0, info.mtime_ns or 0, not info.is_file)

    @staticmethod
    def walk(
        top: str, topdown: bool = True, onerror: Callable[..., None] | None = None
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        """Walks through folders as `os.walk` does."""
        del onerror  # nothing below `top` can be missing
        found = _list(top)
        folders = [info.base_name for info in found if not info.is_file]
        here = top, folders, [info.base_name for info in found if info.is_file]
        if topdown:
            yield here
        for folder in folders:
            yield from S3Filesystem.walk(f"{top.rstrip('/')}/{folder}", topdown)
        if not topdown:
            yield here


def _store() -> pyarrow.fs.FileSystem:
    endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), None)
    return _connect(endpoint)


@functools.cache
def _connect(endpoint: str | None) -> pyarrow.fs.FileSystem:
    # PyArrow takes all but this from the environment itself.
    return pyarrow.fs.S3FileSystem(endpoint_override=endpoint)


def _key(path: str) -> str:
    """Bucket and name, as PyArrow wants them."""
    return path.removeprefix(SCHEME)


def _info(path: str) -> pyarrow.fs.FileInfo:
    return _store().get_file_info(_key(path))


def _list(path: str, **options: bool) -> list[pyarrow.fs.FileInfo]:
    with _not_found():
        found = _store().get_file_info(pyarrow.fs.FileSelector(_key(path), **options))
    return sorted(found, key=lambda info: info.path)


def _match(pattern: str) -> list[pyarrow.fs.FileInfo]:
    if not (wildcard := _WILDCARD.search(pattern)):
        info = _info(pattern)
        return [] if info.type == pyarrow.fs.FileType.NotFound else [info]
    folder = pattern[: wildcard.start()].rpartition("/")[0]
    rest = pattern[wildcard.start() :]
    recursive = "/" in rest or "**" in rest
    matches = re.compile(FileSystem.translate_pattern(_key(pattern))).match
    found = _list(folder, recursive=recursive, allow_not_found=True)
    return [info for info in found if matches(info.path)]


def _require_free(path: str, overwrite: bool) -> None:
    if not overwrite and S3Filesystem.exists(path):
        raise OSError(f"{path} exists already")


def _require_file(path: str) -> None:
    if not _info(path).is_file:
        raise fileio.NotFoundError(f"there is no file {path}")


@contextlib.contextmanager
def _not_found() -> Iterator[None]:
    """Turns Python's error of what is not there into TFX's."""
    try:
        yield
    except FileNotFoundError as error:
        raise fileio.NotFoundError(str(error)) from error


# Before TensorFlow's, whose priority is 10.
filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(S3Filesystem, priority=0)
