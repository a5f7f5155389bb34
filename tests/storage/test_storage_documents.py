import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from memoryd.documents.filters import parse_filter
from memoryd.documents.types import (
    Chunk,
    Chunking,
    Collection,
    Document,
    Draft,
    Generation,
    OwnChunk,
    chunk_hash,
)
from memoryd.errors import ConflictError, MemorydError, NotFoundError
from memoryd.storage import acceptance, collections, dense, documents, generations
from memoryd.storage import chunks as stored_chunks
from memoryd.storage.acceptance import Terms
from memoryd.storage.chunks import Embedded, Embedding
from memoryd.storage.database import Connection, Database
from memoryd.storage.found_chunks import fetch_found
from memoryd.vectors.rankings import Ranking
from memoryd.vectors.types import Vector

DIMENSIONS = 4


@pytest_asyncio.fixture(params=["half", "full"])
async def collection(
    database: Database, request: pytest.FixtureRequest
) -> AsyncIterator[Collection]:
    yield await collections.create_collection(
        database,
        name="kb",
        model="toy",
        dimensions=DIMENSIONS,
        precision=request.param,
        chunking=Chunking(),
        language="english",
        metadata={},
    )


def chunk(position: int, text: str, headings: tuple[str, ...] | None = None) -> Chunk:
    start = 10 * position
    return Chunk(
        position, text, chunk_hash("", text), start, start + len(text), 5, position + 1, headings
    )


def embedded(position: int, *numbers: float) -> Embedded:
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[: len(numbers)] = numbers
    return Embedded(position, vector)


def embedding(generation: Generation, *texts: str) -> Embedding:
    """Return what makes each text a new chunk."""
    chunks = [chunk(position, text) for position, text in enumerate(texts)]
    vectors_ = [embedded(position, 1, position) for position in range(len(texts))]
    return Embedding(generation, chunks, [], vectors_)


async def accept(database: Database, collection: Collection, id_: str) -> Document:
    """Accept a document that waits, and return its row."""
    async with database.transaction() as connection:
        await acceptance.accept(connection, collection, [Draft("x", id=id_)], Terms())
    document = await documents.find_document(database, collection, id_)
    assert document is not None
    return document


async def write(
    database: Database,
    collection: Collection,
    current: Document,
    draft: Draft,
    *embeddings: Embedding,
    number: int = 1,
) -> int | None:
    async with database.transaction() as connection:
        return await documents.write_document(
            connection,
            collection,
            current.number,
            current.version,
            draft,
            b"hash of content",
            number,
            embeddings,
        )


async def insert(database: Database, collection: Collection, id_: str, *texts: str) -> Document:
    """Accept and store a document of these chunks, and return it."""
    accepted = await accept(database, collection, id_)
    draft = Draft(" ".join(texts), id=id_)
    assert (
        await write(database, collection, accepted, draft, embedding(collection.active, *texts))
        == 1
    )
    return await documents.require_document(database, collection, id_)


async def texts_of(
    database: Database, collection: Collection, document: Document
) -> list[tuple[int, str]]:
    chunks = await stored_chunks.list_chunks(database, collection, document, after=-1, limit=10)
    return [(chunk.position, chunk.text) for chunk in chunks]


async def test_a_version_is_written_once_whoever_is_first(
    database: Database, collection: Collection
) -> None:
    accepted = await accept(database, collection, "a")
    versions = await asyncio.gather(
        *(
            write(
                database,
                collection,
                accepted,
                Draft(f"x {number}", id="a"),
                embedding(collection.active, "x", str(number)),
            )
            for number in range(8)
        )
    )
    assert sorted(versions, key=str) == [1, *[None] * 7]
    [document] = await documents.list_documents(database, collection, after=0, limit=10)
    assert document.chunk_count == 2
    chunks = await texts_of(database, collection, document)
    shown = await documents.read_document(database, collection, "a")
    assert " ".join(text for _, text in chunks) == shown.text


async def test_all_of_a_document_is_written_and_read_back(
    database: Database, collection: Collection
) -> None:
    at = datetime(2100, 1, 1, tzinfo=UTC)
    draft = Draft(
        "one two",
        chunks=(OwnChunk("one"), OwnChunk("two")),
        id="a",
        title="T",
        metadata={"a": [1, None]},
        tags=["x"],
        mime_type="text/plain",
        language="german",
        expires_at=at,
    )
    made = [chunk(0, "one", ("A", "B")), chunk(1, "two", ())]
    wanted = Embedding(collection.active, made, [], [embedded(0, 1), embedded(1, 0, 1)])
    current = await accept(database, collection, "a")
    assert await write(database, collection, current, draft, wanted, number=7) == 1
    stored = await documents.read_document(database, collection, "a")
    assert (stored.version, stored.last_draft, stored.chunk_count) == (1, 7, 2)
    assert stored.content_hash == b"hash of content"
    assert (stored.title, stored.text, stored.metadata) == ("T", "one two", {"a": [1, None]})
    assert (stored.tags, stored.mime_type, stored.language) == (["x"], "text/plain", "german")
    assert stored.expires_at == at
    chunks = await stored_chunks.list_chunks(database, collection, stored, after=-1, limit=5)
    assert [(c.page, c.headings, c.start_char, c.end_char, c.token_count) for c in chunks] == [
        (1, ["A", "B"], 0, 3, 5),
        (2, [], 10, 13, 5),
    ]


