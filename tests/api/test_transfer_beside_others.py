import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest
from servers import Running
from toys import toy_vector
from transfers import (
    ended,
    export,
    import_,
    lines,
    parsed,
    path,
    rows_of,
    send,
    unit,
)
from wire import Client
from yarl import URL

from memoryd.api import transfer


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def test_an_export_is_one_moment_though_others_write(running: Running) -> None:
    client = running.client
    text = "word " * 40_000
    documents = [{"id": f"{n:03}", "text": text, "vector": unit(1)} for n in range(60)]
    await import_(client, lines(*documents))
    url = URL(client.url + path("export"))
    async with aiohttp.ClientSession(read_bufsize=1 << 12) as session, session.get(url) as answer:
        data = await answer.content.read(1)
        await client.delete(path("documents/059"))
        await client.store(id="058", text="other")
        await client.store(id="new", text="new")
        data += await answer.content.read()
    _, *exported, end = parsed(data)
    assert [each["id"] for each in exported] == [each["id"] for each in documents]
    assert {each["text"] for each in exported} == {text}
    assert end["documents"] == 60


async def test_exports_take_no_connection_of_the_pool_and_are_only_so_many(
    running: Running,
) -> None:
    client = running.client
    documents = [{"text": f"{n} " * 40_000, "vector": unit(1)} for n in range(100)]
    await import_(client, lines(*documents))
    url = URL(client.url + path("export"))
    async with aiohttp.ClientSession(read_bufsize=1 << 12) as session, AsyncExitStack() as stack:
        for _ in range(4):
            answer = await stack.enter_async_context(session.get(url))
            assert answer.status == 200
            await answer.content.read(1)
        error = await client.get(path("export"))
        error.refused(429, "rate_limited")
        assert error.headers["Retry-After"] == "10"
        assert running.memory.database.count_connections().used == 0
        assert (await client.store(id="a", text="A cat."))["status"] == "stored"

    async def is_free() -> bool:
        return (await client.get(path("export"))).status == 200

    await until(is_free)


async def test_documents_that_wait_or_failed_are_not_exported(client: Client) -> None:
    await client.store(id="a", text="A cat.")
    answer = await client.post(path("documents?wait=false"), {"id": "b", "text": "nan"})
    await ended(client, answer.ok(202)["job"]["id"])
    listed = (await client.get(path("documents"))).ok()["documents"]
    assert [each["status"] for each in listed] == ["stored", "failed"]
    _, only, end = parsed(await export(client))
    assert (only["id"], end["documents"]) == ("a", 1)
    # What failed can be imported.
    told = await import_(client, lines({"id": "b", "text": "nan", "vector": unit(1)}))
    assert told["counts"] == {"stored": 1}
    assert (await client.get(path("documents/b"))).ok()["version"] == 1


async def test_head_tells_of_an_export_without_sending_it(client: Client) -> None:
    await client.store(id="a", text="A cat.")
    answer = await client.ask("HEAD", path("export"))
    assert (answer.status, answer.data) == (200, b"")


