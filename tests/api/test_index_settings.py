"""Indexes over HTTP: what a client asks for, what there is, and how far it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from servers import Databases, Running, Serve
from wire import Client

from memoryd.memory.indexing import JOB_TYPE
from memoryd.storage import index_jobs
from memoryd.storage.collections import find_collection
from memoryd.storage.vector_indexes import FoundIndex, list_indexes

THRESHOLD = 20
KB = "/v1/collections/kb"
EXACT = {
    "type": "exact",
    "status": "ready",
    "m": None,
    "ef_construction": None,
    "progress": None,
}
HNSW = {**EXACT, "type": "hnsw", "m": 16, "ef_construction": 128}


@pytest_asyncio.fixture
async def small(serve: Serve) -> AsyncIterator[Running]:
    """Give a server whose collections have an index from a few chunks on."""
    async with serve(hnsw_threshold=THRESHOLD) as running:
        yield running


async def make(client: Client, **fields: Any) -> dict[str, Any]:
    return dict((await client.post("/v1/collections", {"name": "kb", **fields})).ok(201))


async def index(client: Client) -> dict[str, Any]:
    return dict((await client.get(KB)).ok()["index"])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def until_dense(client: Client, dense: dict[str, Any]) -> None:
    async def is_so() -> bool:
        return bool((await index(client))["dense"] == dense)

    await until(is_so)


async def fill(client: Client, count: int) -> None:
    words = ("cat", "dog", "fish", "bird")
    documents = [
        {"id": f"d{n}", "text": f"{words[n % 4]} {words[n // 4 % 4]}"} for n in range(count)
    ]
    await client.post(f"{KB}/documents", {"documents": documents})


async def index_jobs_of(client: Client) -> list[dict[str, Any]]:
    found = (await client.get("/v1/jobs?collection=kb")).ok()["jobs"]
    return [job for job in found if job["type"] == JOB_TYPE]


# --- What is there ---------------------------------------------------------------------------


async def test_a_small_collection_is_searched_exactly(small: Running) -> None:
    described = await make(small.client)
    assert described["index"] == {
        "dense": EXACT,
        "lexical": {"type": "bm25", "status": "ready"},
        "fields": {},
    }
    await fill(small.client, 3)
    assert (await small.client.search("cat", "kb", mode="dense"))["plan"]["dense"] == "exact"
    assert await index_jobs_of(small.client) == []


async def test_a_collection_that_grows_gets_an_index_by_itself(small: Running) -> None:
    client = small.client
    await make(client)
    await fill(client, THRESHOLD + 20)
    await until_dense(client, HNSW)
    found = await client.search("cat cat", "kb", mode="dense", limit=5)
    assert found["plan"]["dense"] in ("hnsw", "exact")  # exact where there are too few to bother
    assert found["results"][0]["chunks"][0]["cosine"] > 0.99
    [job] = await index_jobs_of(client)
    assert (job["status"], job["stage"]) == ("completed", None)
    assert job["progress"]["done"] == job["progress"]["total"]
    assert (await client.get(KB)).ok()["jobs"] == {"queued": 0, "running": 0}


async def test_exact_is_never_indexed(small: Running) -> None:
    await make(small.client, index={"dense": {"type": "exact"}})
    await fill(small.client, THRESHOLD + 20)
    await asyncio.sleep(5)
    assert (await index(small.client))["dense"] == EXACT


async def test_an_index_can_be_had_at_any_size(small: Running) -> None:
    made = await make(small.client, index={"dense": {"type": "hnsw"}})
    assert made["index"]["dense"]["type"] == "hnsw"
    await until_dense(small.client, HNSW)


# --- Settings ---------------------------------------------------------------------------------


async def test_m_and_ef_construction_are_those_of_the_index(small: Running) -> None:
    client = small.client
    await make(client, index={"dense": {"type": "hnsw", "m": 5, "ef_construction": 40}})
    await until_dense(client, {**HNSW, "m": 5, "ef_construction": 40})
    collection = await find_collection(small.memory.database, "kb")
    found = await list_indexes(small.memory.database, collection, collection.active)
    assert [each.name for each in found] == ["vectors_1_hnsw_5_40"]


async def test_a_patch_builds_the_index_anew_and_drops_the_other(small: Running) -> None:
    client = small.client
    await make(client, index={"dense": {"type": "hnsw"}})
    await until_dense(client, HNSW)
    answer = (await client.patch(KB, {"index": {"dense": {"m": 6}}})).ok()
    assert answer["index"]["dense"] == {**HNSW, "m": 6, "status": "building"}
    assert sum(answer["jobs"].values()) == 1
    await until_dense(client, {**HNSW, "m": 6})
    collection = await find_collection(small.memory.database, "kb")

    async def is_alone() -> bool:
        found = await list_indexes(small.memory.database, collection, collection.active)
        return [each.name for each in found] == ["vectors_1_hnsw_6_128"]

    await until(is_alone)
    await client.patch(KB, {"index": {"dense": {"ef_construction": 64}}})
    await until_dense(client, {**HNSW, "m": 6, "ef_construction": 64})
    await client.patch(KB, {"index": {"dense": {"m": None, "ef_construction": None}}})
    await until_dense(client, HNSW)


async def test_a_patch_to_exact_drops_the_index(small: Running) -> None:
    client = small.client
    await make(client, index={"dense": {"type": "hnsw"}})
    await fill(client, THRESHOLD + 1)
    await until_dense(client, HNSW)
    await client.patch(KB, {"index": {"dense": {"type": "exact"}}})
    await until_dense(client, EXACT)
    await client.patch(KB, {"index": {"dense": {"type": "auto"}}})
    await until_dense(client, HNSW)


async def test_fields_are_indexed_and_replaced_as_a_whole(small: Running) -> None:
    client = small.client
    fields = {"year": "number", "author.name": "string"}
    made = await make(client, index={"fields": fields})
    assert made["index"]["fields"] == fields

    async def list_fields() -> int:
        async with small.memory.database.connection() as connection:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM pg_indexes WHERE schemaname = 'c_2'"
                    " AND starts_with(indexname, 'documents_field_')"
                )
            )

    async def are(count: int) -> bool:
        return await list_fields() == count

    await until(lambda: are(2))
    patched = (await client.patch(KB, {"index": {"fields": {"year": "number"}}})).ok()
    assert patched["index"]["fields"] == {"year": "number"}
    await until(lambda: are(1))
    assert (await client.patch(KB, {"metadata": {}})).ok()["index"]["fields"] == {"year": "number"}
    await client.patch(KB, {"index": {"fields": {}}})
    await until(lambda: are(0))


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"dense": {"m": 1}}, "index.dense.m"),
        ({"dense": {"m": 101}}, "index.dense.m"),
        ({"dense": {"m": "16"}}, "index.dense.m"),
        ({"dense": {"ef_construction": 3}}, "index.dense.ef_construction"),
        ({"dense": {"ef_construction": 1001}}, "index.dense.ef_construction"),
        ({"dense": {"ef_construction": 31}}, "index.dense.ef_construction"),
        ({"dense": {"m": 40, "ef_construction": 79}}, "index.dense.ef_construction"),
        ({"dense": {"type": "ivfflat"}}, "index.dense.type"),
        ({"dense": {"lists": 4}}, "index.dense.lists"),
        ({"lexical": {}}, "index.lexical"),
        ({"fields": {"year": "date"}}, "index.fields.year"),
        ({"fields": {"a..b": "number"}}, "index.fields"),
        ({"fields": {"title": "string"}}, "index.fields"),
    ],
)
async def test_what_no_index_can_be_is_refused(
    shared_client: Client, value: dict[str, Any], param: str
) -> None:
    made = await shared_client.post("/v1/collections", {"name": "refused", "index": value})
    assert made.refused(400)["param"] == param
    patched = await shared_client.patch("/v1/collections/default", {"index": value})
    assert patched.refused(400)["param"] == param


async def test_too_many_fields_are_refused(shared_client: Client) -> None:
    fields = {f"f{n}": "number" for n in range(17)}
    refused = await shared_client.patch("/v1/collections/default", {"index": {"fields": fields}})
    assert refused.refused(413)["param"] == "index.fields"
    long = {"x" * 513: "number"}
    refused = await shared_client.patch("/v1/collections/default", {"index": {"fields": long}})
    assert refused.refused(413)["param"] == "index.fields"


async def test_what_is_patched_must_go_with_what_is_there(small: Running) -> None:
    await make(small.client, index={"dense": {"m": 50, "ef_construction": 100}})
    refused = await small.client.patch(KB, {"index": {"dense": {"m": 51}}})
    assert refused.refused(400)["param"] == "index.dense.ef_construction"


# --- Jobs ----------------------------------------------------------------------------------


async def test_what_is_asked_for_while_a_job_runs_is_done_by_it(small: Running) -> None:
    await make(small.client)
    collection = await find_collection(small.memory.database, "kb")
    await asyncio.gather(
        *(
            small.client.patch(KB, {"index": {"dense": {"type": "hnsw", "m": m}}})
            for m in range(2, 9)
        )
    )
    await small.client.patch(KB, {"index": {"dense": {"m": 10}}})
    await until_dense(small.client, {**HNSW, "m": 10})
    collection = await find_collection(small.memory.database, "kb")
    unfinished = [job for job in await index_jobs_of(small.client) if not job["finished_at"]]
    assert len(unfinished) <= 1
    assert collection.index_settings.m == 10


async def test_two_processes_start_one_job_for_a_collection(small: Running) -> None:
    await make(small.client)
    collection = await find_collection(small.memory.database, "kb")

    async def start() -> None:
        async with small.memory.database.transaction() as connection:
            await index_jobs.start_indexing(connection, collection.number)

    await small.memory.runner.stop()
    await asyncio.gather(*(start() for _ in range(8)))
    assert len(await index_jobs_of(small.client)) == 1


async def test_two_servers_share_the_work(serve: Serve) -> None:
    async with (
        serve(hnsw_threshold=THRESHOLD) as first,
        serve(hnsw_threshold=THRESHOLD, dsn=first.dsn) as second,
    ):
        await make(first.client)
        await fill(second.client, THRESHOLD + 10)
        await until_dense(first.client, HNSW)
        await asyncio.sleep(3)
        assert [job["status"] for job in await index_jobs_of(second.client)] == ["completed"]


async def test_what_a_crash_left_is_dropped_and_made_anew(
    small: Running, databases: Databases
) -> None:
    client, database = small.client, small.memory.database
    await make(client)
    name = "vectors_1_hnsw_16_128"
    async with database.connection() as connection:
        await connection.execute(
            f"CREATE INDEX {name} ON c_2.vectors_1 USING hnsw (embedding halfvec_cosine_ops)"
            " WITH (m = 3); CREATE INDEX old ON c_2.vectors_1"
            " USING hnsw (embedding halfvec_cosine_ops)"
        )
    await databases.run(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'c_2.vectors_1_hnsw_16_128'::regclass",
        urlsplit(small.dsn).path[1:],
        role="postgres",
    )
    await client.patch(KB, {"index": {"dense": {"type": "hnsw"}}})
    await until_dense(client, HNSW)
    collection = await find_collection(database, "kb")

    async def is_alone() -> bool:
        found = await list_indexes(database, collection, collection.active)
        return found == [FoundIndex(name, is_valid=True)]

    await until(is_alone)
    async with database.connection() as connection:
        definition = await connection.fetchval(
            "SELECT pg_get_indexdef($1::regclass)", f"c_2.{name}"
        )
    assert "m='16'" in definition


async def test_a_change_of_language_writes_the_lexemes_again(small: Running) -> None:
    client = small.client
    await make(client, language="english")
    await client.store("kb", id="a", text="running cats")
    answer = (await client.patch(KB, {"language": "simple"})).ok()
    assert answer["index"]["lexical"] == {"type": "bm25", "status": "building"}

    async def is_ready() -> bool:
        return bool((await index(client))["lexical"]["status"] == "ready")

    await until(is_ready)
    assert await client.found("cats", "kb", mode="lexical") == ["a"]
    assert await client.found("cat", "kb", mode="lexical") == []


async def test_a_collection_is_deleted_while_its_index_is_built(small: Running) -> None:
    client = small.client
    await make(client, index={"dense": {"type": "hnsw"}})
    await fill(client, 50)
    await client.patch(KB, {"index": {"dense": {"m": 7}}})
    async with asyncio.timeout(5):
        (await client.delete(KB)).ok()
    for job in (await client.get("/v1/jobs")).ok()["jobs"]:
        assert job["status"] in ("completed", "cancelled")


async def test_a_cancelled_job_is_not_begun_again_by_itself(small: Running) -> None:
    client = small.client
    await make(client)
    await small.memory.runner.stop()
    await client.patch(KB, {"index": {"dense": {"type": "hnsw"}}})
    [job] = await index_jobs_of(client)
    assert (await client.delete(f"/v1/jobs/{job['id']}")).ok()["status"] == "cancelled"
    assert await index_jobs.list_lacking(small.memory.database, THRESHOLD) == []
