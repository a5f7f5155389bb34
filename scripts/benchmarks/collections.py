"""Thousands of collections: making, starting over them, searching, deleting."""

import statistics
import time
from collections.abc import Awaitable

from benchmarks.data import read_abstracts
from benchmarks.server import Running, data_directory, run_server

_DOCUMENTS = 200
_SEARCHES = 200


async def run(count: int) -> None:
    """Print the figures."""
    with data_directory() as directory:
        async with run_server(directory) as server:
            print(f"start with an empty data directory: {server.start_s:.2f} s")
            await _fill(server)
            before = await _search_ms(server)
            print(f"search with one collection: p50 {before:.2f} ms")
            await _create(server, count)
        async with run_server(directory) as server:
            print(f"start with {count} collections: {server.start_s:.2f} s")
            print(f"idle memory: {server.memory_mb():.0f} MB")
            after = await _search_ms(server)
            print(f"search with {count}: p50 {after:.2f} ms, ratio {after / before:.2f}")
            await _delete(server, count)


async def _fill(server: Running) -> None:
    documents = read_abstracts()[:_DOCUMENTS]
    await server.request("POST", "/v1/collections/default/documents", {"documents": documents})


async def _search_ms(server: Running) -> float:
    times = []
    for number in range(_SEARCHES):
        body = {"query": f"effect of treatment number {number}"}
        times.append(await _timed(server.request("POST", "/v1/collections/default/search", body)))
    return statistics.median(times)


async def _create(server: Running, count: int) -> None:
    times = [
        await _timed(server.request("POST", "/v1/collections", {"name": f"many-{number}"}))
        for number in range(count)
    ]
    print(f"create {count}: median {statistics.median(times):.1f} ms, most {max(times):.1f} ms")


async def _delete(server: Running, count: int) -> None:
    times = [
        await _timed(server.request("DELETE", f"/v1/collections/many-{number}"))
        for number in range(count)
    ]
    left = (await server.request("GET", "/v1/collections"))["collections"]
    print(f"delete {count}: median {statistics.median(times):.1f} ms, {len(left)} collection left")


async def _timed(answer: Awaitable[object]) -> float:
    started = time.perf_counter()
    await answer
    return (time.perf_counter() - started) * 1000
