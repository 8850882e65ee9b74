"""Files as streams of bytes, decompressed, on `s3://` and what Beam knows."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import zstandard
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from .. import s3
from ..errors import InputError
from .formats import kind_of

_BUFFER_BYTES = 1 << 20
# What so few bytes become is some megabytes at most.
_PIECE_BYTES = 512
_ZSTD_WINDOW = 1 << 31  # the largest that the zstd command writes
# Trying again does not mend these: what is asked for is not there, or not so.
_LASTING = (FileNotFoundError, PermissionError, ValueError, LookupError, TypeError)


class UnusableError(ValueError):
    """A file whose content is not what it should be; the message says why."""


class BrokenOffError(InputError):
    """Reading that broke off, so that text is missing which should be there.

    Attributes:
        lasting: Whether it would break off again.
    """

    def __init__(self, path: str, reason: str, *, lasting: bool = True) -> None:
        super().__init__(f"{path}: reading broke off: {reason}")
        self.lasting = lasting

    @classmethod
    def of(cls, path: str, error: Exception) -> BrokenOffError:
        """Tells what a filesystem or a package has raised."""
        told = getattr(error, "strerror", None) or error
        reason = " ".join(str(told).split()) or type(error).__name__
        return cls(path, reason, lasting=isinstance(error, _LASTING))


class UnlikeError(BrokenOffError):
    """Two files that have unlike numbers of lines, which should belong together."""

    def __init__(self, lines: Mapping[str, int]) -> None:
        (path, number), (other, count) = lines.items()
        InputError.__init__(
            self,
            f"{path} has {number:,} line(s), and {other} has {count:,}: each line "
            "needs its counterpart, so give files of equally many, or a table with "
            "corpus.text_field and corpus.target_field",
        )
        self.lasting = True


@contextlib.contextmanager
def open_stream(path: str) -> Iterator[io.BufferedReader]:
    """Opens a file; the ending of its name says how it is compressed.

    Beam's own decompression takes a file that was cut short for a whole one.

    Raises:
        BrokenOffError: Where it cannot be opened; reading raises it where the file
            cannot be read to its end, or its compressed data are damaged or cut short.
        UnusableError: Raised by reading where the data are not compressed so.
    """
    file: Any
    with io.BufferedReader(_Transport(path), _BUFFER_BYTES) as file:
        yield decompressed(file, path)


def decompressed(file: io.BufferedReader, path: str) -> io.BufferedReader:
    """What a file holds, which may lie in an archive; `open_stream` says how."""
    compression = kind_of(path).compression
    if not compression or not file.peek(1):
        return file
    content: Any = _Decompressed(path, file, compression)
    return io.BufferedReader(content, _BUFFER_BYTES)


class Raw(io.RawIOBase):
    """Bytes as a stream of Python's, given what reads some of them."""

    def read_some(self, size: int) -> Any:
        """Returns at most so many bytes; none at the end."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read_some(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Transport(Raw):
    """A file as it lies; whatever fails in reading it is a `BrokenOffError`."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._file = self._told(_open, path)

    def seekable(self) -> bool:
        return self._file.seekable()

    def read_some(self, size: int) -> Any:
        return self._told(self._file.read, size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        # What is asked for may be no place: that is for who asks.
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _told(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # The clients of buckets have classes of their own.
            raise BrokenOffError.of(self._path, error) from error


def _open(path: str) -> BinaryIO:
    """Opens a file without regard to the ending of its name."""
    if s3.is_s3(path):
        file: BinaryIO = s3.S3Filesystem.open(path, "rb")
        return file
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


class _Decompressed(Raw):
    """The content of a compressed file, all its frames one after the other."""

    def __init__(self, path: str, file: io.BufferedReader, compression: str) -> None:
        super().__init__()
        self._path = path
        self._compression = compression
        self._file = _READERS[compression](file)
        self._begun = False

    def read_some(self, size: int) -> Any:
        try:
            data = self._file.read1(size)
        except EOFError as error:
            reason = f"cut short: its {self._compression} data have no end"
            raise BrokenOffError(self._path, reason) from error
        except (zlib.error, OSError, lzma.LZMAError, zstandard.ZstdError) as error:
            reason = f"not {self._compression} ({error})"
            if self._begun:
                raise BrokenOffError(self._path, reason) from error
            raise UnusableError(reason) from error
        self._begun = self._begun or bool(data)
        return data


class _Frames:
    """Reads as `gzip.GzipFile` does what the standard library has no file for."""

    def __init__(self, file: io.BufferedReader, begin: Callable[[], Any]) -> None:
        self._file = file
        self._begin = begin
        self._decompressor: Any = None  # none between frames
        self._pending = memoryview(b"")

    def read1(self, size: int) -> memoryview:
        while not self._pending:
            piece = self._next_piece()
            if not piece:
                break
            self._pending = memoryview(self._decompressor.decompress(piece))
        data, self._pending = self._pending[:size], self._pending[size:]
        return data

    def _next_piece(self) -> bytes:
        """Returns compressed bytes for the decompressor; none at the end."""
        piece = b""
        if self._decompressor is not None and self._decompressor.eof:
            # Some writers pad with zeros behind the last frame.
            piece = self._decompressor.unused_data.lstrip(b"\0")
            self._decompressor = None
        piece = piece or self._file.read(_PIECE_BYTES)
        if self._decompressor is None:
            self._decompressor = self._begin() if piece else None
        elif not piece:
            raise EOFError
        return piece


def _zstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()


_READERS: dict[str, Callable[[io.BufferedReader], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "deflate": lambda file: _Frames(file, zlib.decompressobj),
    "zstd": lambda file: _Frames(file, _zstd),
}