async def test_replacing_a_version_that_is_gone_writes_nothing(
    database: Database, collection: Collection
) -> None:
    stale = await insert(database, collection, "a", "old", "kept")
    draft = Draft("new kept", id="a")
    [(_, _), (number, hash_)] = await stored_chunks.find_chunk_hashes(
        database, collection, collection.active, stale.number
    )
    assert hash_ == chunk_hash("", "kept")
    new = [chunk(0, "new"), chunk(1, "kept", ("moved",))]
    wanted = Embedding(collection.active, new, [(number, 1)], [embedded(0, 0, 1)])

    assert await write(database, collection, stale, draft, wanted) == 2
    assert await write(database, collection, stale, draft, wanted) is None
    async with database.transaction() as connection:
        stale_write = await documents.write_attributes(
            connection, collection, stale.number, stale.version, draft, 1
        )
    assert stale_write is None
    current = await documents.read_document(database, collection, "a")
    assert (current.version, current.text) == (2, "new kept")
    chunks = await stored_chunks.list_chunks(database, collection, current, after=-1, limit=10)
    assert [(c.position, c.text) for c in chunks] == [(0, "new"), (1, "kept")]
    assert chunks[1].number == number
    assert (chunks[1].page, chunks[1].headings, chunks[1].start_char) == (2, ["moved"], 10)
    async with database.snapshot() as connection:
        found = await dense.find_vectors(connection, collection, [c.number for c in chunks])
    assert found[chunks[0].number] == pytest.approx([0, 1, 0, 0])
    assert found[number] == pytest.approx([1, 1, 0, 0])


async def test_attributes_are_written_without_touching_chunks(
    database: Database, collection: Collection
) -> None:
    current = await insert(database, collection, "a", "x", "y")
    before = await stored_chunks.list_chunks(database, collection, current, after=-1, limit=5)
    draft = Draft("x y", id="a", metadata={"b": 1}, tags=["t"], language="german")
    async with database.transaction() as connection:
        version = await documents.write_attributes(
            connection, collection, current.number, current.version, draft, 9
        )
    assert version == 2
    after = await documents.require_document(database, collection, "a")
    assert (after.metadata, after.tags, after.language, after.last_draft) == (
        {"b": 1},
        ["t"],
        "german",
        9,
    )
    assert await stored_chunks.list_chunks(database, collection, after, after=-1, limit=5) == before


async def test_a_document_is_written_to_every_generation_or_to_none(
    database: Database, collection: Collection
) -> None:
    second = replace(collection.active, number=2, role="building", dimensions=DIMENSIONS + 1)

    async def build(connection: asyncpg.Connection) -> None:
        await generations.build_generation(connection, collection.number, 1, second)

    await generations.change_alone(database, collection.number, build)
    current = await accept(database, collection, "a")
    wide = Embedded(0, np.ones(DIMENSIONS + 1, dtype=np.float32))
    other = Embedding(second, [chunk(0, "all of it")], [], [wide])
    narrow = replace(other, embedded=[embedded(0, 1)])
    first, draft = embedding(collection.active, "x", "y"), Draft("x y", id="a")
    with pytest.raises(MemorydError):
        await write(database, collection, current, draft, first, narrow)
    assert await texts_of(database, collection, current) == []
    assert await write(database, collection, current, draft, first, other) == 1
    both = await collections.find_collection(database, "kb")
    assert await texts_of(database, both, current) == [(0, "x"), (1, "y")]
    numbers = []
    for generation in both.generations:
        hashes = await stored_chunks.find_chunk_hashes(database, both, generation, current.number)
        numbers += [number for number, _ in hashes]
    assert len(numbers) == len(set(numbers)) == 3


async def test_replacing_a_deleted_document_writes_nothing(
    database: Database, collection: Collection, connection: asyncpg.Connection
) -> None:
    stale = await insert(database, collection, "a", "x")
    async with database.transaction() as deleting:
        current = await documents.lock_document(deleting, collection, "a", 1)
        await documents.delete_documents(deleting, collection, [current.number])
    wanted = embedding(collection.active, "y")
    assert await write(database, collection, stale, Draft("y", id="a"), wanted) is None
    assert await connection.fetchval("SELECT count(*) FROM c_1.vectors_1") == 0
    assert await connection.fetchval("SELECT count(*) FROM c_1.chunks_1") == 0


async def test_a_locked_document_is_the_one_that_was_asked_for(
    database: Database, collection: Collection
) -> None:
    await insert(database, collection, "a", "x")
    async with database.transaction() as connection:
        with pytest.raises(ConflictError, match="at version 1, not at 2"):
            await documents.lock_document(connection, collection, "a", 2)
        with pytest.raises(NotFoundError):
            await documents.lock_document(connection, collection, "b")


