"""Collections of many vectors, one chunk a document, with what tells how they are searched."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from memoryd.documents.types import Chunking, Collection, DenseIndex, IndexSettings, Precision
from memoryd.storage import vector_indexes
from memoryd.storage.collections import create_collection, find_collection_by_number
from memoryd.storage.database import Connection, Database

# ruff: noqa: S608 - numbers of collections are all that goes into statements

Rows = npt.NDArray[np.float32]


def clusters(count: int, dimensions: int, seed: int = 1) -> Rows:
    """Return vectors around some centers, of about length 1, (count, dimensions)."""
    numbers = np.random.default_rng(seed)
    centers = numbers.standard_normal((20, dimensions))
    rows = centers[numbers.integers(0, 20, count)] + 0.6 * numbers.standard_normal(
        (count, dimensions)
    )
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float16).astype(np.float32)  # as a collection has them


async def make_collection(
    database: Database, dimensions: int, precision: Precision = "half", name: str = "kb"
) -> Collection:
    return await create_collection(
        database,
        name=name,
        model="toy",
        dimensions=dimensions,
        precision=precision,
        chunking=Chunking(),
        language="english",
        metadata={},
    )


async def store(
    database: Database,
    collection: Collection,
    vectors: Rows,
    tags: Sequence[Sequence[str]] | None = None,
    *,
    analyze: bool = True,
) -> None:
    """Store documents of one chunk each: their numbers, and those of the chunks, count the rows.

    ANALYZE waits for an index that is being built.
    """
    schema, count = f"c_{collection.number}", len(vectors)
    async with database.transaction() as connection:
        start = await connection.fetchval(f"SELECT coalesce(max(id), 0) FROM {schema}.documents")
        numbers = range(start + 1, start + count + 1)
        await connection.execute(
            f"INSERT INTO {schema}.documents (id, external_id, version, content_hash, title, text,"
            " metadata, tags, created_at, updated_at) OVERRIDING SYSTEM VALUE"
            " SELECT n, 'd' || n, 1, '', 'a title', repeat('some text ', 40),"
            " jsonb_build_object('n', n), string_to_array(t, ' '), now(), now()"
            " FROM unnest($1::bigint[], $2::text[]) AS given (n, t)",
            list(numbers),
            [" ".join(each) for each in tags or [()] * count],
        )
        await connection.execute(
            f"INSERT INTO {schema}.chunks_1 (id, document_id, position, hash, text)"
            " SELECT n, n, 0, '', 'some text' FROM unnest($1::bigint[]) AS n",
            list(numbers),
        )
        await connection.copy_records_to_table(
            "vectors_1",
            schema_name=schema,
            columns=("chunk_id", "document_id", "embedding"),
            records=zip(numbers, numbers, vectors, strict=True),
        )
    if not analyze:
        return
    async with database.connection() as connection:
        await connection.execute(f"ANALYZE {schema}.documents; ANALYZE {schema}.vectors_1")


async def build(database: Database, collection: Collection, **settings: Any) -> DenseIndex:
    """Make the index that the collection would get, and let searches use it."""
    index = vector_indexes.plan_index(IndexSettings(type="hnsw", **settings), collection.active)
    assert index is not None
    await vector_indexes.build_index(database, collection, collection.active, index, 1_000, _ignore)
    async with database.transaction() as connection:
        await vector_indexes.note_index(connection, collection, collection.active, index)
    return index


async def _ignore(done: int, total: int) -> None:
    pass


async def indexed(database: Database, collection: Collection) -> Collection:
    """Return the collection with an index that searches use."""
    await build(database, collection)
    return await find_collection_by_number(database, collection.number)


def without_index(collection: Collection) -> Collection:
    return replace(collection, generations=(replace(collection.active, dense_index=None),))


@dataclass
class Explaining:
    """Be a connection that notes how Postgres does what it is asked."""

    connection: Connection
    plans: list[str] = field(default_factory=list)

    async def execute(self, sql: str) -> None:
        """Do it."""
        await self.connection.execute(sql)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        """Do it."""
        return await self.connection.fetchval(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Any:
        """Do it, and note how."""
        rows = await self.connection.fetch(f"EXPLAIN (COSTS OFF) {sql}", *arguments)
        self.plans.append("\n".join(row[0] for row in rows))
        return await self.connection.fetchrow(sql, *arguments)
