"""Jobs over HTTP: what is told of them, and how they are cancelled and tried again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from key_requests import bearing, first_key, make
from servers import Running, Serve
from toys import ToyBackend, ToyLoader
from wire import Client

from memoryd.documents.types import Draft
from memoryd.embeddings.engine import Engine
from memoryd.errors import ConflictError
from memoryd.storage.acceptance import Terms, accept
from memoryd.storage.collections import find_collection

ENDED = ("completed", "failed", "cancelled")
OUTCOMES = ("stored", "unchanged", "updated", "replaced", "skipped", "failed", "cancelled")


@asynccontextmanager
async def toy_server(serve: Serve, **options: Any) -> AsyncIterator[tuple[Running, ToyBackend]]:
    """Serve a toy of the test's own, whose gate and cure it has."""
    loader = ToyLoader(Path())
    async with Engine(loader) as engine, serve(engine, **options) as running:
        try:
            yield running, loader.backend
        finally:
            loader.backend.gate.set()


def texts(count: int, text: str = "cat") -> list[dict[str, Any]]:
    return [{"id": f"d{number}", "text": f"{text} {number}"} for number in range(count)]


async def enqueue(
    client: Client, documents: list[dict[str, Any]], collection: str = "default", **options: Any
) -> Any:
    """Post documents that nobody waits for, and return the job."""
    path = f"/v1/collections/{collection}/documents?wait=false"
    answer = await client.post(path, {"documents": documents}, **options)
    return answer.ok(202)["job"]


async def job_of(client: Client, id_: str) -> Any:
    return (await client.get(f"/v1/jobs/{id_}")).ok()


async def job_when(client: Client, id_: str, holds: Callable[[Any], bool]) -> Any:
    """Return a job as soon as it is as asked; fail where it isn't within half a minute."""
    async with asyncio.timeout(30):
        while not holds(job := await job_of(client, id_)):  # noqa: ASYNC110 # nothing tells
            await asyncio.sleep(0.02)
    return job


async def ended(client: Client, id_: str) -> Any:
    return await job_when(client, id_, lambda job: job["status"] in ENDED)


async def ids_of(client: Client, collection: str = "default") -> dict[str, str]:
    """Return the status of each document that is listed."""
    answer = await client.get(f"/v1/collections/{collection}/documents?limit=1000")
    return {document["id"]: document["status"] for document in answer.ok()["documents"]}


async def failures_of(client: Client, id_: str) -> Any:
    return (await client.get(f"/v1/jobs/{id_}/failures")).ok()["failures"]


def settled(job: Any) -> int:
    return sum(job["counts"].get(outcome, 0) for outcome in OUTCOMES)


# --- What is told --------------------------------------------------------------------------------


async def test_a_job_tells_what_became_of_its_documents(client: Client) -> None:
    await client.store(id="d0", text="dog")
    await client.store(id="d1", text="cat 1")
    documents = [*texts(3), {"id": "bad", "text": "nan"}, {"id": "d2", "text": "pear"}]
    queued = await enqueue(client, documents)
    assert queued["counts"] == {"total": 4}  # what is unchanged is settled at once
    job = await ended(client, queued["id"])
    assert job["counts"] == {"stored": 1, "replaced": 2, "failed": 1, "total": 4}
    assert settled(job) == job["counts"]["total"]
    assert job["progress"] == {"done": 4, "total": 4, "unit": "documents"}
    assert (job["id"], job["type"], job["collection"]) == (queued["id"], "ingest", "default")
    assert (job["status"], job["stage"], job["attempt"]) == ("completed", None, 1)
    assert (job["result"], job["eta_s"]) == (None, None)
    assert job["last_error"]["code"] == "invalid_value"
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]


async def test_a_job_has_failed_only_where_every_document_has(client: Client) -> None:
    bad = [{"id": f"n{number}", "text": f"nan {number}"} for number in range(3)]
    job = await ended(client, (await enqueue(client, bad))["id"])
    assert (job["status"], job["counts"]) == ("failed", {"failed": 3, "total": 3})
    assert "no finite vector" in job["last_error"]["message"]
    job = await ended(client, (await enqueue(client, [*bad[:1], *texts(1)]))["id"])
    assert (job["status"], job["counts"]) == ("completed", {"stored": 1, "failed": 1, "total": 2})


async def test_what_failed_says_why_page_by_page(client: Client) -> None:
    bad = [{"id": f"n{number}", "text": f"nan {number}"} for number in range(5)]
    id_ = (await enqueue(client, [*bad, *texts(2)]))["id"]
    await ended(client, id_)
    first = (await client.get(f"/v1/jobs/{id_}/failures?limit=3")).ok()
    assert [failure["id"] for failure in first["failures"]] == ["n0", "n1", "n2"]
    assert set(first["failures"][0]["error"]) == {"message", "type", "param", "code"}
    cursor = first["next_cursor"]
    rest = (await client.get(f"/v1/jobs/{id_}/failures?limit=3&cursor={cursor}")).ok()
    assert [failure["id"] for failure in rest["failures"]] == ["n3", "n4"]
    assert rest["next_cursor"] is None
    statuses = await ids_of(client)
    assert statuses["n0"] == "failed"
    assert statuses["d0"] == "stored"


