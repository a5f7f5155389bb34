"""How long searches take, beside what the engine and Postgres alone take, and with many clients."""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.bare_search import BareSearch
from benchmarks.child import batches
from benchmarks.report import Report, Target
from benchmarks.scene import LIMIT, Scene
from memoryd.embeddings.model import EmbeddingModel

COMMON_WORD = "zeppelin"
"""It stands in half of the windows' titles, and in no text."""
_COMMON = "lexical, a word of half the rows"
_DENSE_RATIO = Target.at_most(1.5)
_HYBRID_RATIO = Target.at_most(3)
_LEXICAL_MS = Target.at_most(10)
_COMMON_WORD_MS = Target.at_most(100)
_THROUGHPUT_RATIO = Target.at_least(1.5)
_SPREAD = Target.at_most(20)
_BLOCK = 20
_CLIENTS = 16
_REPEATS = {1: 1, _CLIENTS: 4}
_MODES = ("dense", "lexical", "hybrid")


@dataclass
class _Times:
    """Collect seconds, by what took them."""

    by_way: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def percentile_ms(self, way: str, percent: float) -> float:
        return 1e3 * float(np.percentile(self.by_way[way], percent))

    def figures(self, way: str) -> dict[str, float]:
        return {"p50 ms": self.percentile_ms(way, 50), "p99 ms": self.percentile_ms(way, 99)}


def _search(text: str, mode: str) -> dict[str, Any]:
    return {"query": text, "mode": mode, "limit": LIMIT}


async def measure_speed(
    report: Report, scene: Scene, model: EmbeddingModel, bare: BareSearch
) -> None:
    """Report p50 and p99 of every mode, one search at a time, beside encode and bare SQL."""
    if not await bare.uses_index(scene.windows.claim_vectors[0]):
        report.note("bare SQL doesn't use the index: no measure of anything")
    _warm_up(scene)
    times = _Times()
    claims = range(len(scene.windows.claims))
    for block in batches(claims, _BLOCK):
        _time_new_queries(scene, block, times)
        for claim in block:
            await _time_parts(scene, claim, model, bare, times)
        _time_known_queries(scene, block, times)
    _report_speed(report, times)


def _warm_up(scene: Scene) -> None:
    """Ask what isn't asked again."""
    texts = scene.windows.texts[:: max(1, len(scene.windows.texts) // (2 * _BLOCK))]
    scene.time_each(_search(text, mode) for mode in _MODES for text in texts)


def _time_new_queries(scene: Scene, block: Iterable[int], times: _Times) -> None:
    """Let the server embed each claim anew: to the model upper case is the same, to a cache not."""
    texts = [scene.windows.claims[claim] for claim in block]
    dense = scene.time_each(_search(text, "dense") for text in texts)
    hybrid = scene.time_each(_search(text.upper(), "hybrid") for text in texts)
    times.by_way["dense"] += dense
    times.by_way["hybrid"] += hybrid


async def _time_parts(
    scene: Scene, claim: int, model: EmbeddingModel, bare: BareSearch, times: _Times
) -> None:
    started = time.perf_counter()
    [vector] = await model.embed_query(scene.windows.claims[claim])
    encode_s = time.perf_counter() - started
    sql_s = await bare.time_s(vector)
    times.by_way["encode, in process"].append(encode_s)
    times.by_way["bare SQL"].append(sql_s)
    times.by_way["encode + bare SQL"].append(encode_s + sql_s)


def _time_known_queries(scene: Scene, block: Iterable[int], times: _Times) -> None:
    asked = [
        (way, _search(text, mode))
        for claim in block
        for way, text, mode in (
            ("dense, vector cached", scene.windows.claims[claim], "dense"),
            ("lexical", scene.windows.claims[claim], "lexical"),
            ("hybrid, vector cached", scene.windows.claims[claim].upper(), "hybrid"),
            (_COMMON, COMMON_WORD, "lexical"),
        )
    ]
    seconds = scene.time_each(body for _, body in asked)
    for (way, _), taken_s in zip(asked, seconds, strict=True):
        times.by_way[way].append(taken_s)


def _report_speed(report: Report, times: _Times) -> None:
    report.section(
        "one search at a time, over HTTP unless it says otherwise",
        {"p50 ms": ".2f", "p99 ms": ".2f", "ratio": ".2f"},
    )
    for way in ("encode, in process", "bare SQL", "encode + bare SQL"):
        report.row(way, times.figures(way))
    _report_ratio(report, times, "dense", "encode + bare SQL", _DENSE_RATIO)
    _report_ratio(report, times, "hybrid", "dense", _HYBRID_RATIO)
    for way in ("dense, vector cached", "hybrid, vector cached"):
        report.row(way, times.figures(way))
    report.row("lexical", times.figures("lexical"), {"p50 ms": _LEXICAL_MS})
    report.row(_COMMON, times.figures(_COMMON), {"p50 ms": _COMMON_WORD_MS})


def _report_ratio(report: Report, times: _Times, way: str, other: str, target: Target) -> None:
    ratio = times.percentile_ms(way, 50) / times.percentile_ms(other, 50)
    figures = times.figures(way) | {"ratio": ratio}
    report.row(way, figures, {"ratio": target}, f"ratio to {other}")


async def measure_many_clients(report: Report, scene: Scene, rounds: int) -> None:
    """Report searches per second of one client and of 16, the vectors of queries being cached."""
    report.section(
        f"one client and {_CLIENTS}, vectors of queries cached",
        {
            "searches/s": ",.0f",
            "p50 ms": ".2f",
            "p99 ms": ".2f",
            "p99 : p50": ".1f",
            "ratio": ".2f",
        },
    )
    for mode in _MODES:
        bodies = [_search(claim, mode) for claim in scene.windows.claims]
        scene.time_each(bodies)
        _report_clients(report, mode, [_compare_clients(scene, bodies) for _ in range(rounds)])


def _compare_clients(scene: Scene, bodies: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {
        clients: scene.time_all(bodies * repeats, clients) for clients, repeats in _REPEATS.items()
    }


def _report_clients(report: Report, mode: str, turns: list[dict[int, dict[str, Any]]]) -> None:
    per_s = {
        clients: [len(turn[clients]["each_s"]) / turn[clients]["seconds"] for turn in turns]
        for clients in _REPEATS
    }
    for clients in _REPEATS:
        each_s = [seconds for turn in turns for seconds in turn[clients]["each_s"]]
        p50_ms, p99_ms = (1e3 * float(np.percentile(each_s, percent)) for percent in (50, 99))
        figures = {
            "searches/s": statistics.median(per_s[clients]),
            "p50 ms": p50_ms,
            "p99 ms": p99_ms,
            "p99 : p50": p99_ms / p50_ms,
        }
        if clients == 1:
            report.row(f"{mode}, one client", figures)
            continue
        pairs = zip(per_s[clients], per_s[1], strict=True)
        figures["ratio"] = statistics.median(many / one for many, one in pairs)
        targets = {"ratio": _THROUGHPUT_RATIO, "p99 : p50": _SPREAD}
        report.row(f"{mode}, {clients} clients", figures, targets)
