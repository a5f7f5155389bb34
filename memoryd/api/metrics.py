"""What Prometheus reads: what was counted, and how things stand at the moment."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from memoryd import __version__
from memoryd.api.state import MEMORY
from memoryd.errors import UnavailableError
from memoryd.memory.state import Memory
from memoryd.storage.jobs import INGEST, Backlog, count_unfinished

# What is scraped while the database is away or busy comes without its part, and at once.
_COUNT_TIMEOUT_S = 0.5
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def show(request: web.Request) -> web.Response:
    """Answer what memoryd has counted, in Prometheus' text format."""
    memory = request.app[MEMORY]
    everything = _Everything(memory)  # before its own question to the database is counted
    everything.add(await _list_jobs(memory))
    # Writing takes some milliseconds, for which the event loop is not to be held up.
    body = await asyncio.to_thread(generate_latest, everything)
    return web.Response(body=body, headers={"Content-Type": _CONTENT_TYPE})


async def _list_jobs(memory: Memory) -> list[Metric]:
    """Return what tells of jobs, nothing where the database doesn't answer at once."""
    with suppress(UnavailableError, TimeoutError):
        async with asyncio.timeout(_COUNT_TIMEOUT_S):
            return list(_jobs(await count_unfinished(memory.database)))
    return []


class _Everything(Collector):
    """Collect what was counted, in whatever thread, and how things stood when it was made."""

    def __init__(self, memory: Memory) -> None:
        self._registry = memory.engine.metrics.registry
        self._state = [
            _version(),
            *_models(memory),
            *_query_cache(memory),
            *_database(memory),
        ]

    def add(self, metrics: Iterable[Metric]) -> None:
        self._state += metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._state


def _version() -> Metric:
    return _gauge("memoryd_build_info", "This version.", ("version",), [((__version__,), 1)])


def _models(memory: Memory) -> Iterator[Metric]:
    loaded = {each.model.spec.name: each for each in memory.engine.loaded()}
    waiting = {
        (name, queue): load
        for name, each in loaded.items()
        for queue, load in each.model.waiting.items()
    }
    yield _gauge("memoryd_loaded_models", "Models in memory.", (), [((), len(loaded))])
    yield _gauge(
        "memoryd_model_memory_bytes",
        "What a loaded model holds: weights and lanes.",
        ("model",),
        [((name,), each.memory_bytes) for name, each in loaded.items()],
    )
    yield _gauge(
        "memoryd_queue_requests",
        "Requests with inputs that no batch has yet.",
        ("model", "queue"),
        [(labels, requests) for labels, (requests, _tokens) in waiting.items()],
    )
    yield _gauge(
        "memoryd_queue_tokens",
        "Tokens that no batch has yet.",
        ("model", "queue"),
        [(labels, tokens) for labels, (_requests, tokens) in waiting.items()],
    )


def _query_cache(memory: Memory) -> Iterator[Metric]:
    kept = memory.query_vectors
    yield _gauge(
        "memoryd_query_cache_entries", "Vectors of queries that are kept.", (), [((), len(kept))]
    )
    yield _gauge(
        "memoryd_query_cache_bytes",
        "What the vectors of queries that are kept take, with their texts.",
        (),
        [((), kept.size_bytes)],
    )


def _database(memory: Memory) -> Iterator[Metric]:
    connections = memory.database.count_connections()
    yield _gauge(
        "memoryd_database_connections",
        "Connections of the pool to Postgres.",
        ("state",),
        [(("used",), connections.used), (("idle",), connections.idle)],
    )
    yield _gauge(
        "memoryd_database_waiting",
        "Uses of the database that wait for a connection.",
        (),
        [((), connections.waiting)],
    )


def _jobs(backlogs: list[Backlog]) -> Iterator[Metric]:
    yield _gauge(
        "memoryd_jobs",
        "Jobs that have not ended.",
        ("type", "status"),
        [((each.type, each.status), each.jobs) for each in backlogs],
    )
    waiting = sum(each.left for each in backlogs if each.type == INGEST)
    yield _gauge(
        "memoryd_documents_waiting",
        "Documents that were accepted and wait to be stored, as far as jobs have counted.",
        (),
        [((), waiting)],
    )


def _gauge(
    name: str,
    documentation: str,
    labels: tuple[str, ...],
    samples: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    gauge = GaugeMetricFamily(name, documentation, labels=labels)
    for values, value in samples:
        gauge.add_metric(values, value)
    return gauge
