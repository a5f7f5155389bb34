"""Search quality and speed on SciFact, over HTTP into a fresh server."""

import math
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.data import Claim, read_abstracts, read_claims
from benchmarks.ingest import Speed, measure_speed
from benchmarks.local import load_model
from benchmarks.server import Running, data_directory, run_server


async def run() -> None:
    """Print the figures."""
    abstracts, claims = read_abstracts(), read_claims()
    with data_directory() as directory:
        async with run_server(directory) as server:
            print(f"ready after {server.start_s:.2f} s, {server.memory_mb():.0f} MB resident")
            async with load_model() as model:
                speed = await measure_speed(server, model, abstracts)
            _print_speed(speed)
            await _measure_search(server, claims)
            print(f"{server.memory_mb():.0f} MB resident at the end")


def _print_speed(speed: Speed) -> None:
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
