"""Search by vector, and adding rows, beside other stores that hold the same vectors."""

import statistics
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import asyncpg
import numpy as np

from benchmarks.child import Child, batches, run_child
from benchmarks.loading import import_records, record, wait_for_hnsw
from benchmarks.peers import STORES, MissingError
from benchmarks.report import Report
from benchmarks.scene import LIMIT, Scene
from benchmarks.store_peer import write_rows
from benchmarks.window_filters import Truth
from memoryd.postgres.access import SUPERUSER, Access, reach

_ADDED = 20_000
_MOST_ROUNDS = 3
_BLOCK = 20
_DATABASE = "langchain"
_ADDED_HOW = {
    "memoryd, over HTTP": "with a lexical index; HNSW is built afterwards",
    "chromadb, in process": "HNSW is built meanwhile",
    "chromadb, over HTTP": "HNSW is built meanwhile",
    "langchain-postgres": "each row is committed by itself; HNSW is asked for afterwards",
}


class Contender(Protocol):
    """Be a store that has the windows, and can take more rows."""

    name: str

    async def load(self) -> float:
        """Get ready to search the windows; return the seconds."""
        ...

    async def search(self, claims: Sequence[int]) -> list[tuple[float, list[int]]]:
        """Return for each claim the seconds and the nearest rows."""
        ...

    async def add(self, name: str, count: int) -> tuple[float, float]:
        """Add rows to a new collection, which is deleted afterwards.

        Return the seconds until they are found, and those until they have an index.
        """
        ...


class _Memoryd:
    """Ask over HTTP, with clients that take little time of their own."""

    name = "memoryd, over HTTP"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def load(self) -> float:
        return 0.0

    async def search(self, claims: Sequence[int]) -> list[tuple[float, list[int]]]:
        vectors = self._scene.windows.claim_vectors[list(claims)].tolist()
        seconds = self._scene.time_each(
            {"query": {"vector": vector}, "mode": "dense", "limit": LIMIT} for vector in vectors
        )
        found = [(await self._scene.find(claim))[0] for claim in claims]
        return list(zip(seconds, found, strict=True))

    async def add(self, name: str, count: int) -> tuple[float, float]:
        server, windows = self._scene.server, self._scene.windows
        rows = zip(windows.texts[:count], windows.vectors[:count], strict=True)
        records = [record(number, *row) for number, row in enumerate(rows)]
        await server.request("POST", "/v1/collections", {"name": name})
        added_s = await import_records(server, name, records)
        index_s = await wait_for_hnsw(server, name)
        await server.request("DELETE", f"/v1/collections/{name}")
        return added_s, added_s + index_s


class _Peer:
    """Be a child process that runs one of the stores."""

    def __init__(self, name: str, child: Child) -> None:
        self.name = name
        self._child = child

    async def load(self) -> float:
        return float(self._child.call("load", name="windows"))

    async def search(self, claims: Sequence[int]) -> list[tuple[float, list[int]]]:
        found = self._child.call("search", name="windows", numbers=list(claims), limit=LIMIT)
        return [(seconds, rows) for seconds, rows in found]

    async def add(self, name: str, count: int) -> tuple[float, float]:
        added_s = float(self._child.call("add", name=name, count=count))
        index_s = float(self._child.call("index", name=name))
        self._child.call("drop", name=name)
        return added_s, added_s + index_s


@dataclass(frozen=True)
class _Setup:
    """Hold what stores are opened with."""

    rows: Path
    """A folder that has what `write_rows` writes."""
    data_dir: Path
    """The data directory of the server."""


Open = Callable[[_Setup], AbstractAsyncContextManager[Contender]]


def _open_chroma(way: str, name: str) -> Open:
    @asynccontextmanager
    async def open_(setup: _Setup) -> AsyncIterator[Contender]:
        arguments = (str(setup.rows), str(setup.rows / way), way)
        with run_child("benchmarks.chroma_peer", *arguments, python=STORES.python) as child:
            yield _Peer(name, child)

    return open_


