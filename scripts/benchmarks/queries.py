"""Queries while bulk keeps every core busy, and what bulk loses to them."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.child import Child
from benchmarks.llama_server import embedding_bodies
from benchmarks.pacing import ask_while
from benchmarks.report import Report, Target
from benchmarks.server import Running
from benchmarks.serving import EMBEDDINGS_PATH, search_bodies
from benchmarks.texts import LONG, MID, SHORT, Kind, cut_texts
from memoryd.embeddings.model import EmbeddingModel

_PER_SECOND = 20
_SEARCH_PATH = "/v1/collections/default/search"
_DOCUMENTS_PATH = "/v1/collections/default/documents"
_DOCUMENTS = 200
# All of a round's texts wait at the server at once.
_CLIENTS = 8
_TEXTS_PER_REQUEST = 8
# Bulk of about three seconds: this many times the texts of a contender's turn.
_BULK_SCALE = 3
_P99_MS = Target.at_most(25)
_LOSS_PERCENT = Target.at_most(10)


@dataclass
class _Turns:
    """Collect the rounds of one way to ask, seconds."""

    query_s: list[float] = field(default_factory=list)
    loss_percent: list[float] = field(default_factory=list)

    async def add(self, way: "_InProcess | _OverHTTP", texts: list[str], number: int) -> None:
        """Run bulk with and without queries, the other first in every second round."""
        if number % 2 == 0:
            alone_s = await way.alone(texts)
            shared_s, query_s = await way.shared(texts)
        else:
            shared_s, query_s = await way.shared(texts)
            alone_s = await way.alone(texts)
        self.query_s += query_s
        self.loss_percent.append(100 * (1 - alone_s / shared_s))


class _InProcess:
    """Bulk by embed(), queries by embed_query()."""

    label = "embed_query in process"

    def __init__(self, model: EmbeddingModel, queries: Sequence[str]) -> None:
        self._model = model
        self._queries = queries

    async def alone(self, texts: list[str]) -> float:
        started = time.perf_counter()
        await self._model.embed(texts)
        return time.perf_counter() - started

    async def shared(self, texts: list[str]) -> tuple[float, list[float]]:
        bulk = asyncio.create_task(self.alone(texts))
        query_s = await ask_while(bulk, self._ask, _PER_SECOND)
        return await bulk, query_s

    async def _ask(self, number: int) -> None:
        await self._model.embed_query(self._queries[number % len(self._queries)])


class _OverHTTP:
    """Bulk by /v1/embeddings, queries by a collection's search."""

    label = f"POST {_SEARCH_PATH.replace('default', '{c}')}"

    def __init__(self, url: str, clients: Child, queries: Sequence[str]) -> None:
        self._url = url
        self._clients = clients
        self._queries = search_bodies(queries)
        self.cpu_percent: list[float] = []

    async def alone(self, texts: list[str]) -> float:
        return float(self._call("send_all", texts)["seconds"])

    async def shared(self, texts: list[str]) -> tuple[float, list[float]]:
        answer = self._call(
            "send_all_and_ask",
            texts,
            query_path=_SEARCH_PATH,
            queries=self._queries,
            per_second=_PER_SECOND,
        )
        self.cpu_percent.append(100 * answer["cpu_s"] / answer["seconds"])
        return answer["seconds"], answer["query_s"]

    def _call(self, function: str, texts: list[str], **more: object) -> dict[str, Any]:
        bodies = embedding_bodies(texts, _TEXTS_PER_REQUEST)
        answer: dict[str, Any] = self._clients.call(
            function, url=self._url, path=EMBEDDINGS_PATH, bodies=bodies, clients=_CLIENTS, **more
        )
        return answer


async def measure_queries(
    report: Report,
    model: EmbeddingModel,
    server: Running,
    clients: Child,
    rounds: int,
    scale: float,
) -> None:
    """Report p50 and p99 of 20 queries a second during bulk, and bulk's loss to them."""
    queries = cut_texts(model, SHORT, 2 * _DOCUMENTS)[_DOCUMENTS:]
    await _fill(model, server, max(2, round(_DOCUMENTS * scale)))
    for kind in (MID, LONG):
        texts = cut_texts(model, kind, max(4, round(_BULK_SCALE * kind.count * scale)))
        ways = (_InProcess(model, queries), _OverHTTP(server.url, clients, queries))
        turns = {way.label: _Turns() for way in ways}
        for number in range(rounds):
            for way in ways:
                await turns[way.label].add(way, texts, number)
        _report_kind(report, kind, turns)
        report.note(f"the clients took {statistics.median(ways[1].cpu_percent):.1f} % of a core")


async def _fill(model: EmbeddingModel, server: Running, count: int) -> None:
    documents = [
        {"id": str(number), "text": text}
        for number, text in enumerate(cut_texts(model, MID, count))
    ]
    await server.request("POST", _DOCUMENTS_PATH, {"documents": documents})


def _report_kind(report: Report, kind: Kind, turns: dict[str, _Turns]) -> None:
    report.section(
        f"{_PER_SECOND} queries/s while bulk of {kind.name} texts keeps all cores busy",
        {"queries": "d", "p50 ms": ".1f", "p99 ms": ".1f", "bulk loses %": ".1f"},
    )
    for label, taken in turns.items():
        if not taken.query_s:
            report.note("bulk was over before the first query")
            continue
        figures = {
            "queries": len(taken.query_s),
            "p50 ms": 1e3 * float(np.percentile(taken.query_s, 50)),
            "p99 ms": 1e3 * float(np.percentile(taken.query_s, 99)),
            "bulk loses %": statistics.median(taken.loss_percent),
        }
        report.row(label, figures, {"p99 ms": _P99_MS, "bulk loses %": _LOSS_PERCENT})
