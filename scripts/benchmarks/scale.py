"""A million synthetic vectors: how fast they load, what their index takes, how well it finds."""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare_search import open_bare_search
from benchmarks.child import Child, batches, run_child
from benchmarks.loading import import_records, record, wait_for_hnsw
from benchmarks.report import Report
from benchmarks.server import Running, kept_directory, run_server
from memoryd.vectors.similarity import normalize
from memoryd.vectors.types import Vectors

_COLLECTION = "scale"
_PATH = f"/v1/collections/{_COLLECTION}/search"
_DIMENSIONS = 384
_CLUSTERS = 1_000
# Embeddings of texts vary in a few dozen directions, not in all of theirs.
_DIRECTIONS, _SPREAD = 24, 0.15
_BLOCK = 10_000
_WORDS, _VOCABULARY, _ZIPF = 8, 50_000, 1.3
_QUERIES = 200
_LIMIT = 10
_EXACT = {"params": {"exact": True}}
_SEED = 7


async def run(count: int, reuse: Path | None, json_path: Path | None) -> None:
    """Print the figures; save them where a path is given."""
    report = Report()
    report.note(f"{count:,} vectors of {_DIMENSIONS} around {_CLUSTERS:,} centers")
    with kept_directory(reuse) as directory, run_child("benchmarks.clients") as clients:
        async with run_server(directory) as server:
            await _load(report, server, count, directory)
            await _search(report, server, clients)
            report.note(f"server: {server.memory_mb():.0f} MB resident, Postgres aside")
    if json_path:
        report.save(json_path)


async def _load(report: Report, server: Running, count: int, directory: Path) -> None:
    collections = (await server.request("GET", "/v1/collections"))["collections"]
    if all(each["name"] != _COLLECTION for each in collections):
        await server.request("POST", "/v1/collections", {"name": _COLLECTION})
        import_s = await import_records(server, _COLLECTION, _records(count))
        index_s = await wait_for_hnsw(server, _COLLECTION)
        report.section("load", {"seconds": ",.1f", "rows/s": ",.0f"})
        report.row("import", {"seconds": import_s, "rows/s": count / import_s})
        report.row("until the index is there", {"seconds": index_s, "rows/s": count / index_s})
    async with open_bare_search(directory, _COLLECTION) as bare:
        index_bytes = await bare.index_bytes()
    whole_bytes = (await server.request("GET", f"/v1/collections/{_COLLECTION}"))["bytes"]
    report.section("on disk", {"MB": ",.0f"})
    report.row("HNSW", {"MB": index_bytes / 1e6})
    report.row("the collection", {"MB": whole_bytes / 1e6})


def _records(count: int) -> Iterator[bytes]:
    for block in batches(range(count), _BLOCK):
        generator = np.random.default_rng((_SEED, block[0]))
        vectors = _vectors(generator, len(block))
        for number, text, vector in zip(block, _texts(generator, len(block)), vectors, strict=True):
            yield record(number, text, vector)


def _vectors(generator: np.random.Generator, count: int) -> Vectors:
    """Return unit vectors around the centers, shape (count, dimensions)."""
    fixed = np.random.default_rng(_SEED)
    centers = normalize(fixed.standard_normal((_CLUSTERS, _DIMENSIONS), np.float32))
    directions = normalize(fixed.standard_normal((_DIRECTIONS, _DIMENSIONS), np.float32))
    moves = generator.standard_normal((count, _DIRECTIONS), np.float32) @ directions
    return normalize(centers[generator.integers(0, _CLUSTERS, count)] + _SPREAD * moves)


def _texts(generator: np.random.Generator, count: int) -> list[str]:
    """Return texts of words that are as unequally frequent as those of a language."""
    words = np.minimum(generator.zipf(_ZIPF, (count, _WORDS)), _VOCABULARY)
    return [" ".join(f"term{word}" for word in row) for row in words.tolist()]


async def _search(report: Report, server: Running, clients: Child) -> None:
    generator = np.random.default_rng(_SEED + 1)
    dense = [
        {"query": {"vector": vector}, "mode": "dense", "limit": _LIMIT}
        for vector in _vectors(generator, _QUERIES).tolist()
    ]
    lexical = [
        {"query": text, "mode": "lexical", "limit": _LIMIT} for text in _texts(generator, _QUERIES)
    ]
    recall = statistics.fmean([await _recall(server, body) for body in dense])
    report.section("search", {"p50 ms": ".2f", "p99 ms": ".2f", "recall@10": ".4f"})
    ways: dict[str, list[dict[str, Any]]] = {
        "dense": dense,
        "dense, exact": [body | _EXACT for body in dense[::10]],
        "lexical": lexical,
    }
    for way, bodies in ways.items():
        figures = _percentiles(server, clients, bodies)
        report.row(way, figures | ({"recall@10": recall} if way == "dense" else {}))


async def _recall(server: Running, body: dict[str, Any]) -> float:
    found, exactly = [
        {result["document"]["id"] for result in answer["results"]}
        for answer in [
            await server.request("POST", _PATH, asked) for asked in (body, body | _EXACT)
        ]
    ]
    return len(found & exactly) / len(exactly)


def _percentiles(server: Running, clients: Child, bodies: list[dict[str, Any]]) -> dict[str, float]:
    requests = [json.dumps(body) for body in bodies]
    answer = clients.call("time_each", url=server.url, path=_PATH, bodies=requests, clients=1)
    p50_s, p99_s = np.percentile(answer["each_s"], (50, 99))
    return {"p50 ms": 1e3 * float(p50_s), "p99 ms": 1e3 * float(p99_s)}
