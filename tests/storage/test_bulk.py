from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from memoryd.documents.outline import Section
from memoryd.documents.records import Record
from memoryd.documents.types import Chunk, Chunking, Collection, Draft, OwnChunk, Precision
from memoryd.errors import UnavailableError
from memoryd.storage import acceptance, bulk, collections, documents, export
from memoryd.storage import chunks as stored_chunks
from memoryd.storage.acceptance import Terms
from memoryd.storage.database import Database
from memoryd.vectors.types import Vectors

DIMENSIONS = 5
TIME = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
# Numbers that half precision rounds, the smallest and the largest that it has, and both zeros.
VECTORS = np.array([[0.1, -1 / 3, 6e-8, 65_504, -0.0], [1, 2, 3, 4, 5]], np.float32)


@pytest_asyncio.fixture(params=["half", "full"])
async def collection(
    database: Database, request: pytest.FixtureRequest
) -> AsyncIterator[Collection]:
    yield await make(database, "kb", request.param)


async def make(database: Database, name: str, precision: Precision) -> Collection:
    return await collections.create_collection(
        database,
        name=name,
        model="toy",
        dimensions=DIMENSIONS,
        precision=precision,
        chunking=Chunking(),
        language="english",
        metadata={},
    )


def record(id_: str, vectors: Vectors = VECTORS) -> Record:
    chunks = (
        Chunk(0, "ünï", b"\1" * 16, 0, 3, 7, 2, ("H", "I")),
        Chunk(1, "😀 b", b"\2" * 16, 4, 7),
    )
    draft = Draft(
        "ünï 😀 b",
        id=id_,
        title="Title",
        metadata={"a": [1, {"b": None}]},
        tags=["x", "y"],
        mime_type="text/x",
        language="german",
        expires_at=TIME.replace(year=2999),
        sections=(Section(0, 3, ("H",), 2),),
    )
    return Record(draft, b"\3" * 16, chunks, vectors, TIME)


def own(id_: str) -> Record:
    chunk = Chunk(0, "a", b"\4" * 16)
    return Record(Draft(chunks=(OwnChunk("a"),), id=id_), b"\5" * 16, (chunk,), VECTORS[:1])


async def insert(database: Database, collection: Collection, *records: Record) -> None:
    async with database.transaction() as connection:
        number = await bulk.take_draft_number(connection, collection)
        await bulk.insert_records(connection, collection, records, number)


async def read(database: Database, collection: Collection, *, vectors: bool) -> list[Record]:
    records: list[Record] = []
    async with database.snapshot_apart() as connection:
        async for group in export.read_groups(connection, collection, with_vectors=vectors):
            records += export.make_records(group, collection, with_vectors=vectors)
    return records


async def test_what_is_written_in_bulk_is_read_back_in_its_order(
    database: Database, collection: Collection
) -> None:
    written = [record("b"), own("a"), record("c", VECTORS[::-1])]
    await insert(database, collection, *written)
    found = await read(database, collection, vectors=True)
    for before, after in zip(written, found, strict=True):
        assert after.draft == before.draft
        assert (after.content_hash, after.chunks) == (
            before.content_hash,
            tuple(each if each.headings else chunk_without(each) for each in before.chunks),
        )
        kept = before.vectors
        assert kept is not None
        if collection.precision == "half":
            kept = kept.astype(np.float16).astype(np.float32)
        assert after.vectors is not None
        assert after.vectors.tobytes() == kept.tobytes()
    assert found[0].created_at == TIME
    assert found[1].created_at != TIME
    assert [each.vectors for each in await read(database, collection, vectors=False)] == [None] * 3


def chunk_without(chunk: Chunk) -> Chunk:
    """Return a chunk without headings as it is read."""
    return Chunk(
        chunk.position, chunk.text, chunk.hash, chunk.start_char, chunk.end_char, headings=()
    )


async def test_vectors_go_in_bulk_as_they_go_one_by_one(
    database: Database, connection: asyncpg.Connection, collection: Collection
) -> None:
    await insert(database, collection, record("bulk"))
    async with database.transaction() as writing:
        await acceptance.accept(writing, collection, [Draft("x", id="single")], Terms())
    document = await documents.require_document(database, collection, "single")
    each = record("single")
    embedded = [stored_chunks.Embedded(at, VECTORS[at]) for at in range(2)]
    one = stored_chunks.Embedding(collection.active, each.chunks, [], embedded)
    async with database.transaction() as writing:
        await documents.write_document(
            writing, collection, document.number, 0, each.draft, b"", 1, [one]
        )
    rows = await connection.fetch(
        "SELECT array_agg(embedding::text ORDER BY chunk_id) AS vectors"
        " FROM c_1.vectors_1 GROUP BY document_id"
    )
    assert rows[0]["vectors"] == rows[1]["vectors"]
    chunks = await connection.fetch(
        "SELECT array_agg((position, start_char, end_char, token_count, hash, text, page, headings)"
        "::text ORDER BY position) AS chunks FROM c_1.chunks_1 GROUP BY document_id"
    )
    assert chunks[0]["chunks"] == chunks[1]["chunks"]


async def test_a_document_that_is_there_fails_the_batch_and_leaves_nothing(
    database: Database, collection: Collection
) -> None:
    await insert(database, collection, record("b"))
    with pytest.raises(UnavailableError, match="try again"):
        await insert(database, collection, record("a"), record("b"))
    assert [each.draft.id for each in await read(database, collection, vectors=False)] == ["b"]


async def test_documents_are_found_with_what_waits_for_them(
    database: Database, collection: Collection
) -> None:
    await insert(database, collection, record("a"), record("b"))
    async with database.transaction() as connection:
        await acceptance.accept(connection, collection, [Draft("x", id="b")], Terms())
        for find in (bulk.find_documents, bulk.lock_documents):
            found = await find(connection, collection, ["a", "b", "c"])
            assert {id_: each.is_waiting for id_, each in found.items()} == {"a": False, "b": True}
            assert found["a"].document.chunk_count == 2
        hashes = await bulk.find_chunk_hashes(
            connection, collection, [found["a"].document.number, 99]
        )
    [[(_, first), (_, second)]] = hashes.values()
    assert (first, second) == (b"\1" * 16, b"\2" * 16)


async def test_an_export_reads_documents_of_any_size_in_groups(database: Database) -> None:
    collection = await make(database, "large", "half")
    sizes = [10, 3 << 20, 1 << 20, 1 << 20, 1 << 20, *[10] * 1_500]
    for number, size in enumerate(sizes):
        if number < 5:
            text = f"{number}" + "x" * (size - 1)
            chunk = Chunk(0, "x", b"\1" * 16, 0, 1)
            draft = Draft(text, id=f"{number:05}")
            await insert(database, collection, Record(draft, b"", (chunk,), VECTORS[:1]))
    small = [
        Record(Draft("x", id=f"{n:05}"), b"", (Chunk(0, "x", b"", 0, 1),), VECTORS[:1])
        for n in range(5, len(sizes))
    ]
    await insert(database, collection, *small)
    async with database.snapshot_apart() as connection:
        groups = [
            [row["external_id"] for row in group.documents]
            async for group in export.read_groups(connection, collection, with_vectors=True)
        ]
    assert [id_ for group in groups for id_ in group] == [f"{n:05}" for n in range(len(sizes))]
    assert groups[:3] == [["00000"], ["00001"], ["00002"]]
    assert len(groups) < 10
    assert max(map(len, groups)) <= 1_000
