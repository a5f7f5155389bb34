"""Quality of search on SciFact, over HTTP at default settings into a fresh server."""

import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.child import batches
from benchmarks.data import Claim, read_abstracts, read_claims
from benchmarks.ingest import measure_speed, report_speed
from benchmarks.loading import as_base64, import_records
from benchmarks.local import load_model
from benchmarks.report import Report, Target
from benchmarks.server import Running, kept_directory, run_server
from benchmarks.vector_cache import embed_chunks
from memoryd.vectors.types import Vector

_NDCG = {
    "dense": Target.at_least(0.645),
    "lexical": Target.at_least(0.675),
    "hybrid": Target.at_least(0.71),
}
_HYBRID_RECALL = Target.at_least(0.95)
_PRECISION_LOSS = Target.at_most(0.001)
_CONSTANTS = (2, 5, 10, 20, 40, 60, 100)
_WEIGHTS = ((2, 1), (1.5, 1), (1, 1), (1, 1.5), (1, 2))
_SHOWN = 8
_SEED = 7
_DEFAULT = "default"
_BATCH = 500
_HALVES = {"chosen on": ".4f", "shown on": ".4f"}


@dataclass(frozen=True)
class _Bench:
    """Hold a server that has SciFact, and its claims."""

    server: Running
    claims: Sequence[Claim]

    async def ask(
        self, collection: str, limit: int, fields: Mapping[str, object]
    ) -> tuple[list[list[str]], list[float]]:
        """Search for each claim; return the ids of documents, and the milliseconds."""
        found, times_ms = [], []
        for claim in self.claims:
            started = time.perf_counter()
            answer = await self.server.request(
                "POST",
                f"/v1/collections/{collection}/search",
                {"query": claim.text, "limit": limit, **fields},
            )
            times_ms.append(1e3 * (time.perf_counter() - started))
            found.append([result["document"]["id"] for result in answer["results"]])
        return found, times_ms

    async def ndcg(self, collection: str = _DEFAULT, **fields: object) -> list[float]:
        """Return nDCG@10 by document for each claim."""
        found, _ = await self.ask(collection, 10, fields)
        return self.score(found)

    def score(self, found: Sequence[Sequence[str]]) -> list[float]:
        """Return nDCG@10 of what was found for each claim."""
        pairs = zip(found, self.claims, strict=True)
        return [ndcg(documents, claim.relevant) for documents, claim in pairs]

    async def has(self, collection: str) -> bool:
        """Say whether a collection is there and holds something."""
        collections = (await self.server.request("GET", "/v1/collections"))["collections"]
        return any(each["name"] == collection and each["chunks"] for each in collections)


async def run(reuse: Path | None, sizes: Sequence[int], json: Path | None) -> None:
    """Print the tables; chunks of `sizes` tokens are compared too."""
    report = Report()
    abstracts = read_abstracts()
    with kept_directory(reuse) as directory:
        async with run_server(directory) as server:
            report.note(f"ready after {server.start_s:.2f} s, {server.memory_mb():.0f} MB resident")
            bench = _Bench(server, read_claims())
            await _ingest(report, bench, abstracts)
            await _report_modes(report, bench)
            await _report_precision(report, bench)
            await _report_settings(report, bench)
            await _report_sizes(report, bench, abstracts, sizes)
            report.note(f"\n{server.memory_mb():.0f} MB resident at the end")
    if json:
        report.save(json)


async def _ingest(report: Report, bench: _Bench, abstracts: Sequence[dict[str, Any]]) -> None:
    if await bench.has(_DEFAULT):
        report.note("SciFact is there already")
        return
    async with load_model() as model:
        report_speed(report, await measure_speed(bench.server, model, abstracts))


async def _report_modes(report: Report, bench: _Bench) -> None:
    report.section(
        f"{len(bench.claims)} claims, by document",
        {"nDCG@10": ".4f", "recall@100": ".4f", "p50 ms": ".1f", "p99 ms": ".1f"},
    )
    for mode, target in _NDCG.items():
        found, times_ms = await bench.ask(_DEFAULT, 10, {"mode": mode})
        deep, _ = await bench.ask(_DEFAULT, 100, {"mode": mode})
        figures = {
            "nDCG@10": statistics.fmean(bench.score(found)),
            "recall@100": statistics.fmean(map(_recall, deep, bench.claims)),
            "p50 ms": float(np.percentile(times_ms, 50)),
            "p99 ms": float(np.percentile(times_ms, 99)),
        }
        targets = {"nDCG@10": target}
        if mode == "hybrid":
            targets["recall@100"] = _HYBRID_RECALL
        report.row(mode, figures, targets)


def _recall(found: Sequence[str], claim: Claim) -> float:
    return len(claim.relevant.keys() & {*found}) / len(claim.relevant)


# --- Half precision ----


