import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest
from servers import Running
from wire import Client

from memoryd.memory.expiry import sweep, sweeping_up, tidy
from memoryd.storage import collections, expiry

DOCUMENTS = "/v1/collections/default/documents"
ROWS = (
    "SELECT (SELECT count(*) FROM c_1.documents), (SELECT count(*) FROM c_1.chunks_1),"
    " (SELECT count(*) FROM c_1.vectors_1)"
)
NEXT = "SELECT next_expiry FROM memoryd.collections WHERE id = 1"


def time_in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def is_there(client: Client, id_: str) -> bool:
    return (await client.get(f"{DOCUMENTS}/{id_}")).status == 200


async def seconds_until(condition: Callable[[], Awaitable[bool]]) -> float:
    started = time.monotonic()
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110 - it is asked of a server
            await asyncio.sleep(0.02)
    return time.monotonic() - started


async def expire(client: Client, id_: str, at: str | None) -> None:
    path, body = f"{DOCUMENTS}/{id_}", orjson.dumps({"expires_at": at})
    (await client.ask("PATCH", path, data=body)).ok()


async def test_a_document_is_gone_within_a_second_of_its_time(running: Running) -> None:
    client = running.client
    await client.store(id="kept", text="dog")
    await client.store(id="later", text="dog", expires_at=time_in(3600))
    await client.store(id="a", text="cat", expires_at=time_in(1))

    async def is_gone() -> bool:
        return not await is_there(client, "a")

    assert 0.7 < await seconds_until(is_gone) < 2
    assert sorted(await client.found("cat")) == ["kept", "later"]
    connection = await asyncpg.connect(running.dsn)
    assert tuple(await connection.fetchrow(ROWS)) == (2, 2, 2)
    await connection.close()


async def gone_of(client: Client, id_: str) -> None:
    async def is_gone() -> bool:
        return not await is_there(client, id_)

    await seconds_until(is_gone)


@pytest.mark.parametrize("text", ["cat", "dog"], ids=["updated", "replaced"])
async def test_an_expiry_that_is_set_later_holds(client: Client, text: str) -> None:
    await client.store(id="a", text="cat")
    await client.store(id="b", text="cat", expires_at=time_in(3600))
    await client.store(id="a", text=text, expires_at=time_in(-1))
    await gone_of(client, "a")
    await client.store(id="b", text=text, expires_at=time_in(-1))
    await gone_of(client, "b")


async def test_an_expiry_that_is_patched_holds(client: Client) -> None:
    await client.store(id="a", text="cat")
    await expire(client, "a", time_in(0.1))
    await gone_of(client, "a")


async def test_an_expiry_that_is_taken_back_or_moved_does_not_hold(client: Client) -> None:
    for id_ in ("patched", "updated", "replaced", "moved"):
        await client.store(id=id_, text="cat", expires_at=time_in(1.5))
    await expire(client, "patched", None)
    await expire(client, "moved", time_in(3600))
    await client.store(id="updated", text="cat")
    await client.store(id="replaced", text="dog")
    await asyncio.sleep(2.5)
    listed = (await client.get(DOCUMENTS)).ok()["documents"]
    assert {document["id"] for document in listed} == {"patched", "updated", "replaced", "moved"}


async def test_what_expires_in_other_collections_goes_too(client: Client) -> None:
    for name in ("one", "two"):
        (await client.post("/v1/collections", {"name": name})).ok(201)
        await client.store(name, id="a", text="cat", expires_at=time_in(0))
    for name in ("one", "two"):

        async def is_empty(name: str = name) -> bool:
            return not (await client.get(f"/v1/collections/{name}")).ok()["documents"]

        await seconds_until(is_empty)


async def test_a_replacement_that_waits_survives_what_it_replaces(running: Running) -> None:
    client = running.client
    toy: Any = (await running.memory.engine.model("toy"))._backend
    await client.store(id="a", title="old", text="cat", metadata={"of": "old"})
    toy.gate.clear()
    answer = await client.post(f"{DOCUMENTS}?wait=false", {"id": "a", "text": "dog"})
    answer.ok(202)
    connection = await asyncpg.connect(running.dsn)
    await connection.execute("UPDATE c_1.documents SET expires_at = now()")
    await connection.execute("UPDATE memoryd.collections SET next_expiry = now()")

    async def is_emptied() -> bool:
        shown = (await client.get(f"{DOCUMENTS}/a")).ok()
        return bool(shown["status"] == "queued")

    await seconds_until(is_emptied)
    shown = (await client.get(f"{DOCUMENTS}/a")).ok()
    assert (shown["text"], shown["title"], shown["metadata"], shown["chunks"]) == ("", "", {}, 0)
    assert tuple(await connection.fetchrow(ROWS)) == (1, 0, 0)
    toy.gate.set()

    async def is_stored() -> bool:
        return bool((await client.get(f"{DOCUMENTS}/a")).ok()["status"] == "stored")

    await seconds_until(is_stored)
    shown = (await client.get(f"{DOCUMENTS}/a")).ok()
    assert (shown["text"], shown["version"], shown["expires_at"]) == ("dog", 1, None)
    assert tuple(await connection.fetchrow(ROWS)) == (1, 1, 1)
    await connection.close()


async def test_the_sweeper_waits_for_no_document(running: Running) -> None:
    client = running.client
    await client.store(id="held", text="cat", expires_at=time_in(0.3))
    await client.store(id="free", text="cat", expires_at=time_in(0.3))
    connection = await asyncpg.connect(running.dsn)
    async with connection.transaction():
        await connection.execute(
            "SELECT 1 FROM c_1.documents WHERE external_id = 'held' FOR UPDATE"
        )
        await gone_of(client, "free")
        assert await is_there(client, "held")
    await gone_of(client, "held")
    await connection.close()


