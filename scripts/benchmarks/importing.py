"""Documents with vectors of their own: imported, imported again unchanged, exported, as Parquet."""

import base64
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import Report, Target
from benchmarks.server import Running, data_directory, run_server

_DIMENSIONS = 384
_WORDS = ("orbit", "valley", "ledger", "harbor", "signal", "meadow", "copper", "lantern")
_TEXT_WORDS = 30
_SENT_BYTES = 256 << 10
_ROWS_AT_ONCE = 1_000
_FORMATS = {"documents/s": ",.0f", "seconds": ".2f", "memory MB": ",.0f"}


async def run(count: int) -> None:
    """Print the figures."""
    report = Report()
    with tempfile.TemporaryDirectory() as folder, data_directory() as directory:
        ndjson, parquet = Path(folder, "documents.ndjson"), Path(folder, "documents.parquet")
        _write_lines(ndjson, count)
        _write_parquet(parquet, count)
        async with run_server(directory) as server:
            report.section(f"{count:,} documents with vectors of {_DIMENSIONS}", _FORMATS)
            await _measure_import(report, server, "NDJSON, new", ndjson, "stored", 10_000)
            await _measure_import(report, server, "NDJSON, unchanged", ndjson, "unchanged", 2_000)
            await _measure_export(report, server, count)
            await server.request("POST", "/v1/collections", {"name": "rows"})
            await _measure_import(report, server, "Parquet, new", parquet, "stored", None, "rows")


def _documents(count: int) -> Iterator[tuple[dict[str, Any], np.ndarray[Any, Any]]]:
    generator = np.random.default_rng(7)
    for number in range(count):
        words = generator.choice(_WORDS, _TEXT_WORDS)
        fields = {"id": f"document-{number}", "title": f"Title {number}", "text": " ".join(words)}
        yield fields, generator.standard_normal(_DIMENSIONS).astype("<f4")


def _write_lines(path: Path, count: int) -> None:
    with path.open("wb") as file:
        for number, (fields, vector) in enumerate(_documents(count)):
            text = base64.b64encode(vector.tobytes()).decode()
            metadata = {"year": number % 30, "team": "sec"}
            file.write(orjson.dumps({**fields, "metadata": metadata, "vector": text}) + b"\n")


def _write_parquet(path: Path, count: int) -> None:
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("id", "title", "text")),
            ("vector", pa.list_(pa.float32(), _DIMENSIONS)),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, Any]] = []
        for fields, vector in _documents(count):
            rows.append({**fields, "vector": vector})
            if len(rows) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))


async def _measure_import(
    report: Report,
    server: Running,
    label: str,
    path: Path,
    status: str,
    least: int | None,
    collection: str = "default",
) -> None:
    started = time.perf_counter()
    url = f"{server.url}/v1/collections/{collection}/import"
    async with server.session.post(url, data=_pieces(path)) as response:
        answer = orjson.loads(await response.read())
    seconds = time.perf_counter() - started
    if set(answer.get("counts", ())) != {status}:
        raise RuntimeError(f"{label}: {answer}")
    rate = answer["documents"] / seconds
    targets = {"documents/s": Target.at_least(least)} if least else None
    figures = {"documents/s": rate, "seconds": seconds, "memory MB": server.memory_mb()}
    report.row(label, figures, targets)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_SENT_BYTES):
            yield piece


async def _measure_export(report: Report, server: Running, count: int) -> None:
    started = time.perf_counter()
    url = f"{server.url}/v1/collections/default/export?vectors=true"
    size_bytes = 0
    async with server.session.get(url) as response:
        async for piece in response.content.iter_any():
            size_bytes += len(piece)
    seconds = time.perf_counter() - started
    figures = {"documents/s": count / seconds, "seconds": seconds, "memory MB": server.memory_mb()}
    report.row("export", figures, remark=f"{size_bytes / seconds / 1e6:,.0f} MB/s")
