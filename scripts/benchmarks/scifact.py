"""Search quality and speed on SciFact, over HTTP into a fresh server."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.data import Claim, read_abstracts, read_claims
from benchmarks.local import load_model
from benchmarks.server import Running, data_directory, run_server
from memoryd.embeddings.model import EmbeddingModel

# Slices are ingested and embedded by the bare engine in turn, so that both meet the same noise.
_SLICES = 8
_BATCH = 64
_CONNECTIONS = 4
_DOCUMENTS = "/v1/collections/default/documents"


@dataclass
class _Speed:
    """Add up the work and the time of both contenders."""

    documents: int = 0
    tokens: int = 0
    ingest_s: float = 0.0
    engine_s: float = 0.0


async def run() -> None:
    """Print the figures."""
    abstracts, claims = read_abstracts(), read_claims()
    with data_directory() as directory:
        async with run_server(directory) as server:
            print(f"ready after {server.start_s:.2f} s, {server.memory_mb():.0f} MB resident")
            async with load_model() as model:
                speed = await _measure_ingest(server, model, abstracts)
            _print_speed(speed)
            await _measure_search(server, claims)
            print(f"{server.memory_mb():.0f} MB resident at the end")


async def _measure_ingest(
    server: Running, model: EmbeddingModel, abstracts: Sequence[dict[str, Any]]
) -> _Speed:
    speed = _Speed()
    for number in range(_SLICES):
        part = abstracts[number::_SLICES]
        started = time.perf_counter()
        await _ingest(server, part)
        speed.ingest_s += time.perf_counter() - started
        inputs = await _inputs(server, model, part)
        started = time.perf_counter()
        await model.embed_inputs(inputs)
        speed.engine_s += time.perf_counter() - started
        speed.documents += len(part)
        speed.tokens += sum(map(len, inputs))
    return speed


async def _ingest(server: Running, abstracts: Sequence[dict[str, Any]]) -> None:
    batches = [abstracts[start : start + _BATCH] for start in range(0, len(abstracts), _BATCH)]
    waiting = iter(batches)

    async def post() -> None:
        for batch in waiting:
            answer = await server.request("POST", _DOCUMENTS, {"documents": batch})
            failed = [item for item in answer["documents"] if item["status"] != "stored"]
            if failed:
                raise RuntimeError(f"not stored: {failed[:3]}")

    await asyncio.gather(*(post() for _ in range(_CONNECTIONS)))


async def _inputs(
    server: Running, model: EmbeddingModel, abstracts: Sequence[dict[str, Any]]
) -> list[Any]:
    """Return what the engine saw of these documents."""
    inputs = []
    for abstract in abstracts:
        answer = await server.request("GET", f"{_DOCUMENTS}/{abstract['id']}/chunks")
        inputs += [
            model.encode_document(abstract["title"], chunk["text"]) for chunk in answer["chunks"]
        ]
    return inputs


def _print_speed(speed: _Speed) -> None:
    ingest, engine = speed.tokens / speed.ingest_s, speed.tokens / speed.engine_s
    print(f"ingest: {speed.documents} documents, {speed.tokens} tokens in {speed.ingest_s:.1f} s")
    print(f"  {speed.documents / speed.ingest_s:.1f} documents/s, {ingest:.0f} tokens/s")
    print(f"  engine alone on the same chunks {engine:.0f} tokens/s: ratio {ingest / engine:.3f}")


async def _measure_search(server: Running, claims: Sequence[Claim]) -> None:
    scores, times = [], []
    for claim in claims:
        started = time.perf_counter()
        answer = await server.request(
            "POST", "/v1/collections/default/search", {"query": claim.text, "limit": 10}
        )
        times.append((time.perf_counter() - started) * 1000)
        found = [result["document"]["id"] for result in answer["results"]]
        scores.append(ndcg(found, claim.relevant))
    print(f"search: {len(claims)} queries, nDCG@10 by document {np.mean(scores):.4f}")
    print(f"  p50 {np.percentile(times, 50):.1f} ms, p99 {np.percentile(times, 99):.1f} ms")


def ndcg(found: Sequence[str], relevant: dict[str, int], depth: int = 10) -> float:
    """Return nDCG at `depth` with linear gains (Järvelin and Kekäläinen, 2002)."""
    gains = [relevant.get(document, 0) for document in found[:depth]]
    best = sorted(relevant.values(), reverse=True)[:depth]
    return _dcg(gains) / _dcg(best)


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains))
