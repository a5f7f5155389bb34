"""Ingest of SciFact over HTTP: beside the bare engine, what chunking takes, and posted again."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.data import read_abstracts
from benchmarks.local import load_model
from benchmarks.report import Report, Target
from benchmarks.server import Running, data_directory, run_server
from memoryd.documents.breaks import choose_format
from memoryd.documents.chunking import split
from memoryd.embeddings.model import EmbeddingModel

DOCUMENTS = "/v1/collections/default/documents"
# Slices are ingested and embedded by the bare engine in turn, so that both meet the same noise.
_SLICE = 650
_BATCH, _CONNECTIONS = 64, 4
_LARGE_BATCH = 1_000
_NDJSON = {"Content-Type": "application/x-ndjson"}
_RATIO = Target.at_least(0.90)
_CHUNKING_PERCENT = Target.at_most(5)
_UNCHANGED_PER_S = Target.at_least(2_000)


@dataclass
class Speed:
    """Add up the work and the time of the server and of the bare engine."""

    documents: int = 0
    tokens: int = 0
    ingest_s: float = 0.0
    engine_s: float = 0.0

    @property
    def ratio(self) -> float:
        """How fast the server is, the engine alone being 1."""
        return self.engine_s / self.ingest_s


async def run(count: int, json: Path | None) -> None:
    """Print the figures of the first `count` documents, and write them to `json`."""
    abstracts = read_abstracts()[:count]
    report = Report()
    with data_directory() as directory:
        async with run_server(directory) as server, load_model() as model:
            speed = await measure_speed(server, model, abstracts)
            report_speed(report, speed)
            _report_chunking(report, model, await _chunking_of(server), abstracts, speed)
            await _report_unchanged(report, server, abstracts)
    if json:
        report.save(json)


async def measure_speed(
    server: Running, model: EmbeddingModel, abstracts: Sequence[dict[str, Any]]
) -> Speed:
    """Ingest all of `abstracts` into a server that has none of them."""
    speed = Speed()
    for start in range(0, len(abstracts), _SLICE):
        part = abstracts[start : start + _SLICE]
        speed.ingest_s += await _timed(_ingest(server, part, _BATCH, _CONNECTIONS, "stored"))
        inputs = await _inputs(server, model, part)
        speed.engine_s += await _timed(model.embed_inputs(inputs))
        speed.documents += len(part)
        speed.tokens += sum(map(len, inputs))
    return speed


async def _timed(work: Awaitable[object]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def _ingest(
    server: Running,
    abstracts: Sequence[dict[str, Any]],
    size: int,
    connections: int,
    expected: str,
) -> None:
    """Post batches of `size`; each document must become what is expected."""
    waiting = iter([abstracts[start : start + size] for start in range(0, len(abstracts), size)])

    async def post() -> None:
        for batch in waiting:
            path = f"{DOCUMENTS}?wait_s=300"
            answer = await server.request("POST", path, {"documents": batch})
            _check(answer, expected)

    await asyncio.gather(*(post() for _ in range(connections)))


def _check(answer: dict[str, Any], expected: str) -> None:
    others = [item for item in answer["documents"] if item["status"] != expected]
    if others:
        raise RuntimeError(f"not {expected}: {others[:3]}")


async def _inputs(
    server: Running, model: EmbeddingModel, abstracts: Sequence[dict[str, Any]]
) -> list[Any]:
    """Return what the engine saw of these documents."""
    inputs = []
    for abstract in abstracts:
        answer = await server.request("GET", f"{DOCUMENTS}/{abstract['id']}/chunks")
        inputs += [
            model.encode_document(abstract["title"], chunk["text"]) for chunk in answer["chunks"]
        ]
    return inputs


def report_speed(report: Report, speed: Speed) -> None:
    """Report tokens per second of the server and of the engine alone."""
    report.section(
        f"ingest of {speed.documents:,} documents with {speed.tokens:,} tokens",
        {"documents/s": ",.1f", "tokens/s": ",.0f", "ratio": ".3f"},
    )
    report.row("the engine alone, same chunks", {"tokens/s": speed.tokens / speed.engine_s})
    report.row(
        "over HTTP",
        {
            "documents/s": speed.documents / speed.ingest_s,
            "tokens/s": speed.tokens / speed.ingest_s,
            "ratio": speed.ratio,
        },
        {"ratio": _RATIO},
    )


async def _chunking_of(server: Running) -> dict[str, Any]:
    chunking: dict[str, Any] = (await server.request("GET", "/v1/collections/default"))["chunking"]
    return chunking


def _report_chunking(
    report: Report,
    model: EmbeddingModel,
    chunking: dict[str, Any],
    abstracts: Sequence[dict[str, Any]],
    speed: Speed,
) -> None:
    """Report what one thread needs to cut all texts, beside what their ingest took."""
    started = time.perf_counter()
    for abstract in abstracts:
        split(
            abstract["text"],
            max_tokens=chunking["max_tokens"] - len(model.encode_document(abstract["title"], "")),
            overlap_tokens=chunking["overlap_tokens"],
            count_tokens=model.count_tokens,
            form=choose_format(abstract["text"], None),
        )
    seconds = time.perf_counter() - started
    report.section("chunking, in one thread", {"documents/s": ",.0f", "% of ingest": ".2f"})
    report.row(
        "split",
        {"documents/s": len(abstracts) / seconds, "% of ingest": 100 * seconds / speed.ingest_s},
        {"% of ingest": _CHUNKING_PERCENT},
    )


async def _report_unchanged(
    report: Report, server: Running, abstracts: Sequence[dict[str, Any]]
) -> None:
    """Report how fast documents are posted again that are there already."""
    report.section("the same documents again", {"documents/s": ",.0f"})
    for size, connections in ((_LARGE_BATCH, 1), (_LARGE_BATCH, _CONNECTIONS), (100, _CONNECTIONS)):
        seconds = await _timed(_ingest(server, abstracts, size, connections, "unchanged"))
        report.row(
            f"batches of {size}, {connections} at a time",
            {"documents/s": len(abstracts) / seconds},
            {"documents/s": _UNCHANGED_PER_S} if size == _LARGE_BATCH else None,
        )
    seconds = await _timed(_stream(server, abstracts))
    report.row(
        "NDJSON", {"documents/s": len(abstracts) / seconds}, {"documents/s": _UNCHANGED_PER_S}
    )


async def _stream(server: Running, abstracts: Sequence[dict[str, Any]]) -> None:
    lines = b"\n".join(map(orjson.dumps, abstracts))
    async with server.session.post(
        f"{server.url}{DOCUMENTS}?wait_s=300&wait=true", data=lines, headers=_NDJSON
    ) as response:
        answer = orjson.loads(await response.read())
    _check(answer, "unchanged")
    job = answer["job"]  # of many; of few, each is told
    if job and job["counts"].get("unchanged") != len(abstracts):
        raise RuntimeError(f"not unchanged: {job}")