async def test_an_import_that_breaks_off_keeps_what_is_stored_and_ends_its_job(
    running: Running,
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for n in range(2_500):
            yield lines({"id": str(n), "text": "A cat.", "vector": unit(1)})
        yield lines({"id": "draft", "text": "A cat."})
        await asyncio.sleep(2)
        raise ConnectionError

    with pytest.raises((ConnectionError, aiohttp.ClientError)):
        await running.client.ask("POST", path("import"), data=body())
    client = running.client

    async def are_there() -> bool:
        return (await client.get(path(""))).ok()["documents"] >= 2_000

    await until(are_there)
    again = [{"id": str(n), "text": "A cat.", "vector": unit(1)} for n in range(2_500)]
    counts = (await send(client, lines(*again))).ok()["counts"]
    assert counts["unchanged"] >= 2_000
    assert sum(counts.values()) == 2_500
    for job in (await client.get("/v1/jobs")).ok()["jobs"]:
        await ended(client, job["id"])


async def test_an_import_goes_on_when_an_index_becomes_ready_meanwhile(running: Running) -> None:
    client = running.client

    async def are_there() -> bool:
        return bool((await client.get(path(""))).ok()["documents"] >= 2_000)

    async def is_indexed() -> bool:
        dense = (await client.get(path(""))).ok()["index"]["dense"]
        return (dense["type"], dense["status"]) == ("hnsw", "ready")

    async def body() -> AsyncIterator[bytes]:
        for n in range(2_001):
            yield lines({"id": str(n), "text": "A cat.", "vector": unit(n % 9)})
        await until(are_there)
        (await client.patch(path(""), {"index": {"dense": {"type": "hnsw"}}})).ok()
        await until(is_indexed)
        for n in range(2_001, 4_100):
            yield lines({"id": str(n), "text": "A cat.", "vector": unit(n % 9)})

    answer = await client.ask("POST", path("import"), data=body())
    assert answer.ok()["counts"] == {"stored": 4_100}


async def test_imports_of_the_same_documents_at_once_store_each_once(running: Running) -> None:
    client = running.client
    documents = [{"id": f"d{n}", "text": "x", "vector": unit(n % 9)} for n in range(300)]
    orders = [documents, documents[::-1], documents[150:] + documents[:150]]
    told = await asyncio.gather(*(send(client, lines(*order)) for order in orders))
    counts: Counter[str] = sum((Counter(each.ok()["counts"]) for each in told), Counter())
    assert counts == {"stored": 300, "unchanged": 600}
    assert len(await rows_of(running, 1)) == 300


async def test_imports_and_other_writers_of_the_same_documents_get_along(
    running: Running,
) -> None:
    client = running.client
    ids = [f"d{n}" for n in range(40)]

    async def post() -> None:
        documents = [{"id": id_, "text": "A cat."} for id_ in reversed(ids)]
        answer = await client.post(path("documents"), {"documents": documents})
        assert {each["status"] for each in answer.ok()["documents"]} <= {
            *("stored", "replaced", "unchanged"),
        }

    async def import_all() -> None:
        documents = [{"id": id_, "text": "A dog.", "vector": unit(1)} for id_ in ids]
        told = await import_(client, lines(*documents))
        assert told["failures"] == []

    for _ in range(5):
        await asyncio.gather(post(), import_all(), post(), import_all())
    assert len(await rows_of(running, 1)) == 40


async def test_a_collection_that_changes_its_model_takes_imports_as_drafts(
    running: Running,
) -> None:
    client = running.client
    await client.store(id="a", text="A cat.")
    change = {"model": "toy", "precision": "full"}
    job = (await client.post(path("model"), change)).ok(202)["job"]["id"]
    await ended(client, job)
    line = {"id": "b", "chunks": [{"text": "a dog", "vector": toy_vector("dog").tolist()}]}
    told = await import_(client, lines(line))
    assert told["counts"] == {"queued": 1}
    assert await client.found("dog", limit=1) == ["b"]


async def test_a_draft_that_is_tried_again_does_not_undo_a_later_import(client: Client) -> None:
    answer = await client.post(path("documents?wait=false"), {"id": "a", "text": "nan"})
    job = answer.ok(202)["job"]["id"]
    await ended(client, job)
    await import_(client, lines({"id": "a", "text": "newer", "vector": unit(1)}))
    (await client.post(f"/v1/jobs/{job}/retry", None)).ok(202)
    await ended(client, job)
    shown = (await client.get(path("documents/a"))).ok()
    assert (shown["text"], shown["version"]) == ("newer", 1)


async def test_a_client_that_takes_nothing_is_cut_off(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = running.client
    documents = [{"text": f"{n} " * 40_000, "vector": unit(1)} for n in range(100)]
    await import_(client, lines(*documents))
    monkeypatch.setattr(transfer, "_STALL_S", 0.3)
    url = URL(client.url + path("export"))
    async with aiohttp.ClientSession(read_bufsize=1 << 12) as session, session.get(url) as answer:
        await asyncio.sleep(1.5)
        assert not running.memory.export_places.locked()
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()
