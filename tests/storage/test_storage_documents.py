import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import numpy as np
import pytest
import pytest_asyncio

from memoryd.documents.types import Chunk, Chunking, Collection, Draft, chunk_hash
from memoryd.errors import MemorydError, NotFoundError
from memoryd.storage import collections, documents, vectors
from memoryd.storage.database import Database
from memoryd.storage.documents import Embedded

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


def chunk(position: int, text: str) -> Chunk:
    return Chunk(position, 10 * position, 10 * position + len(text), 5, text, chunk_hash("", text))


def embedded(position: int, *numbers: float) -> Embedded:
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[: len(numbers)] = numbers
    return Embedded(position, vector)


async def insert(database: Database, collection: Collection, id_: str, *texts: str) -> int | None:
    chunks = [chunk(position, text) for position, text in enumerate(texts)]
    vectors_ = [embedded(position, 1, position) for position in range(len(texts))]
    draft = Draft(" ".join(texts), id=id_)
    return await documents.insert_document(database, collection, draft, chunks, vectors_)


async def test_a_document_is_written_once_whoever_is_first(
    database: Database, collection: Collection
) -> None:
    versions = await asyncio.gather(
        *(insert(database, collection, "a", "x", str(number)) for number in range(8))
    )
    assert sorted(versions, key=str) == [1, *[None] * 7]
    [document] = await documents.list_documents(database, collection, after=0, limit=10)
    chunks = await documents.list_chunks(database, collection, document, after=-1, limit=10)
    assert [c.text for c in chunks] == (
        await documents.read_document(database, collection, "a")
    ).text.split()  # type: ignore[union-attr] # it was read with its text


async def test_replacing_a_version_that_is_gone_writes_nothing(
    database: Database, collection: Collection
) -> None:
    await insert(database, collection, "a", "old", "kept")
    stale = await documents.find_document(database, collection, "a")
    assert stale is not None
    draft = Draft("new kept", id="a")
    new = [chunk(0, "new"), chunk(1, "kept")]
    [(_, _), (number, _)] = await documents.find_chunk_hashes(database, collection, stale)

    async def swap() -> int | None:
        return await documents.replace_document(
            database, collection, stale, draft, new, [(number, 1)], [embedded(0, 0, 1)]
        )

    assert await swap() == 2
    assert await swap() is None
    assert await documents.update_attributes(database, collection, stale, draft) is None
    current = await documents.read_document(database, collection, "a")
    assert (current.version, current.text) == (2, "new kept")
    chunks = await documents.list_chunks(database, collection, current, after=-1, limit=10)
    assert [(c.position, c.text) for c in chunks] == [(0, "new"), (1, "kept")]
    assert chunks[1].number == number
    async with database.snapshot() as connection:
        found = await vectors.find_vectors(connection, collection, [c.number for c in chunks])
    assert found[chunks[0].number] == pytest.approx([0, 1, 0, 0])
    assert found[number] == pytest.approx([1, 1, 0, 0])


async def test_replacing_a_deleted_document_writes_nothing(
    database: Database, collection: Collection, connection: asyncpg.Connection
) -> None:
    await insert(database, collection, "a", "x")
    stale = await documents.find_document(database, collection, "a")
    assert stale is not None
    current = await documents.require_document(database, collection, "a")
    assert await documents.delete_document(database, collection, current)
    swapped = await documents.replace_document(
        database, collection, stale, Draft("y"), [chunk(0, "y")], [], [embedded(0, 1)]
    )
    assert swapped is None
    assert await connection.fetchval("SELECT count(*) FROM c_1.vectors_1") == 0
    assert await connection.fetchval("SELECT count(*) FROM c_1.chunks") == 0


async def test_a_document_of_no_chunks_is_replaced_and_deleted(
    database: Database, collection: Collection
) -> None:
    await insert(database, collection, "a", "x", "y")
    current = await documents.find_document(database, collection, "a")
    assert current is not None
    assert await documents.replace_document(database, collection, current, Draft(""), [], [], [])
    again = await documents.find_document(database, collection, "a")
    assert again is not None
    assert again.chunk_count == 0
    assert await documents.list_chunks(database, collection, again, after=-1, limit=5) == []


async def test_vectors_of_all_sizes_come_back_within_their_precision(
    database: Database, collection: Collection
) -> None:
    sent = np.array([0.5, -1e-3, 1e-5, 0.7], dtype=np.float32)
    draft = Draft("x", id="a")
    stored = [Embedded(0, sent)]
    await documents.insert_document(database, collection, draft, [chunk(0, "x")], stored)
    async with database.snapshot() as connection:
        [match] = await vectors.nearest_chunks(connection, collection, sent, 5)
    assert match.cosine == pytest.approx(1, abs=1e-5)
    async with database.snapshot() as connection:
        found = await vectors.find_vectors(connection, collection, [match.chunk_number])
    tolerance = {"half": 2**-10, "full": 1e-7}[collection.precision]
    assert found[match.chunk_number] == pytest.approx(sent, rel=tolerance, abs=1e-7)


async def test_neighbors_come_nearest_first_and_equals_by_number(
    database: Database, collection: Collection
) -> None:
    for id_ in ("a", "b"):
        await insert(database, collection, id_, "0", "1", "2")
    query = np.array([1, 0, 0, 0], dtype=np.float32)
    async with database.snapshot() as connection:
        found = await vectors.nearest_chunks(connection, collection, query, 10)
    assert len(found) == 6
    assert [match.cosine for match in found] == sorted(
        (match.cosine for match in found), reverse=True
    )
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert first.cosine == second.cosine
        assert first.chunk_number < second.chunk_number
    numbers = sorted({match.document_number for match in found})
    async with database.snapshot() as connection:
        best = await vectors.nearest_in_documents(connection, collection, query, numbers[1:], 2)
    assert [match.document_number for match in best] == [numbers[1]] * 2
    assert [match.cosine for match in best] == [found[0].cosine, found[2].cosine]


async def test_a_chunk_can_not_be_without_its_vector_nor_a_vector_of_another_width(
    database: Database, collection: Collection
) -> None:
    narrow = Embedded(0, np.ones(DIMENSIONS - 1, dtype=np.float32))
    with pytest.raises(MemorydError):
        await documents.insert_document(
            database, collection, Draft("x", id="a"), [chunk(0, "x")], [narrow]
        )
    assert await documents.find_document(database, collection, "a") is None


async def test_what_is_asked_of_a_deleted_collection_is_not_found(
    database: Database, collection: Collection
) -> None:
    gone = replace(collection, number=99)
    with pytest.raises(NotFoundError):
        await documents.find_document(database, gone, "a")
    with pytest.raises(NotFoundError):
        await insert(database, gone, "a", "x")
    with pytest.raises(NotFoundError):
        async with database.snapshot() as connection:
            await vectors.nearest_chunks(connection, gone, np.ones(4, dtype=np.float32), 5)
    with pytest.raises(NotFoundError):
        await collections.delete_collection(database, gone)
    with pytest.raises(NotFoundError):
        await collections.count_contents(database, gone)
    with pytest.raises(NotFoundError):
        await collections.move_alias(database, gone, "live")