@asynccontextmanager
async def _open_langchain(setup: _Setup) -> AsyncIterator[Contender]:
    async with reach(setup.data_dir) as access, _own_database(access) as url:
        arguments = ("benchmarks.langchain_peer", str(setup.rows), url)
        with run_child(*arguments, python=STORES.python) as child:
            yield _Peer("langchain-postgres", child)


@asynccontextmanager
async def _own_database(access: Access) -> AsyncIterator[str]:
    """Yield the address of a database with pgvector, as every new one there has it."""
    drop = f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)"
    await _execute(access.url(role=SUPERUSER), drop, f"CREATE DATABASE {_DATABASE} OWNER memoryd")
    try:
        yield access.url(_DATABASE)
    finally:
        await _execute(access.url(role=SUPERUSER), drop)


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


STORE_PEERS: dict[str, Open] = {
    "chromadb": _open_chroma("library", "chromadb, in process"),
    "chromadb-server": _open_chroma("server", "chromadb, over HTTP"),
    "langchain-postgres": _open_langchain,
}


async def measure_peers(
    report: Report, scene: Scene, data_dir: Path, names: Sequence[str], rounds: int
) -> None:
    """Report how long memoryd and the stores take to search the windows and to add rows."""
    if not names:
        return
    try:
        STORES.check_installed()
    except MissingError as error:
        report.note(f"{', '.join(names)} are left out: {error}")
        return
    windows = scene.windows
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_rows(folder, windows.texts, windows.vectors, windows.claim_vectors)
        setup = _Setup(folder, data_dir)
        peers = [await stack.enter_async_context(STORE_PEERS[name](setup)) for name in names]
        contenders: list[Contender] = [_Memoryd(scene), *peers]
        await _report_search(report, scene, contenders)
        await _report_adding(report, contenders, min(_ADDED, len(windows.texts)), rounds)


@dataclass
class _Turns:
    """Collect the seconds of a contender's searches and what they found."""

    load_s: float
    seconds: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)


async def _report_search(report: Report, scene: Scene, contenders: Sequence[Contender]) -> None:
    turns = {each.name: _Turns(await each.load()) for each in contenders}
    truth = Truth(scene.windows)
    for block in batches(range(len(scene.windows.claims)), _BLOCK):
        for each in contenders:
            for claim, (seconds, rows) in zip(block, await each.search(block), strict=True):
                turns[each.name].seconds.append(seconds)
                turns[each.name].recalls.append(truth.recall(claim, rows, LIMIT))
    report.section(
        f"search by vector, {len(scene.windows.texts):,} rows, ef_search 100",
        {
            "p50 ms": ".2f",
            "p99 ms": ".2f",
            "recall@10": ".4f",
            "to memoryd": ".2f",
            "load s": ".1f",
        },
    )
    ours = statistics.median(turns[_Memoryd.name].seconds)
    for name, taken in turns.items():
        figures = {
            "p50 ms": 1e3 * statistics.median(taken.seconds),
            "p99 ms": 1e3 * float(np.percentile(taken.seconds, 99)),
            "recall@10": statistics.fmean(taken.recalls),
            "to memoryd": statistics.median(taken.seconds) / ours,
        }
        report.row(name, figures | ({"load s": taken.load_s} if taken.load_s else {}))


async def _report_adding(
    report: Report, contenders: Sequence[Contender], count: int, rounds: int
) -> None:
    taken: dict[str, list[tuple[float, float]]] = {each.name: [] for each in contenders}
    for number in range(min(rounds, _MOST_ROUNDS)):
        for each in contenders if number % 2 == 0 else reversed(contenders):
            taken[each.name].append(await each.add(f"added{number}", count))
    medians = {
        name: [statistics.median(column) for column in zip(*turns, strict=True)]
        for name, turns in taken.items()
    }
    report.section(
        f"adding {count:,} rows",
        {"seconds": ".2f", "to memoryd": ".2f", "with index": ".2f", "its ratio": ".2f"},
    )
    ours = medians[_Memoryd.name]
    for name, (added_s, indexed_s) in medians.items():
        figures = {"seconds": added_s, "to memoryd": added_s / ours[0]}
        figures |= {"with index": indexed_s, "its ratio": indexed_s / ours[1]}
        report.row(name, figures, remark=_ADDED_HOW[name])