async def test_a_running_job_tells_its_stage_its_progress_and_when_it_ends(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        backend.gate.clear()
        id_ = (await enqueue(client, texts(100)))["id"]
        job = await job_when(client, id_, lambda job: job["stage"] is not None)
        assert (job["status"], job["stage"], job["eta_s"]) == ("running", "embedding", None)
        assert job["started_at"] is not None
        backend.delay_s = 0.1
        backend.gate.set()
        job = await job_when(client, id_, lambda job: job["progress"]["done"] > 0)
        if job["status"] == "running":
            assert 0 < job["eta_s"] < 60
        job = await ended(client, id_)
        assert (job["stage"], job["eta_s"], job["counts"]["stored"]) == (None, None, 100)


# --- Lists ---------------------------------------------------------------------------------------


async def test_jobs_are_listed_newest_first_page_by_page(client: Client) -> None:
    ids = [(await enqueue(client, texts(1, f"cat {at}")))["id"] for at in range(5)]
    listed: list[str] = []
    cursor, pages = "", 0
    while cursor is not None:
        page = (await client.get(f"/v1/jobs?limit=2{cursor and f'&cursor={cursor}'}")).ok()
        listed += [job["id"] for job in page["jobs"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (listed, pages) == (ids[::-1], 3)


async def test_jobs_are_listed_by_status_and_collection(client: Client) -> None:
    (await client.post("/v1/collections", {"name": "notes"})).ok(201)
    good = (await enqueue(client, texts(1)))["id"]
    bad = (await enqueue(client, [{"id": "n", "text": "nan"}]))["id"]
    noted = (await enqueue(client, texts(1), "notes"))["id"]
    for id_ in (good, bad, noted):
        await ended(client, id_)

    async def listed(query: str) -> list[str]:
        return [job["id"] for job in (await client.get(f"/v1/jobs?{query}")).ok()["jobs"]]

    assert await listed("status=failed") == [bad]
    assert await listed("status=completed") == [noted, good]
    assert await listed("collection=notes") == [noted]
    assert await listed("collection=default&status=completed") == [good]
    assert await listed("status=running") == []


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("status=done", 400, "status"),
        ("collection=none", 404, "collection"),
        ("collection=%20", 400, "collection"),
        ("limit=0", 400, "limit"),
        ("cursor=x", 400, "cursor"),
        ("state=failed", 400, "state"),
    ],
)
async def test_a_wrong_parameter_of_the_list_is_named(
    shared_client: Client, query: str, status: int, param: str
) -> None:
    assert (await shared_client.get(f"/v1/jobs?{query}")).refused(status)["param"] == param


@pytest.mark.parametrize("id_", ["1", "j", "j0", "j01", "jx", "j-1", "J1", "j" + "9" * 30, "j1%00"])
@pytest.mark.parametrize(
    ("method", "end"),
    [("GET", ""), ("GET", "/events"), ("GET", "/failures"), ("POST", "/retry"), ("DELETE", "")],
)
async def test_an_id_of_no_job_is_not_found(
    shared_client: Client, id_: str, method: str, end: str
) -> None:
    (await shared_client.ask(method, f"/v1/jobs/{id_}{end}")).refused(404, "not_found")


# --- Cancelling ----------------------------------------------------------------------------------


async def test_what_is_not_stored_when_a_job_is_cancelled_never_will_be(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        await client.store(id="d0", text="dog")
        backend.gate.clear()
        id_ = (await enqueue(client, texts(200)))["id"]
        await job_when(client, id_, lambda job: job["stage"] == "embedding")
        assert len(await ids_of(client)) == 200
        job = (await client.delete(f"/v1/jobs/{id_}")).ok()
        assert (job["status"], job["eta_s"]) == ("cancelled", None)
        assert job["counts"] == {"cancelled": 200, "failed": 0, "total": 200}
        backend.gate.set()
        await client.store(id="later", text="pear")
        assert await ids_of(client) == {"d0": "stored", "later": "stored"}
        assert (await client.get("/v1/collections/default/documents/d0")).ok()["text"] == "dog"
        (await client.delete(f"/v1/jobs/{id_}")).refused(409, "conflict")
        assert await job_of(client, id_) == job


async def test_what_is_stored_when_a_job_is_cancelled_stays(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        backend.delay_s = 0.05
        id_ = (await enqueue(client, texts(1000)))["id"]
        await job_when(client, id_, lambda job: job["progress"]["done"] > 0)
        job = (await client.delete(f"/v1/jobs/{id_}")).ok()
        assert settled(job) == job["progress"]["done"] == 1000
        assert 0 < job["counts"]["stored"] < 1000
        await client.store(id="later", text="pear")
        statuses = await ids_of(client)
        assert set(statuses.values()) == {"stored"}
        assert len(statuses) == job["counts"]["stored"] + 1


async def test_a_job_that_waits_for_another_is_cancelled_before_it_begins(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        backend.gate.clear()
        first = (await enqueue(client, texts(200)))["id"]
        await job_when(client, first, lambda job: job["stage"] == "embedding")
        await asyncio.sleep(0.2)  # it takes all the room there is
        (await client.post("/v1/collections", {"name": "notes", "model": "toy"})).ok(201)
        second = await enqueue(client, texts(3), "notes")
        assert (second["status"], second["started_at"]) == ("queued", None)
        job = (await client.delete(f"/v1/jobs/{second['id']}")).ok()
        assert (job["status"], job["counts"]["cancelled"]) == ("cancelled", 3)
        backend.gate.set()
        assert (await ended(client, first))["counts"]["stored"] == 200
        assert await ids_of(client, "notes") == {}


async def test_a_document_for_which_another_job_waits_survives_a_cancel(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        backend.gate.clear()
        first = (await enqueue(client, [{"id": "a", "text": "cat"}]))["id"]
        second = (await enqueue(client, [{"id": "a", "text": "dog"}]))["id"]
        (await client.delete(f"/v1/jobs/{first}")).ok()
        backend.gate.set()
        assert (await ended(client, second))["counts"]["stored"] == 1
        assert (await client.get("/v1/collections/default/documents/a")).ok()["text"] == "dog"


async def test_nothing_is_added_to_a_job_that_was_cancelled(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        backend.gate.clear()
        id_ = (await enqueue(running.client, texts(1)))["id"]
        (await running.client.delete(f"/v1/jobs/{id_}")).ok()
        database = running.memory.database
        collection = await find_collection(database, "default")
        with pytest.raises(ConflictError, match=id_):
            async with database.transaction() as connection:
                await accept(connection, collection, [Draft("cat")], Terms(), int(id_[1:]))
        assert await ids_of(running.client) == {}


async def test_a_document_that_is_deleted_while_it_waits_counts_as_cancelled(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        backend.gate.clear()
        id_ = (await enqueue(running.client, texts(2)))["id"]
        (await running.client.delete("/v1/collections/default/documents/d0")).ok()
        backend.gate.set()
        job = await ended(running.client, id_)
        assert job["counts"] == {"cancelled": 1, "stored": 1, "failed": 0, "total": 2}


async def test_the_jobs_of_a_deleted_collection_end_and_are_still_told(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        (await client.post("/v1/collections", {"name": "notes", "model": "toy"})).ok(201)
        backend.gate.clear()
        id_ = (await enqueue(client, texts(3), "notes"))["id"]
        (await client.delete("/v1/collections/notes")).ok()
        job = await job_of(client, id_)
        assert (job["status"], job["collection"]) == ("cancelled", None)
        assert await failures_of(client, id_) == []
        (await client.ask("POST", f"/v1/jobs/{id_}/retry")).refused(409, "conflict")
        (await client.delete(f"/v1/jobs/{id_}")).refused(409, "conflict")


# --- Trying again --------------------------------------------------------------------------------


async def test_what_failed_is_stored_by_a_retry_once_its_cause_is_gone(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        bad = [{"id": f"n{number}", "text": f"nan {number}"} for number in range(3)]
        id_ = (await enqueue(client, [*bad, *texts(2)]))["id"]
        assert (await ended(client, id_))["counts"]["failed"] == 3
        backend.is_cured = True
        job = (await client.ask("POST", f"/v1/jobs/{id_}/retry")).ok(202)
        assert (job["status"], job["attempt"], job["last_error"]) == ("queued", 2, None)
        assert (job["progress"]["done"], job["finished_at"]) == (2, None)
        job = await ended(client, id_)
        assert job["status"] == "completed"
        assert job["counts"] == {"stored": 5, "failed": 0, "total": 5}
        assert await failures_of(client, id_) == []
        assert set((await ids_of(client)).values()) == {"stored"}
        (await client.ask("POST", f"/v1/jobs/{id_}/retry")).refused(409, "conflict")


async def test_what_fails_again_is_told_again(client: Client) -> None:
    id_ = (await enqueue(client, [{"id": "n", "text": "nan"}]))["id"]
    await ended(client, id_)
    (await client.ask("POST", f"/v1/jobs/{id_}/retry")).ok(202)
    job = await ended(client, id_)
    assert (job["status"], job["attempt"], job["counts"]["failed"]) == ("failed", 2, 1)
    [failure] = await failures_of(client, id_)
    assert failure["id"] == "n"


async def test_a_retry_never_overwrites_what_came_later(serve: Serve) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        id_ = (await enqueue(client, [{"id": "a", "text": "nan"}]))["id"]
        await ended(client, id_)
        await client.store(id="a", text="dog")
        backend.is_cured = True
        (await client.ask("POST", f"/v1/jobs/{id_}/retry")).ok(202)
        assert (await ended(client, id_))["counts"] == {"skipped": 1, "failed": 0, "total": 1}
        assert (await client.get("/v1/collections/default/documents/a")).ok()["text"] == "dog"


async def test_a_job_without_failures_has_nothing_to_retry(client: Client) -> None:
    id_ = (await enqueue(client, texts(1)))["id"]
    job = await ended(client, id_)
    (await client.ask("POST", f"/v1/jobs/{id_}/retry")).refused(409, "conflict")
    assert await job_of(client, id_) == job


# --- Keys ----------------------------------------------------------------------------------------


async def test_a_key_for_some_collections_knows_their_jobs_alone(client: Client) -> None:
    admin = await first_key(client)
    for name in ("mine", "other"):
        (await client.post("/v1/collections", {"name": name}, headers=bearing(admin))).ok(201)
    mine, other = [
        (await enqueue(client, texts(1), name, headers=bearing(admin)))["id"]
        for name in ("mine", "other")
    ]
    key = (await make(client, admin, scopes=["read", "write"], collections=["mine"]))["key"]
    reader = (await make(client, admin, scopes=["read"], collections=["mine"]))["key"]

    async def ask(method: str, path: str, key: str) -> Any:
        return await client.ask(method, path, headers=bearing(key))

    listed = (await ask("GET", "/v1/jobs", key)).ok()["jobs"]
    assert [job["id"] for job in listed] == [mine]
    assert (await ask("GET", f"/v1/jobs/{mine}", key)).ok()["id"] == mine
    for method, end in (("GET", ""), ("GET", "/events"), ("GET", "/failures"), ("DELETE", "")):
        (await ask(method, f"/v1/jobs/{other}{end}", key)).refused(404, "not_found")
    (await ask("POST", f"/v1/jobs/{other}/retry", key)).refused(404, "not_found")
    (await ask("GET", "/v1/jobs?collection=other", key)).refused(403)
    (await ask("GET", "/v1/jobs?collection=none", key)).refused(403)
    (await ask("DELETE", f"/v1/jobs/{mine}", reader)).refused(403)
    (await ask("POST", f"/v1/jobs/{mine}/retry", reader)).refused(403)
    assert len((await ask("GET", "/v1/jobs", admin)).ok()["jobs"]) == 2


# --- Sharing -------------------------------------------------------------------------------------


async def test_two_servers_on_one_database_share_a_job(serve: Serve) -> None:
    async with (
        toy_server(serve) as (first, one),
        toy_server(serve, dsn=first.dsn) as (second, other),
    ):
        one.delay_s = other.delay_s = 0.05
        id_ = (await enqueue(first.client, texts(600)))["id"]
        job = await ended(second.client, id_)
        assert job["counts"] == {"stored": 600, "failed": 0, "total": 600}
        assert one.encoded + other.encoded == 600
        assert min(one.encoded, other.encoded) > 100
        assert len(await ids_of(second.client)) == 600


async def test_what_a_server_held_when_it_stopped_is_taken_by_another_at_once(
    serve: Serve,
) -> None:
    async with toy_server(serve) as (first, one):
        async with toy_server(serve, dsn=first.dsn) as (_, other):
            one.gate.clear()
            other.gate.clear()
            id_ = (await enqueue(first.client, texts(150)))["id"]
            await job_when(first.client, id_, lambda _: one.encoded > 0 and other.encoded > 0)
            other.gate.set()
            other.delay_s = 3
        one.gate.set()
        async with asyncio.timeout(10):  # less than a lease
            job = await ended(first.client, id_)
        assert job["counts"] == {"stored": 150, "failed": 0, "total": 150}


async def test_a_large_job_holds_up_no_single_document_of_another_collection(
    serve: Serve,
) -> None:
    async with toy_server(serve) as (running, backend):
        client = running.client
        (await client.post("/v1/collections", {"name": "notes", "model": "toy"})).ok(201)
        backend.delay_s = 0.02
        large = [(await enqueue(client, texts(1000, word)))["id"] for word in ("cat", "dog")]
        await job_when(client, large[0], lambda job: job["progress"]["done"] > 0)
        single = (await enqueue(client, texts(1), "notes"))["id"]
        assert (await ended(client, single))["counts"]["stored"] == 1
        left = 0
        for id_ in large:
            progress = (await job_of(client, id_))["progress"]
            left += progress["total"] - progress["done"]
        assert left > 1000
