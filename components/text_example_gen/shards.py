"""Writing records to files of bounded size, where they are: without a shuffle."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io import filebasedsink, tfrecordio
from apache_beam.io.filesystems import FileSystems

SHARD_BYTES = 8_000_000


def write_shards(prefix: str) -> beam.PTransform:
    """Writes bytes as gzipped TFRecord files, each of about `SHARD_BYTES` of records.

    Whoever has a record writes it, so no worker holds more than one. A file gets its
    name, such as `PREFIX-00000-of-00002.gz`, when all are written; what a bundle that
    failed has left is not among them. They are numbered by the time when they were
    begun: with one worker that is the order of the records; with several, the records
    are the same, and which file holds which is up to the runner.
    """
    return beam.io.Write(_Shards(prefix))


class _Shards(filebasedsink.FileBasedSink):
    """Beam's sink of TFRecords, which has no bound on the size of a file."""

    def __init__(self, prefix: str) -> None:
        super().__init__(
            prefix,
            coder=beam.coders.BytesCoder(),
            file_name_suffix=".gz",
            max_bytes_per_shard=SHARD_BYTES,
        )

    def initialize_write(self) -> str:
        # Beam's name is another each time, and what a retry leaves would stay.
        folder = f"{self.file_path_prefix.get()}-unfinished"
        if not FileSystems.exists(folder):
            FileSystems.mkdirs(folder)
        return folder

    def open_writer(self, init_result: str, uid: str) -> Any:
        # Beam numbers files in the order of these names.
        return super().open_writer(init_result, f"{time.time_ns():020}-{uid}")

    def write_encoded_record(self, file_handle: Any, encoded_value: bytes) -> None:
        tfrecordio._TFRecordUtil.write_record(file_handle, encoded_value)

    def finalize_write(
        self, init_result: str, writer_results: Iterable[str], *unused: Any
    ) -> Iterator[str]:
        # Beam renames many at a time. Local filesystems list files in an order that
        # may be that of renaming, and whoever reads them in that order.
        written = sorted(writer_results)
        for number, path in enumerate(written):
            name = self._get_final_name(number, len(written))
            if FileSystems.exists(path):  # or it was renamed before this was retried
                FileSystems.rename([path], [name])
            yield name
        with contextlib.suppress(OSError):  # deleted before this was retried
            FileSystems.delete([init_result])
