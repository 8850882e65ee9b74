"""Files as streams of bytes, decompressed, on `s3://` and what Beam knows."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import zstandard
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from .. import s3

_CHUNK_BYTES = 1 << 14
_BUFFER_BYTES = 1 << 20
_GZIP_WINDOW = zlib.MAX_WBITS | 16
_ZSTD_WINDOW = 1 << 31  # the largest that the zstd command writes
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    CompressionTypes.GZIP: lambda: zlib.decompressobj(_GZIP_WINDOW),
    CompressionTypes.DEFLATE: zlib.decompressobj,
    CompressionTypes.BZIP2: bz2.BZ2Decompressor,
    CompressionTypes.LZMA: lzma.LZMADecompressor,
    CompressionTypes.ZSTD: lambda: zstandard.ZstdDecompressor(
        max_window_size=_ZSTD_WINDOW
    ).decompressobj(),
}
_ERRORS = (zlib.error, OSError, lzma.LZMAError, zstandard.ZstdError)


class UnusableError(ValueError):
    """A file that cannot be read, or not to its end; the message says why."""


@contextlib.contextmanager
def open_stream(path: str) -> Iterator[io.BufferedReader]:
    """Opens a file; the ending of its name says how it is compressed.

    Beam's own decompression takes a file that was cut short for a whole one.

    Raises:
        UnusableError: Where it cannot be opened; reading raises it where the
            compressed data are damaged or cut short.
    """
    compression = CompressionTypes.detect_compression_type(path)
    file: Any
    try:
        file = _open(path)
    except OSError as error:
        raise UnusableError(f"not readable ({error.strerror or error})") from error
    with file:
        if compression != CompressionTypes.UNCOMPRESSED:
            file = _Decompressed(file, compression)
        if not isinstance(file, io.BufferedReader):
            file = io.BufferedReader(file, _BUFFER_BYTES)
        yield file


def _open(path: str) -> BinaryIO:
    """Opens a file without regard to the ending of its name."""
    if s3.is_s3(path):
        file: BinaryIO = s3.S3Filesystem.open(path, "rb")
        return file
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


class _Decompressed(io.RawIOBase):
    """The content of a compressed file, all its frames one after the other."""

    def __init__(self, file: BinaryIO, compression: str) -> None:
        super().__init__()
        self._file = file
        self._compression = compression
        self._decompressor: Any = None  # none between frames
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._pending:
            compressed = self._next_chunk()
            if not compressed:
                return 0
            try:
                self._pending = memoryview(self._decompressor.decompress(compressed))
            except _ERRORS as error:
                raise UnusableError(f"not {self._compression} ({error})") from error
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def _next_chunk(self) -> bytes:
        """Returns compressed bytes for the decompressor; none at the end."""
        chunk = b""
        if self._decompressor is not None and self._decompressor.eof:
            # Some writers pad with zeros behind the last frame.
            chunk = self._decompressor.unused_data.lstrip(b"\0")
            self._decompressor = None
        chunk = chunk or self._file.read(_CHUNK_BYTES)
        if self._decompressor is None:
            self._decompressor = _DECOMPRESSORS[self._compression]() if chunk else None
        elif not chunk:
            raise UnusableError(f"cut short: its {self._compression} data have no end")
        return chunk