async def _report_precision(report: Report, bench: _Bench) -> None:
    """Report what half precision costs: the same vectors in two collections, searched exactly."""
    exact = {"mode": "dense", "params": {"exact": True}}
    scores = {}
    for precision in ("half", "full"):
        if not await bench.has(precision):
            await _copy(bench.server, precision)
        scores[precision] = statistics.fmean(await bench.ndcg(precision, **exact))
    report.section("precision of vectors, exact search", {"nDCG@10": ".5f", "difference": ".5f"})
    report.row("full", {"nDCG@10": scores["full"]})
    difference = abs(scores["half"] - scores["full"])
    figures = {"nDCG@10": scores["half"], "difference": difference}
    report.row("half", figures, {"difference": _PRECISION_LOSS})


async def _copy(server: Running, precision: str) -> None:
    """Make a collection of that precision, with the engine's own vectors of the same chunks."""
    documents = await _export(server)
    chunks = [
        (document["title"], chunk["text"]) for document in documents for chunk in document["chunks"]
    ]
    vectors = iter(await embed_chunks("scifact", chunks))
    records = [_record(document, vectors) for document in documents]
    await server.request("POST", "/v1/collections", {"name": precision, "precision": precision})
    await import_records(server, precision, records)


async def _export(server: Running) -> list[dict[str, Any]]:
    """Return the documents and their chunks, in an order that is the same after every ingest."""
    url = f"{server.url}/v1/collections/{_DEFAULT}/export"
    async with server.session.get(url) as response:
        lines = (await response.read()).splitlines()
    return sorted(map(orjson.loads, lines[1:-1]), key=lambda document: int(document["id"]))


def _record(document: dict[str, Any], vectors: Iterator[Vector]) -> bytes:
    """Return a line of an import: the document's text, and its chunks as spans of it."""
    chunks = [
        {
            "start_char": chunk["start_char"],
            "end_char": chunk["end_char"],
            "vector": as_base64(next(vectors)),
        }
        for chunk in document["chunks"]
    ]
    fields = {name: document[name] for name in ("id", "title", "text")}
    return orjson.dumps({**fields, "chunks": chunks}) + b"\n"


# --- Settings, chosen on one half of the claims and shown on the other ----


async def _report_settings(report: Report, bench: _Bench) -> None:
    """Report how the arms may be fused: the default, and what is best on the first half."""
    scores = {name: await bench.ndcg(fusion=fusion) for name, fusion in _fusions().items()}
    halves = {name: _by_half(each) for name, each in scores.items()}
    best = sorted(halves, key=lambda name: -halves[name]["chosen on"])[:_SHOWN]
    report.section(f"fusion, the best {_SHOWN} of {len(halves)} on one half: nDCG@10", _HALVES)
    report.row("default", _by_half(await bench.ndcg()))
    for name in best:
        report.row(name, halves[name])
    report.facts["fusion"] = halves


def _fusions() -> dict[str, dict[str, object]]:
    weights = [{"dense": dense, "lexical": lexical} for dense, lexical in _WEIGHTS]
    by_rank: dict[str, dict[str, object]] = {
        f"rrf, k {k}, {_in_words(each)}": {"method": "rrf", "k": k, "weights": each}
        for k in _CONSTANTS
        for each in weights
    }
    by_score: dict[str, dict[str, object]] = {
        f"relative, {_in_words(each)}": {"method": "relative", "weights": each} for each in weights
    }
    return by_rank | by_score


def _in_words(weights: Mapping[str, float]) -> str:
    return f"dense {weights['dense']:g} : lexical {weights['lexical']:g}"


def _by_half(scores: Sequence[float]) -> dict[str, float]:
    order = np.random.default_rng(_SEED).permutation(len(scores))
    middle = len(scores) // 2
    values = np.asarray(scores)[order]
    return {"chosen on": float(values[:middle].mean()), "shown on": float(values[middle:].mean())}


async def _report_sizes(
    report: Report, bench: _Bench, abstracts: Sequence[dict[str, Any]], sizes: Sequence[int]
) -> None:
    """Report hybrid search of other sizes of chunks, each ingested into a collection."""
    if not sizes:
        return
    for size in sizes:
        if not await bench.has(f"chunks-{size}"):
            await _ingest_chunks(bench.server, abstracts, size)
    report.section("size of chunks, tokens: nDCG@10 of hybrid search", _HALVES)
    report.row("default", _by_half(await bench.ndcg()))
    for size in sizes:
        report.row(str(size), _by_half(await bench.ndcg(f"chunks-{size}")))


async def _ingest_chunks(server: Running, abstracts: Sequence[dict[str, Any]], size: int) -> None:
    name = f"chunks-{size}"
    chunking = {"max_tokens": size, "overlap_tokens": size // 8}  # the default's share
    await server.request("POST", "/v1/collections", {"name": name, "chunking": chunking})
    for batch in batches(abstracts, _BATCH):
        path = f"/v1/collections/{name}/documents?wait_s=300"
        answer = await server.request("POST", path, {"documents": batch})
        if any(document["status"] != "stored" for document in answer["documents"]):
            raise RuntimeError(f"not stored: {answer['documents'][:3]}")


def ndcg(found: Sequence[str], relevant: dict[str, int], depth: int = 10) -> float:
    """Return nDCG at `depth` with linear gains (Järvelin and Kekäläinen, 2002)."""
    gains = [relevant.get(document, 0) for document in found[:depth]]
    best = sorted(relevant.values(), reverse=True)[:depth]
    return _dcg(gains) / _dcg(best)


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