async def test_the_next_expiry_is_that_of_the_first_document_that_is_left(
    running: Running,
) -> None:
    client = running.client
    connection = await asyncpg.connect(running.dsn)
    assert await connection.fetchval(NEXT) is None
    await client.store(id="a", text="cat", expires_at="2100-01-01T00:00:00Z")
    await client.store(id="b", text="cat", expires_at="2200-01-01T00:00:00Z")
    assert (await connection.fetchval(NEXT)).year == 2100
    await client.store(id="c", text="cat", expires_at=time_in(0))
    await gone_of(client, "c")

    async def is_settled() -> bool:
        return bool((await connection.fetchval(NEXT)).year == 2100)

    await seconds_until(is_settled)
    (await client.delete(f"{DOCUMENTS}/a")).ok()
    (await client.delete(f"{DOCUMENTS}/b")).ok()
    await connection.execute("UPDATE memoryd.collections SET next_expiry = now()")

    async def is_null() -> bool:
        return await connection.fetchval(NEXT) is None

    await seconds_until(is_null)
    await connection.close()


async def test_a_document_that_is_written_while_the_sweeper_looks_is_not_forgotten(
    running: Running,
) -> None:
    memory = running.memory
    connection = await asyncpg.connect(running.dsn)
    await running.client.store(id="a", text="cat")
    collection = await collections.find_collection(memory.database, "default")
    at = datetime.now(UTC) + timedelta(seconds=2)
    await connection.execute("UPDATE memoryd.collections SET next_expiry = now()")
    async with memory.database.transaction() as writing:
        await writing.execute("UPDATE c_1.documents SET expires_at = $1", at)
        await expiry.note_expiry(writing, collection, [at])  # an earlier time stands there
        for _ in range(3):
            await sweep(memory.database)
        assert await connection.fetchval(NEXT) is not None
    await gone_of(running.client, "a")
    await connection.close()


async def test_several_sweepers_delete_each_document_once(running: Running) -> None:
    client, database = running.client, running.memory.database
    connection = await asyncpg.connect(running.dsn)
    await connection.execute(
        "INSERT INTO c_1.documents (external_id, version, content_hash, title, text, metadata,"
        " tags, expires_at, created_at, updated_at) SELECT 'd' || n, 1, '', '', 'x', '{}', '{}',"
        " now() - interval '1 hour', now(), now() FROM generate_series(1, 3500) n;"
        "UPDATE memoryd.collections SET next_expiry = now()"
    )
    async with sweeping_up(database), sweeping_up(database):

        async def is_empty() -> bool:
            return not (await client.get("/v1/collections/default")).ok()["documents"]

        await seconds_until(is_empty)
    await connection.close()


async def test_expiring_documents_written_and_patched_at_once_never_wait_for_each_other_in_circles(
    client: Client,
) -> None:
    ids = [f"d{number}" for number in range(10)]

    async def write(number: int) -> None:
        for round_ in range(15):
            batch = [
                {"id": id_, "text": f"cat {number} {round_}", "expires_at": time_in(-1)}
                for id_ in ids[number % 3 :: 2]
            ]
            (await client.post(DOCUMENTS, {"documents": batch})).ok()
            id_ = ids[(number + round_) % 10]
            path, body = f"{DOCUMENTS}/{id_}", orjson.dumps({"expires_at": time_in(round_ % 3)})
            answer = await client.ask("PATCH", path, data=body)
            assert answer.status in (200, 404, 409), answer

    await asyncio.gather(*(write(number) for number in range(6)))


async def test_jobs_that_ended_long_ago_are_forgotten_with_what_failed(running: Running) -> None:
    client = running.client
    connection = await asyncpg.connect(running.dsn)
    for id_ in ("old", "new"):
        answer = await client.post(f"{DOCUMENTS}?wait=false", {"id": id_, "text": "nan"})
        job = answer.ok(202)["job"]["id"]

        async def is_over(job: str = job) -> bool:
            return bool((await client.get(f"/v1/jobs/{job}")).ok()["status"] == "failed")

        await seconds_until(is_over)
    await connection.execute(
        "UPDATE memoryd.jobs SET finished_at = now() - interval '31 days'"
        " WHERE id = (SELECT min(id) FROM memoryd.jobs)"
    )
    await tidy(running.memory.database)
    assert await connection.fetchval("SELECT array_agg(external_id) FROM c_1.drafts") == ["new"]
    assert [f"j{row[0]}" for row in await connection.fetch("SELECT id FROM memoryd.jobs")] == [job]
    await connection.close()


async def test_old_keys_of_requests_are_forgotten(running: Running) -> None:
    connection = await asyncpg.connect(running.dsn)
    for key, age in (("old", "2 days"), ("new", "1 hour")):
        headers = {"Idempotency-Key": key}
        document = {"id": key, "text": "cat"}
        (await running.client.post(DOCUMENTS, document, headers=headers)).ok()
        await connection.execute(
            "UPDATE memoryd.idempotency_keys SET created_at = now() - $2::text::interval"
            " WHERE key = $1",
            key,
            age,
        )
    await tidy(running.memory.database)
    keys = await connection.fetchval("SELECT array_agg(key) FROM memoryd.idempotency_keys")
    assert keys == ["new"]
    await connection.close()
