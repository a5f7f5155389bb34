"""The process that reads a Parquet file from its input, and writes its rows as lines of JSON."""

import base64
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa  # type: ignore[import-untyped] # it ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped] # it ships no types

from memoryd.parsers.confinement import confine

_MEMORY_BYTES = 4 << 30
_ROWS_AT_ONCE = 512
_BUFFER_BYTES = 1 << 20  # else whole columns of a row group would be held
_SAID = 3
_VECTOR = "vector"
_COLUMNS = (
    *("id", "title", "text", "vector", "chunks", "mime_type", "language", "metadata", "tags"),
    *("expires_at", "created_at", "sections", "on_conflict"),
)
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z


class _UnreadableError(Exception):
    """Say why the file can't be imported."""


def main() -> None:
    """Write all rows; end with a status and a reason where that can't be."""
    confine(_MEMORY_BYTES)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whoever reads has had enough
    try:
        for line in _lines(sys.stdin.buffer):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except _UnreadableError as error:
        _end(str(error))
    except (pa.ArrowException, OSError) as error:
        _end(f"it is broken: {error}")
    except MemoryError:
        _end("it needs more memory than one may take: write smaller row groups")


def _end(reason: str) -> None:
    sys.stdout.buffer.flush()
    sys.stderr.write(reason)
    sys.exit(_SAID)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES)
    _check_columns(parquet.schema_arrow)
    for batch in parquet.iter_batches(_ROWS_AT_ONCE, use_threads=False):
        yield from _write(batch)


def _check_columns(schema: pa.Schema) -> None:
    unknown = [name for name in schema.names if name not in _COLUMNS]
    if unknown:
        raise _UnreadableError(
            f"it has a column {unknown[0]!r}, and those that are read are {', '.join(_COLUMNS)}: "
            "leave it out, or put it into metadata"
        )


def _write(batch: pa.RecordBatch) -> Iterator[bytes]:
    columns = {
        name: _vectors(column) if name == _VECTOR else column.to_pylist()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    for values in zip(*columns.values(), strict=True):
        row = {
            name: value for name, value in zip(columns, values, strict=True) if value is not None
        }
        yield _line(row)


def _vectors(column: pa.Array) -> list[str | None]:
    """Return each vector as base64 of float32."""
    kind = column.type
    if not (hasattr(kind, "value_type") and _is_number(kind.value_type)):
        raise _UnreadableError(f"its column vector has {kind}, and not lists of numbers")
    return [
        base64.b64encode(np.asarray(each.values, "<f4").tobytes()).decode()
        if each.is_valid
        else None
        for each in column
    ]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _line(row: dict[str, Any]) -> bytes:
    try:
        if isinstance(row.get("metadata"), str):
            row["metadata"] = orjson.loads(row["metadata"])
        return orjson.dumps(row, option=_OPTIONS)
    except (TypeError, ValueError) as error:
        raise _UnreadableError(f"a row can't be read: {error}") from error


if __name__ == "__main__":
    main()
