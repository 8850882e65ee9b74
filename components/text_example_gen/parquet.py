"""Records of Parquet files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .archives import seekable
from .settings import SourceSettings
from .streams import BrokenOffError, UnusableError
from .values import no_field

_MARK = b"PAR1"
_ROWS = 256  # that are decoded at a time
_BUFFER_BYTES = 1 << 20


def read_parquet(
    stream: io.BufferedReader, path: str, source: SourceSettings
) -> Iterator[dict[str, Any]]:
    """Yields the columns that are meant of each row.

    Dates, times and decimals are strings, since Python's are of a smaller range; bytes
    that are said to be text and are none stay bytes.

    Raises:
        BrokenOffError: Where the file is damaged or cut short.
        UnusableError: Where it is no Parquet, or lacks a column.
    """
    is_begun = stream.peek(len(_MARK)).startswith(_MARK)
    with seekable(stream) as content:
        try:
            file = pq.ParquetFile(content, buffer_size=_BUFFER_BYTES)
            names = source.columns
            for name in names:
                _require_column(file.schema_arrow, name)
            for batch in file.iter_batches(batch_size=_ROWS, columns=names):
                columns = {name: _values(_column(batch, name)) for name in names}
                for row in range(batch.num_rows):
                    yield {name: values[row] for name, values in columns.items()}
        except (pa.ArrowException, OSError) as error:
            reason = f"not Parquet ({' '.join(str(error).split())})"
            if is_begun:
                raise BrokenOffError(path, reason) from error
            raise UnusableError(reason) from error


def _require_column(schema: pa.Schema, name: str) -> None:
    if (number := schema.names.count(name)) > 1:
        raise UnusableError(f"with {number} columns named {name!r}")
    fields, rest = schema, name
    while rest not in fields.names:
        outer, _, rest = rest.partition(".")
        within = fields.field(outer).type if outer in fields.names else None
        if not rest or within is None or not pa.types.is_struct(within):
            raise UnusableError(no_field(name, schema.names))
        fields = pa.schema(list(within))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name in batch.schema.names:
        return batch.column(name)
    outer, _, inner = name.partition(".")
    return pc.struct_field(batch.column(outer), inner.split("."))


def _values(column: pa.Array) -> list[Any]:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_interval(kind):
        return [scalar if scalar.is_valid else None for scalar in column]
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.string()).to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        is_large = pa.types.is_large_string(kind)
        column = column.view(pa.large_binary() if is_large else pa.binary())
    return column.to_pylist()
