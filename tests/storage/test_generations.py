"""Generations and the claims of the jobs that make them, without models."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from memoryd.documents.types import (
    Chunk,
    Chunking,
    Collection,
    Draft,
    Generation,
    OwnChunk,
    chunk_hash,
)
from memoryd.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from memoryd.storage import collections, documents, generations, job_claims, jobs, sources
from memoryd.storage.chunks import Embedded, Embedding
from memoryd.storage.database import Connection, Database
from memoryd.storage.job_claims import JobClaim, LostJobError
from memoryd.storage.sources import Source

LEASE_S = 30.0
ACTIVE = Generation(1, "active", "toy", 4, "half", Chunking())
BUILDING = Generation(2, "building", "other", 3, "full", Chunking(64, 8, "text"), "find")


@pytest_asyncio.fixture
async def collection(database: Database) -> AsyncIterator[Collection]:
    yield await collections.create_collection(
        database,
        name="kb",
        model="toy",
        dimensions=4,
        precision="half",
        chunking=Chunking(),
        language="english",
        metadata={},
    )


async def read(database: Database, collection: Collection) -> Collection:
    return await collections.find_collection_by_number(database, collection.number)


async def build(
    database: Database, collection: Collection, generation: Generation = BUILDING
) -> Collection:
    """Begin a generation and return the collection with it."""

    async def change(connection: Connection) -> None:
        active = collection.active.number
        await generations.build_generation(connection, collection.number, active, generation)

    await generations.change_alone(database, collection.number, change)
    return await read(database, collection)


async def activate(database: Database, collection: Collection, role: Any) -> Collection:
    change = partial(_activate, collection.number, role)
    await generations.change_alone(database, collection.number, change)
    return await read(database, collection)


async def _activate(number: int, role: Any, connection: Connection) -> None:
    await generations.activate(connection, number, role)


async def drop(database: Database, collection: Collection, role: Any) -> None:
    generation = collection.find_generation(role)
    assert generation is not None

    async def change(connection: Connection) -> None:
        await generations.drop_generation(connection, collection.number, generation)

    await generations.change_alone(database, collection.number, change)


def embedding(generation: Generation, *texts: str) -> Embedding:
    chunks = [Chunk(at, text, chunk_hash("", text)) for at, text in enumerate(texts)]
    vector = np.ones(generation.dimensions, dtype=np.float32)
    return Embedding(generation, chunks, [], [Embedded(at, vector) for at in range(len(texts))])


async def insert(connection: asyncpg.Connection, id_: str) -> int:
    """Make the row of a document that waits, and return its number."""
    number: int = await connection.fetchval(
        "INSERT INTO c_1.documents (external_id, version, content_hash, title, text, metadata,"
        " tags, created_at, updated_at) VALUES ($1, 0, '', '', '', '{}', '{}', now(), now())"
        " RETURNING id",
        id_,
    )
    return number


async def store(
    database: Database, collection: Collection, number: int, draft: Draft, *embeddings: Embedding
) -> None:
    """Store the first version of a document."""
    async with database.transaction() as connection:
        version = await documents.write_document(
            connection, collection, number, 0, draft, draft.content_hash, 1, embeddings
        )
    assert version == 1


# --- Tables -----------------------------------------------------------------------------------


async def test_another_generations_tables_are_like_the_firsts(
    database: Database, collection: Collection, connection: asyncpg.Connection
) -> None:
    await build(database, collection)

    async def describe(number: int) -> list[str]:
        rows = await connection.fetch(
            "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable"
            " || coalesce(column_default, '') AS line FROM information_schema.columns"
            " WHERE table_schema = 'c_1' AND table_name LIKE '%\\_' || $1::text"
            " UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'c_1'"
            " AND tablename LIKE '%\\_' || $1::text"
            " UNION ALL SELECT conrelid::regclass || ' ' || conname || ' '"
            " || pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'c_1'::regnamespace AND contype <> 'n'"
            " AND conrelid::regclass::text LIKE '%\\_' || $1::text ORDER BY 1",
            str(number),
        )
        lines = (row["line"] for row in rows)
        return sorted(
            re.sub(rf"(chunks|vectors|lexical|terms|term_changes)_{number}(?!\d)", r"\1_N", line)
            for line in lines
        )

    first = await describe(1)
    assert len(first) > 20
    assert await describe(2) == first
    kind = await connection.fetchval(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'c_1.vectors_2'::regclass AND attname = 'embedding'"
    )
    assert kind.endswith("vector(3)")
    assert "halfvec" not in kind


async def test_a_document_leaves_all_generations(
    database: Database, collection: Collection, connection: asyncpg.Connection
) -> None:
    both = await build(database, collection)
    number = await insert(connection, "a")
    pair = [embedding(each, "x", "y") for each in both.generations]
    await store(database, both, number, Draft("x y"), *pair)
    counts = "SELECT (SELECT count(*) FROM c_1.chunks_1) + (SELECT count(*) FROM c_1.vectors_2)"
    assert await connection.fetchval(counts) == 4
    await connection.execute("DELETE FROM c_1.documents")
    assert await connection.fetchval(counts) == 0


async def test_the_row_says_all_of_a_generation(database: Database, collection: Collection) -> None:
    both = await build(database, collection)
    assert both.generations == (ACTIVE, BUILDING)
    await drop(database, both, "building")
    assert (await read(database, collection)).generations == (ACTIVE,)


async def test_there_is_one_generation_of_a_role(
    database: Database, collection: Collection
) -> None:
    await build(database, collection)
    with pytest.raises(Exception, match="refused"):
        await build(database, collection, replace(BUILDING, number=3))
    assert len((await read(database, collection)).generations) == 2


async def test_activating_swaps_roles_and_nothing_else(
    database: Database, collection: Collection
) -> None:
    both = await build(database, collection)
    switched = await activate(database, both, "building")
    assert [each.role for each in switched.generations] == ["previous", "active"]
    back = await activate(database, both, "previous")
    assert [each.role for each in back.generations] == ["active", "previous"]
    with pytest.raises(ConflictError):
        await activate(database, both, "building")
    assert (await read(database, both)).generations == back.generations


async def test_numbers_are_not_given_away_again(database: Database, collection: Collection) -> None:
    both = await build(database, collection)
    async with database.transaction() as connection:
        assert await generations.next_number(connection, collection.number) == 3
        parameters = {"number": 2}
        await jobs.create_job(
            connection, collection.number, type="reembed", unit="documents", parameters=parameters
        )
    await drop(database, both, "building")
    async with database.transaction() as connection:
        assert await generations.next_number(connection, collection.number) == 3


# --- Locks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["building", "previous"])
async def test_writers_notice_that_roles_have_changed(
    database: Database, collection: Collection, role: str
) -> None:
    both = await build(database, collection)
    known = both if role == "building" else await activate(database, both, "building")
    async with database.transaction() as connection:
        assert await generations.are_unchanged(connection, known)
        assert not await generations.are_unchanged(connection, collection)
    await activate(database, known, role)
    async with database.transaction() as connection:
        assert not await generations.are_unchanged(connection, known)


async def test_a_change_waits_for_writers_and_they_for_it(
    database: Database, collection: Collection
) -> None:
    order: list[str] = []
    async with database.transaction() as connection:
        assert await generations.are_unchanged(connection, collection)
        changing = asyncio.create_task(build(database, collection))
        changing.add_done_callback(lambda _task: order.append("changed"))
        await asyncio.sleep(0.3)
        order.append("written")
    both = await changing
    assert order == ["written", "changed"]
    assert [each.role for each in both.generations] == ["active", "building"]


async def test_a_generation_is_dropped_once_its_readers_have_ended(
    database: Database, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = await activate(database, await build(database, collection), "building")
    waits: list[float] = []

    async def search() -> None:
        """Search again and again, and note how long each took."""
        while not dropping.done():
            began = time.monotonic()
            async with database.snapshot() as connection:
                await connection.execute(collections.keep(both))
            waits.append(time.monotonic() - began)
            await asyncio.sleep(0.01)

    async with database.snapshot() as exporting:
        await exporting.execute(collections.keep(both))
        dropping = asyncio.create_task(drop(database, both, "previous"))
        searching = asyncio.create_task(search())
        await asyncio.sleep(1.2)
        assert not dropping.done()
    await dropping
    await searching
    assert len(waits) > 20
    assert max(waits) < 1.0


async def test_who_waits_too_long_for_readers_is_told_so(
    database: Database, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "_LOCK_PATIENCE_S", 0.3)
    both = await build(database, collection)
    async with database.snapshot() as exporting:
        await exporting.execute(collections.keep(both))
        with pytest.raises(UnavailableError, match="export"):
            await drop(database, both, "building")
    assert (await read(database, both)).generations == both.generations


async def test_a_deleted_collection_gets_no_generation(
    database: Database, collection: Collection
) -> None:
    await collections.delete_collection(database, collection)
    with pytest.raises(NotFoundError):
        await build(database, collection)


# --- What is missing --------------------------------------------------------------------------


@pytest_asyncio.fixture
async def half_built(
    database: Database, collection: Collection, connection: asyncpg.Connection
) -> Collection:
    """Give a collection with documents in the first generation, one in both, one that waits."""
    for id_ in ("a", "b", "c"):
        number = await insert(connection, id_)
        await store(database, collection, number, Draft(id_), embedding(ACTIVE, id_))
    both = await build(database, collection)
    number = await insert(connection, "both")
    pair = [embedding(each, "both") for each in both.generations]
    await store(database, both, number, Draft("both"), *pair)
    await insert(connection, "waits")
    return both


async def list_missing(database: Database, both: Collection, **page: int) -> list[int]:
    found = await sources.list_missing(
        database, both, BUILDING, after=page.get("after", 0), limit=page.get("limit", 10)
    )
    return [each.number for each in found]


async def test_stored_documents_without_chunks_are_missing(
    database: Database, half_built: Collection
) -> None:
    assert await list_missing(database, half_built) == [1, 2, 3]
    assert await list_missing(database, half_built, after=1) == [2, 3]
    assert await list_missing(database, half_built, limit=1) == [1]
    assert await sources.count_stored(database, half_built) == 4
    assert await sources.count_embedded(database, half_built, BUILDING) == (1, 1)
    assert await sources.count_embedded(database, half_built, ACTIVE) == (4, 4)


async def read_sources(database: Database, both: Collection) -> list[Source]:
    return await sources.read_sources(database, both, [1, 2, 3, 4, 5], with_vectors=False)


async def test_what_others_wrote_meanwhile_is_not_written_again(
    database: Database, half_built: Collection, connection: asyncpg.Connection
) -> None:
    found = await read_sources(database, half_built)
    assert [source.id for source in found] == ["a", "b", "c", "both"]
    pairs = [(source, embedding(BUILDING, "new")) for source in found]
    await connection.execute("UPDATE c_1.documents SET version = 2 WHERE external_id = 'a'")
    await connection.execute("UPDATE c_1.documents SET content_hash = 'x' WHERE external_id = 'b'")
    await connection.execute("DELETE FROM c_1.documents WHERE external_id = 'c'")
    async with database.transaction() as writing:
        assert await sources.write_missing(writing, half_built, pairs) == 1
        assert await sources.write_missing(writing, half_built, pairs) == 0
    rows = await connection.fetch("SELECT document_id, text FROM c_1.chunks_2 ORDER BY 1")
    assert [tuple(row) for row in rows] == [(1, "new"), (4, "both")]
    assert await connection.fetchval("SELECT count(*) FROM c_1.vectors_2") == 2


async def test_vectors_that_were_given_are_told_from_those_that_were_made(
    database: Database, collection: Collection, connection: asyncpg.Connection
) -> None:
    made, given = np.eye(4, dtype=np.float32)[:2]
    chunks = [
        Chunk(0, "made", chunk_hash("t", "made")),
        Chunk(1, "given", chunk_hash("t", "given", given)),
    ]
    draft = Draft(title="t", chunks=(OwnChunk("made"), OwnChunk("given", given)))
    stored = Embedding(ACTIVE, chunks, [], [Embedded(0, made), Embedded(1, given)])
    number = await insert(connection, "own")
    await store(database, collection, number, draft, stored)
    [source] = await sources.read_sources(database, collection, [number], with_vectors=True)
    assert source.draft.chunks is not None
    assert [own.text for own in source.draft.chunks] == ["made", "given"]
    assert source.draft.chunks[0].vector is None
    assert source.draft.chunks[1].vector is not None
    assert source.draft.chunks[1].vector.tolist() == given.tolist()
    assert {key: value.tolist() for key, value in source.vectors.items()} == {
        chunks[0].hash: made.tolist(),
        chunks[1].hash: given.tolist(),
    }
    [plain] = await sources.read_sources(database, collection, [number], with_vectors=False)
    assert plain.vectors == {}
    assert plain.draft.chunks == (OwnChunk("made"), OwnChunk("given"))


async def test_own_chunks_that_are_in_one_generation_alone_are_listed(
    database: Database, collection: Collection, connection: asyncpg.Connection
) -> None:
    own = Draft(chunks=(OwnChunk("x"),))
    for id_ in ("a", "b"):
        number = await insert(connection, id_)
        await store(database, collection, number, own, embedding(ACTIVE, "x"))
    number = await insert(connection, "text")
    await store(database, collection, number, Draft("x"), embedding(ACTIVE, "x"))
    both = await build(database, collection)
    number = await insert(connection, "c")
    await store(database, both, number, own, *(embedding(g, "x") for g in both.generations))
    async with database.connection() as reading:
        found = await generations.list_only_in(reading, collection.number, ACTIVE, BUILDING, 5)
        assert found == ["a", "b"]
        assert await generations.list_only_in(reading, 1, ACTIVE, BUILDING, 1) == ["a"]
        assert await generations.list_only_in(reading, 1, BUILDING, ACTIVE, 5) == []


async def test_texts_are_sampled_by_where_their_documents_are(
    database: Database, half_built: Collection
) -> None:
    everywhere = [at / 50 for at in range(50)]
    assert await sources.sample_texts(database, half_built, everywhere) == ["a", "b", "c", "both"]
    assert await sources.sample_texts(database, half_built, [0.0]) == ["a"]
    assert await sources.sample_texts(database, half_built, [0.5, 0.5]) == ["c"]
    assert await sources.sample_texts(database, half_built, [0.99]) == []  # that one waits


# --- Claims of jobs ---------------------------------------------------------------------------


async def make_job(database: Database, collection: Collection, **parameters: Any) -> int:
    async with database.transaction() as connection:
        return await jobs.create_job(
            connection, collection.number, type="reembed", unit="documents", parameters=parameters
        )


async def claim(
    database: Database, worker: UUID | None = None, lease_s: float = LEASE_S
) -> JobClaim | None:
    return await job_claims.claim_job(database, worker or uuid4(), ["reembed"], lease_s)


async def claimed(database: Database, lease_s: float = LEASE_S) -> JobClaim:
    found = await claim(database, lease_s=lease_s)
    assert found is not None
    return found


async def save(database: Database, held: JobClaim, document: int, done: int = 0) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "UPDATE memoryd.collections SET metadata = jsonb_build_object('saved', $1::int)",
            document,
        )
        await job_claims.save_progress(
            connection, held, {"document": document}, stage="embedding", done=done, total=9
        )


async def test_a_job_is_claimed_by_one_of_many_workers(
    database: Database, collection: Collection
) -> None:
    number = await make_job(database, collection, number=2)
    found = await asyncio.gather(*(claim(database) for _ in range(8)))
    [held] = [each for each in found if each is not None]
    assert (held.number, held.attempt, held.fruitless_attempts) == (number, 1, 1)
    assert held.parameters == {"number": 2}
    assert held.checkpoint == {}
    job = await jobs.find_job(database, number)
    assert (job.status, job.attempt) == ("running", 1)
    assert job.started_at is not None


async def test_ingests_are_not_claimed_as_a_whole(
    database: Database, collection: Collection
) -> None:
    async with database.transaction() as connection:
        await jobs.create_job(connection, collection.number, type="ingest", unit="documents")
    assert await claim(database) is None


async def test_the_oldest_job_comes_first(database: Database, collection: Collection) -> None:
    first, second = [await make_job(database, collection) for _ in range(2)]
    assert [(await claimed(database)).number for _ in range(2)] == [first, second]


async def test_a_job_whose_worker_died_goes_on_from_its_checkpoint(
    database: Database, collection: Collection
) -> None:
    await make_job(database, collection)
    dead = await claimed(database, lease_s=0.05)
    await save(database, dead, 41, done=5)
    await asyncio.sleep(0.1)
    heir = await claimed(database)
    assert heir.checkpoint == {"document": 41, "attempt": 1}
    assert (heir.attempt, heir.fruitless_attempts, heir.done) == (2, 1, 5)


async def test_a_worker_that_wakes_up_late_writes_nothing(
    database: Database, collection: Collection
) -> None:
    number = await make_job(database, collection)
    late = await claimed(database, lease_s=0.05)
    await asyncio.sleep(0.1)
    heir = await claimed(database)
    await save(database, heir, 7)
    with pytest.raises(LostJobError):
        await save(database, late, 41)
    with pytest.raises(LostJobError):
        await job_claims.renew_job(database, late, LEASE_S)
    with pytest.raises(LostJobError):
        await job_claims.release_job(database, late, 0)
    for end in (
        partial(job_claims.complete_job, counts={}, result={}),
        partial(job_claims.fail_job, error=InvalidInputError("it is broken")),
    ):
        async with database.connection() as connection:
            with pytest.raises(LostJobError):
                await end(connection, late)
    assert (await read(database, collection)).metadata == {"saved": 7}
    assert (await jobs.find_job(database, number)).status == "running"


async def test_the_same_worker_is_fenced_off_from_its_own_earlier_attempt(
    database: Database, collection: Collection
) -> None:
    await make_job(database, collection)
    worker = uuid4()
    first = await claim(database, worker)
    assert first is not None
    await job_claims.release_job(database, first, 0)
    await asyncio.sleep(0.01)
    second = await claim(database, worker)
    assert second is not None
    assert second.attempt == 2
    with pytest.raises(LostJobError):
        await save(database, first, 1)
    await save(database, second, 1)


async def test_a_renewed_claim_is_kept(database: Database, collection: Collection) -> None:
    await make_job(database, collection)
    held = await claimed(database, lease_s=0.1)
    await job_claims.renew_job(database, held, LEASE_S)
    await asyncio.sleep(0.15)
    assert await claim(database) is None


async def test_a_job_that_is_given_back_waits_as_long_as_it_was_told(
    database: Database, collection: Collection
) -> None:
    number = await make_job(database, collection)
    held = await claimed(database)
    await job_claims.release_job(database, held, 0.3, UnavailableError("no room"))
    assert await claim(database) is None
    error = (await jobs.find_job(database, number)).last_error
    assert error is not None
    assert error["message"] == "no room"
    await asyncio.sleep(0.35)
    assert (await claimed(database)).fruitless_attempts == 2


async def test_a_job_ends_with_its_result_or_its_error(
    database: Database, collection: Collection
) -> None:
    numbers = [await make_job(database, collection) for _ in range(2)]
    for end in (
        partial(job_claims.complete_job, counts={"stored": 3}, result={"chunks": 4}),
        partial(job_claims.fail_job, error=InvalidInputError("it is broken", "title")),
    ):
        held = await claimed(database)
        await save(database, held, 1, done=9)
        async with database.connection() as connection:
            await end(connection, held)
    well, badly = [await jobs.find_job(database, number) for number in numbers]
    assert (well.status, well.counts, well.result) == ("completed", {"stored": 3}, {"chunks": 4})
    assert (badly.status, badly.result) == ("failed", None)
    assert badly.last_error is not None
    assert badly.last_error["message"] == "it is broken"
    assert None not in (well.finished_at, badly.finished_at)
    assert (well.stage, badly.stage) == (None, None)
    assert await claim(database) is None


async def test_a_job_that_is_retried_begins_from_the_start(
    database: Database, collection: Collection
) -> None:
    number = await make_job(database, collection, number=2)
    first = await claimed(database)
    await save(database, first, 7, done=5)
    async with database.transaction() as connection:
        await job_claims.fail_job(connection, first, InvalidInputError("it is broken"))
        await jobs.retry_job(connection, number)
        await job_claims.reset_job(connection, number, {"number": 3})
        assert await job_claims.read_parameters(connection, number) == {"number": 3}
    second = await claimed(database)
    assert (second.parameters, second.checkpoint) == ({"number": 3}, {"attempt": 1})
    assert (second.attempt, second.fruitless_attempts, second.done) == (2, 1, 0)
    with pytest.raises(LostJobError):
        await save(database, first, 8)
