"""The chunks around those that were found."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import pytest_asyncio

from memoryd.documents.types import (
    Chunk,
    Chunking,
    Collection,
    Document,
    Draft,
    StoredChunk,
    chunk_hash,
)
from memoryd.storage import acceptance, collections, documents, generations
from memoryd.storage.acceptance import Terms
from memoryd.storage.chunks import Embedded, Embedding, find_neighbors, list_chunks
from memoryd.storage.database import Connection, Database
from memoryd.storage.tables import chunk_table, collection_schema

DIMENSIONS = 4


@pytest_asyncio.fixture
async def collection(database: Database) -> AsyncIterator[Collection]:
    yield await collections.create_collection(
        database,
        name="kb",
        model="toy",
        dimensions=DIMENSIONS,
        precision="half",
        chunking=Chunking(),
        language="english",
        metadata={},
    )


async def store(database: Database, collection: Collection, id_: str, *texts: str) -> Document:
    """Store a document of these chunks in all generations of the collection."""
    chunks = [Chunk(at, text, chunk_hash("", text)) for at, text in enumerate(texts)]
    vector = np.ones(DIMENSIONS, dtype=np.float32)
    embedded = [Embedded(at, vector) for at in range(len(texts))]
    made = [Embedding(generation, chunks, [], embedded) for generation in collection.generations]
    async with database.transaction() as connection:
        await acceptance.accept(connection, collection, [Draft("x", id=id_)], Terms())
    waiting = await documents.require_document(database, collection, id_)
    async with database.transaction() as connection:
        await documents.write_document(
            connection, collection, waiting.number, 0, Draft("x", id=id_), b"hash", 1, made
        )
    return await documents.require_document(database, collection, id_)


async def chunks_of(
    database: Database, collection: Collection, document: Document
) -> list[StoredChunk]:
    return await list_chunks(database, collection, document, after=-1, limit=100)


async def texts_around(
    database: Database, collection: Collection, chunks: Sequence[StoredChunk], context: int
) -> Mapping[str, list[str]]:
    async with database.snapshot() as connection:
        found = await find_neighbors(connection, collection, chunks, context)
    return {chunk.text: [each.text for each in found[chunk.number]] for chunk in chunks}


@pytest.mark.parametrize(
    ("context", "around_c", "around_a", "around_f"),
    [
        (0, "", "", ""),
        (1, "bd", "b", "e"),
        (2, "abde", "bc", "de"),
        (10, "abdef", "bcdef", "abcde"),
    ],
)
async def test_neighbors_are_those_of_the_same_document_in_its_order(
    database: Database,
    collection: Collection,
    context: int,
    around_c: str,
    around_a: str,
    around_f: str,
) -> None:
    await store(database, collection, "before", *"uvwxyz")
    letters = await store(database, collection, "letters", *"abcdef")
    await store(database, collection, "after", *"UVWXYZ")
    chunks = await chunks_of(database, collection, letters)
    found = await texts_around(database, collection, [chunks[at] for at in (2, 0, 5)], context)
    assert {text: "".join(around) for text, around in found.items()} == {
        "c": around_c,
        "a": around_a,
        "f": around_f,
    }


async def test_chunks_that_stand_together_have_the_neighbors_that_they_share(
    database: Database, collection: Collection
) -> None:
    lower = await store(database, collection, "lower", *"abc")
    upper = await store(database, collection, "upper", *"AB")
    chunks = await chunks_of(database, collection, lower)
    chunks += await chunks_of(database, collection, upper)
    assert await texts_around(database, collection, chunks, 1) == {
        "a": ["b"],
        "b": ["a", "c"],
        "c": ["b"],
        "A": ["B"],
        "B": ["A"],
    }


async def test_a_chunk_that_stands_alone_and_no_chunk_have_no_neighbors(
    database: Database, collection: Collection
) -> None:
    alone = await store(database, collection, "alone", "a")
    chunks = await chunks_of(database, collection, alone)
    assert await texts_around(database, collection, chunks, 10) == {"a": []}
    assert await texts_around(database, collection, [], 10) == {}


async def test_neighbors_are_chunks_of_the_generation_that_is_searched(
    database: Database, collection: Collection
) -> None:
    async def build(connection: Connection) -> None:
        building = replace(collection.active, number=2, role="building")
        await generations.build_generation(connection, collection.number, 1, building)

    await generations.change_alone(database, collection.number, build)
    both = await collections.find_collection(database, "kb")
    assert len(both.generations) == 2
    letters = await store(database, both, "letters", *"abc")
    chunks = await chunks_of(database, both, letters)
    async with database.snapshot() as connection:
        found = await find_neighbors(connection, both, chunks[:1], 1)
    assert found == {chunks[0].number: chunks[1:2]}


async def count_reads(connection: Connection, collection: Collection) -> tuple[int, int]:
    """Return how often this connection has read all chunks, and how many it has found by index."""
    row = await connection.fetchrow(
        "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relid = $1::text::regclass",
        f"{collection_schema(collection.number)}.{chunk_table(collection.active.number)}",
    )
    return row["seq_scan"], row["idx_tup_fetch"]


async def test_neighbors_are_found_by_the_index_of_their_places(
    database: Database, collection: Collection
) -> None:
    for id_ in ("one", "other"):
        document = await store(database, collection, id_, *(f"{id_} {at}" for at in range(3_000)))
    found = await list_chunks(database, collection, document, after=1_499, limit=50)
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
    async with database.snapshot() as connection:
        scans, fetched = await count_reads(connection, collection)
        await find_neighbors(connection, collection, found, 10)
        assert await count_reads(connection, collection) == (scans, fetched + 50 + 2 * 10)