async def test_a_document_of_no_chunks_is_replaced_and_deleted(
    database: Database, collection: Collection
) -> None:
    current = await insert(database, collection, "a", "x", "y")
    nothing = Embedding(collection.active, [], [], [])
    assert await write(database, collection, current, Draft("", id="a"), nothing) == 2
    again = await documents.require_document(database, collection, "a")
    assert again.chunk_count == 0
    assert await texts_of(database, collection, again) == []
    async with database.transaction() as connection:
        await documents.delete_documents(connection, collection, [again.number])
    assert await documents.find_document(database, collection, "a") is None


async def test_documents_are_locked_in_batches_that_end(
    database: Database, collection: Collection
) -> None:
    stored = [await insert(database, collection, id_, "x") for id_ in ("a", "b", "c", "d")]
    numbers = [document.number for document in stored]
    wanted = parse_filter({"field": "id", "ne": "b"})

    async def lock(after: int, limit: int) -> tuple[list[int], int | None]:
        async with database.transaction() as connection:
            return await documents.lock_documents(
                connection, collection, wanted, after=after, until=numbers[2], limit=limit
            )

    # The drafts still wait here: they match as the documents do.
    assert await lock(0, 1) == ([numbers[0]], numbers[0])
    assert await lock(numbers[0], 1) == ([numbers[2]], numbers[2])
    assert await lock(numbers[2], 1) == ([], None)
    assert await lock(0, 3) == ([numbers[0], numbers[2]], None)
    assert await documents.count_documents(database, collection, wanted) == 3
    assert await documents.find_newest_number(database, collection) == numbers[3]


async def nearest(
    connection: Connection, collection: Collection, query: Vector, depth: int
) -> Ranking:
    ranking, _ = await dense.search_dense(
        connection, collection, query, depth=depth, wanted=None, settings=dense.DenseSettings()
    )
    return ranking


async def test_vectors_of_all_sizes_come_back_within_their_precision(
    database: Database, collection: Collection
) -> None:
    sent = np.array([0.5, -1e-3, 1e-5, 0.7], dtype=np.float32)
    wanted = Embedding(collection.active, [chunk(0, "x")], [], [Embedded(0, sent)])
    current = await accept(database, collection, "a")
    await write(database, collection, current, Draft("x", id="a"), wanted)
    async with database.snapshot() as connection:
        ranking = await nearest(connection, collection, sent, 5)
    assert ranking.scores == pytest.approx([1], abs=1e-5)
    [number] = ranking.chunks.tolist()
    async with database.snapshot() as connection:
        found = await dense.find_vectors(connection, collection, [number])
    tolerance = {"half": 2**-10, "full": 1e-7}[collection.precision]
    assert found[number] == pytest.approx(sent, rel=tolerance, abs=1e-7)


async def test_neighbors_come_nearest_first_and_equals_by_number(
    database: Database, collection: Collection
) -> None:
    for id_ in ("a", "b"):
        await insert(database, collection, id_, "0", "1", "2")
    query = np.array([1, 0, 0, 0], dtype=np.float32)
    async with database.snapshot() as connection:
        found = await nearest(connection, collection, query, 10)
    assert len(found) == 6
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert list(found.scores[::2]) == list(found.scores[1::2])
    assert np.all(found.chunks[::2] < found.chunks[1::2])
    numbers = sorted(set(found.documents.tolist()))
    async with database.snapshot() as connection:
        best = await fetch_found(
            connection, collection, [query], [], documents=numbers[1:], nearest=2
        )
    best.sort(key=lambda row: -row.cosine)
    assert [row.document.number for row in best] == [numbers[1]] * 2
    assert [row.cosine for row in best] == [found.scores[0], found.scores[2]]


async def test_a_chunk_can_not_be_without_its_vector_nor_a_vector_of_another_width(
    database: Database, collection: Collection
) -> None:
    current = await accept(database, collection, "a")
    narrow = Embedded(0, np.ones(DIMENSIONS - 1, dtype=np.float32))
    wanted = Embedding(collection.active, [chunk(0, "x")], [], [narrow])
    with pytest.raises(MemorydError):
        await write(database, collection, current, Draft("x", id="a"), wanted)
    assert await documents.find_document(database, collection, "a") == current


async def test_what_is_asked_of_a_deleted_collection_is_not_found(
    database: Database, collection: Collection
) -> None:
    gone = replace(collection, number=99)
    current = await insert(database, collection, "a", "x")
    with pytest.raises(NotFoundError):
        await documents.find_document(database, gone, "a")
    with pytest.raises(NotFoundError):
        await accept(database, gone, "a")
    with pytest.raises(NotFoundError):
        await write(database, gone, current, Draft("x"), embedding(collection.active, "x"))
    with pytest.raises(NotFoundError):
        async with database.snapshot() as connection:
            await nearest(connection, gone, np.ones(4, dtype=np.float32), 5)
    with pytest.raises(NotFoundError):
        await collections.delete_collection(database, gone)
    with pytest.raises(NotFoundError):
        await collections.count_contents(database, gone)
    with pytest.raises(NotFoundError):
        await collections.move_alias(database, gone, "live")
