"""A job told as it goes on, by server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from servers import Running, Serve
from toys import ToyBackend, ToyLoader
from wire import Client

from memoryd.api import job_events
from memoryd.embeddings.engine import Engine


@asynccontextmanager
async def toy_server(serve: Serve, **options: Any) -> AsyncIterator[tuple[Running, ToyBackend]]:
    loader = ToyLoader(Path())
    async with Engine(loader) as engine, serve(engine, **options) as running:
        try:
            yield running, loader.backend
        finally:
            loader.backend.gate.set()


async def enqueue(client: Client, count: int) -> str:
    documents = [{"id": f"d{number}", "text": f"cat {number}"} for number in range(count)]
    path = "/v1/collections/default/documents?wait=false"
    id_: str = (await client.post(path, {"documents": documents})).ok(202)["job"]["id"]
    return id_


@asynccontextmanager
async def listening(client: Client, id_: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open the stream of a job's events, over a connection of its own."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{client.url}/v1/jobs/{id_}/events") as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        yield response


async def next_block(response: aiohttp.ClientResponse) -> bytes:
    """Return what comes until the next empty line, b"" at the end."""
    try:
        return await asyncio.wait_for(response.content.readuntil(b"\n\n"), 20)
    except asyncio.IncompleteReadError:
        return b""


def job_in(block: bytes) -> Any:
    event, data = block.removesuffix(b"\n\n").split(b"\n")
    assert event == b"event: job"
    return orjson.loads(data.removeprefix(b"data: "))


async def jobs_told(client: Client, id_: str) -> list[Any]:
    """Return every state of a job that is told until its end."""
    async with listening(client, id_) as response:
        body = await asyncio.wait_for(response.read(), 30)
    return [job_in(block + b"\n\n") for block in body.split(b"\n\n") if block]


async def test_every_listener_hears_each_change_and_the_end(serve: Serve) -> None:
    async with toy_server(serve, database_connections=2) as (running, backend):
        client = running.client
        backend.gate.clear()
        id_ = await enqueue(client, 200)
        listeners = [asyncio.create_task(jobs_told(client, id_)) for _ in range(5)]
        await asyncio.sleep(1)
        (await client.get("/v1/collections/default/documents?limit=1")).ok()
        backend.delay_s = 0.1
        backend.gate.set()
        for told in await asyncio.gather(*listeners):
            done = [job["progress"]["done"] for job in told]
            assert (done[0], done[-1]) == (0, 200)
            assert done == sorted(done)
            assert len(told) > 2
            last = told[-1]
            assert last["status"] == "completed"
            assert last == (await client.get(f"/v1/jobs/{id_}")).ok()
            statuses = [job["status"] for job in told]
            assert statuses.count("completed") == 1


async def test_of_a_job_that_has_ended_one_event_tells(client: Client) -> None:
    id_ = await enqueue(client, 1)
    await jobs_told(client, id_)
    [job] = await jobs_told(client, id_)
    assert job["status"] == "completed"


async def test_a_cancel_is_told_and_ends_the_stream(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        backend.gate.clear()
        id_ = await enqueue(running.client, 3)
        async with listening(running.client, id_) as response:
            assert job_in(await next_block(response))["status"] in ("queued", "running")
            (await running.client.delete(f"/v1/jobs/{id_}")).ok()
            while (job := job_in(await next_block(response)))["status"] != "cancelled":
                pass
            assert job["counts"]["cancelled"] == 3
            assert await next_block(response) == b""


async def test_while_nothing_changes_a_comment_keeps_the_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job_events._HEARTBEAT_S == 15
    monkeypatch.setattr(job_events, "_HEARTBEAT_S", 1.0)
    async with toy_server(serve) as (running, backend):
        backend.gate.clear()
        id_ = await enqueue(running.client, 1)
        async with listening(running.client, id_) as response:
            blocks = [await next_block(response) for _ in range(8)]
    events = [block for block in blocks if block.startswith(b"event: job\n")]
    assert len(events) <= 4  # queued, running, its stages
    assert set(blocks) - set(events) == {b": the job goes on\n\n"}


async def test_a_listener_that_leaves_harms_nobody(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with toy_server(serve, database_connections=2) as (running, backend):
        backend.gate.clear()
        id_ = await enqueue(running.client, 3)
        for _ in range(10):
            async with listening(running.client, id_) as response:
                await next_block(response)
        backend.gate.set()
        assert (await jobs_told(running.client, id_))[-1]["status"] == "completed"
        assert running.memory.database.count_connections().used == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_listeners_do_not_hold_up_the_end_of_memoryd(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        backend.gate.clear()
        id_ = await enqueue(running.client, 1)
        listener = asyncio.create_task(jobs_told(running.client, id_))
        await asyncio.sleep(0.5)
    told = await asyncio.wait_for(listener, 5)
    assert told[-1]["status"] in ("queued", "running")


async def test_head_answers_without_waiting_for_the_end(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        backend.gate.clear()
        id_ = await enqueue(running.client, 1)
        answer = await asyncio.wait_for(
            running.client.ask("HEAD", f"/v1/jobs/{id_}/events"), timeout=5
        )
        assert (answer.status, answer.data) == (200, b"")
