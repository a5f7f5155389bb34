"""What memoryd remembers of API keys: for how long, and without the database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from key_requests import bearing, first_key, make, revoke
from servers import Running, Serve
from wire import Client

from memoryd.app import listen, working
from memoryd.memory import keys as memory_keys
from memoryd.memory import lookups


def advance(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let what remembers keys, and nothing else, believe that so many seconds have gone by."""
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + seconds)
    monkeypatch.setattr(lookups, "time", later)


@asynccontextmanager
async def another_server(running: Running) -> AsyncIterator[Client]:
    """Serve the same database as another process would: it remembers keys of its own."""
    memory = replace(running.memory)
    async with working(memory), listen(memory) as [url], Client(url) as client:
        yield client


async def test_a_key_ends_when_it_expires(client: Client, running: Running) -> None:
    admin = await first_key(client)
    end = datetime.now(UTC) + timedelta(hours=1)
    made = await make(client, admin, expires_at=end.isoformat())
    (await client.get("/v1/limits", headers=bearing(made["key"]))).ok()
    connection = await asyncpg.connect(running.dsn)
    await connection.execute(
        "UPDATE memoryd.api_keys SET expires_at = now() - interval '1 s' WHERE name = 'test'"
        " AND expires_at IS NOT NULL"
    )
    await connection.close()
    async with another_server(running) as other:  # which has not read it before
        error = (await other.get("/v1/limits", headers=bearing(made["key"]))).refused(401)
        assert "expired" in error["message"]


async def test_a_revoked_key_ends_at_once_here_and_within_seconds_elsewhere(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    admin = await first_key(client)
    made = await make(client, admin)
    headers = bearing(made["key"])
    async with another_server(running) as other:
        for server in (client, other):
            (await server.get("/v1/limits", headers=headers)).ok()
        (await revoke(client, admin, made["id"])).ok()
        (await client.get("/v1/limits", headers=headers)).refused(401, "unauthorized")
        advance(monkeypatch, 3)
        (await other.get("/v1/limits", headers=headers)).refused(401, "unauthorized")


async def test_a_revoked_key_ends_at_once_on_every_port_of_a_process(running: Running) -> None:
    admin = await first_key(running.client)
    made = await make(running.client, admin)
    headers = bearing(made["key"])
    async with listen(running.memory) as [url], Client(url) as other_port:
        (await other_port.get("/v1/limits", headers=headers)).ok()
        (await revoke(running.client, admin, made["id"])).ok()
        (await other_port.get("/v1/limits", headers=headers)).refused(401, "unauthorized")


async def test_another_server_wants_a_key_within_seconds_once_there_is_one(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with another_server(running) as other:
        (await other.get("/v1/limits")).ok()
        admin = await first_key(running.client)
        (await other.get("/v1/limits", headers=bearing(admin))).ok()
        advance(monkeypatch, 3)
        (await other.get("/v1/limits")).refused(401)
        (await other.get("/v1/limits", headers=bearing(admin))).ok()


async def test_a_key_is_looked_up_once_in_some_seconds(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    find_key = memory_keys.storage.find_key

    async def count(database: Any, number: int) -> Any:
        asked.append(number)
        return await find_key(database, number)

    monkeypatch.setattr(memory_keys.storage, "find_key", count)
    async with serve() as running:
        client = running.client
        admin = await first_key(client)
        unknown = f"mk_k77_{'0' * 48}"
        for _ in range(5):
            answers = await asyncio.gather(
                *(client.get("/v1/limits", headers=bearing(admin)) for _ in range(5)),
                *(client.get("/v1/limits", headers=bearing(unknown)) for _ in range(5)),
                client.get("/v1/limits", headers=bearing("nonsense")),
            )
            assert [answer.status for answer in answers] == [200] * 5 + [401] * 6
    assert sorted(asked) == [1, 77]


async def test_wrong_keys_take_no_memory_without_end(
    client: Client, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "_MOST_ANSWERS", 10)
    keyring = memory_keys.Keyring(running.memory.settings, running.memory.database)
    admin = await first_key(client)
    for number in range(2, 40):
        with pytest.raises(memory_keys.UnauthorizedError):
            await keyring.grant(f"mk_k{number}_{'0' * 48}")
    assert len(keyring._keys._answers) == 10
    assert (await keyring.grant(admin)).allows("admin")


async def test_a_database_that_hangs_holds_nobody_up_who_is_known(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    admin = await first_key(client)
    unknown = (await make(client, admin))["key"]
    (await client.get("/v1/limits", headers=bearing(admin))).ok()
    connection = await asyncpg.connect(running.dsn)
    async with connection.transaction():
        await connection.execute("LOCK TABLE memoryd.api_keys")
        monkeypatch.setattr(lookups, "_PATIENCE_S", 0.2)
        advance(monkeypatch, 3)
        for _ in range(20):
            (await client.get("/v1/limits", headers=bearing(admin))).ok()
        (await client.get("/v1/limits", headers=bearing(unknown))).refused(503, "overloaded")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        assert await connection.fetchval(waiting) <= 3  # one query each, not one per request
    await connection.close()
    (await client.get("/v1/limits", headers=bearing(unknown))).ok()


async def test_what_is_asked_and_written_of_keys_ends_with_memoryd(running: Running) -> None:
    memory = running.memory
    _, known = await memory.keys.create(name="first", scopes=["admin"])
    _, unknown = await memory.keys.create(name="other", scopes=["read"])
    connection = await asyncpg.connect(running.dsn)
    before = asyncio.all_tasks()
    async with connection.transaction():
        await connection.execute("LOCK TABLE memoryd.api_keys IN SHARE ROW EXCLUSIVE MODE")
        await memory.keys.grant(known)  # that it was used is written, when the lock is gone
        await connection.execute("LOCK TABLE memoryd.api_keys")
        asking = asyncio.create_task(memory.keys.grant(unknown))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        async with asyncio.timeout(5):
            while await connection.fetchval(waiting) < 2:  # noqa: ASYNC110 # Postgres tells nobody
                await asyncio.sleep(0.01)
        memory.keys._forget()  # as another key that is made meanwhile does
        async with asyncio.timeout(1):
            await memory.stop()
        with pytest.raises(memory_keys.MemorydError, match="shutting down"):
            await asking
        left = asyncio.all_tasks() - before
        assert left == set()
    await connection.close()


async def test_a_known_key_works_for_a_while_without_the_database(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    admin = await first_key(client)
    unknown = (await make(client, admin))["key"]
    headers = bearing(admin)
    (await client.get("/v1/limits", headers=headers)).ok()
    await running.memory.database._pool.close()
    advance(monkeypatch, 200)
    (await client.get("/v1/limits", headers=headers)).ok()
    answer = await client.get("/v1/limits", headers=bearing(unknown))
    answer.refused(503, "overloaded")
    assert "Retry-After" in answer.headers
    (await client.get("/v1/limits", headers=bearing("wrong"))).refused(401)
    advance(monkeypatch, 400)
    (await client.get("/v1/limits", headers=headers)).refused(503)
    (await client.get("/health")).ok()


async def test_without_keys_and_without_the_database_embeddings_go_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await running.client.get("/v1/limits")).ok()
    await running.memory.database._pool.close()
    advance(monkeypatch, 1e6)
    (await running.client.post("/v1/embeddings", {"model": "toy", "input": "cat"})).ok()
