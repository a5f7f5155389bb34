"""What another generation of a collection is made from: the documents that are stored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import numpy as np

from memoryd.documents.types import Collection, Draft, Generation, OwnChunk, chunk_hash
from memoryd.storage.chunks import Embedding, insert_chunks
from memoryd.storage.database import Connection, Database
from memoryd.storage.documents import load_sections
from memoryd.storage.tables import chunk_table, collection_schema, vector_table
from memoryd.vectors.types import Vector


@dataclass(frozen=True)
class Missing:
    """Be a stored document of which a generation has no chunk."""

    number: int
    size_bytes: int
    """Of its text, as it lies in the database."""


@dataclass(frozen=True)
class Source:
    """Be a stored document, as it would be submitted again."""

    number: int
    id: str
    content_hash: bytes
    draft: Draft
    vectors: dict[bytes, Vector]
    """Those of its chunks in the active generation, by hash, where they were asked for."""


async def count_stored(database: Database, collection: Collection) -> int:
    """Return how many documents are stored, those left out that wait for the first time."""
    schema = collection_schema(collection.number)
    async with database.connection() as connection:
        stored: int = await connection.fetchval(
            f"SELECT count(*) FROM {schema}.documents WHERE version > 0"
        )
    return stored


async def count_embedded(
    database: Database, collection: Collection, generation: Generation
) -> tuple[int, int]:
    """Return how many documents and how many chunks a generation has."""
    chunks = f"{collection_schema(collection.number)}.{chunk_table(generation.number)}"
    async with database.connection() as connection:
        [row] = await connection.fetch(
            f"SELECT count(DISTINCT document_id) AS documents, count(*) AS chunks FROM {chunks}"
        )
    return row["documents"], row["chunks"]


async def list_missing(
    database: Database, collection: Collection, generation: Generation, *, after: int, limit: int
) -> list[Missing]:
    """Return up to `limit` stored documents without chunks in a generation, by number."""
    schema = collection_schema(collection.number)
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT id, pg_column_size(text) AS size_bytes FROM {schema}.documents d"
            " WHERE id > $1 AND version > 0 AND NOT EXISTS (SELECT 1"
            f" FROM {schema}.{chunk_table(generation.number)} c WHERE c.document_id = d.id)"
            f" ORDER BY id LIMIT {limit:d}",
            after,
        )
    return [Missing(row["id"], row["size_bytes"]) for row in rows]


async def read_sources(
    database: Database, collection: Collection, numbers: Sequence[int], *, with_vectors: bool
) -> list[Source]:
    """Return those of the documents that are still there, all as they are at one moment."""
    async with database.snapshot() as connection:
        rows = await connection.fetch(
            "SELECT id, external_id, content_hash, title, text, mime_type, language, sections,"
            f" has_own_chunks FROM {collection_schema(collection.number)}.documents"
            " WHERE id = ANY ($1) AND version > 0 ORDER BY id",
            numbers,
        )
        return [await _read_source(connection, collection, row, with_vectors) for row in rows]


async def _read_source(
    connection: Connection, collection: Collection, row: asyncpg.Record, with_vectors: bool
) -> Source:
    own: list[OwnChunk] = []
    vectors: dict[bytes, Vector] = {}
    if row["has_own_chunks"] or with_vectors:
        stored = await _read_chunks(connection, collection, row["id"], with_vectors)
        if with_vectors:
            vectors = {chunk["hash"]: _as_vector(chunk["embedding"]) for chunk in stored}
        own = [_own_chunk(row["title"], chunk, vectors) for chunk in stored]
    draft = Draft(
        text=row["text"],
        chunks=tuple(own) if row["has_own_chunks"] else None,
        title=row["title"],
        mime_type=row["mime_type"],
        language=row["language"],
        sections=load_sections(row["sections"]) if row["sections"] is not None else None,
        vectors_of=collection.model,
    )
    return Source(row["id"], row["external_id"], row["content_hash"], draft, vectors)


def _own_chunk(title: str, chunk: asyncpg.Record, vectors: dict[bytes, Vector]) -> OwnChunk:
    """Return a chunk with its vector, where that was given: its hash isn't that of its text."""
    is_given = chunk["hash"] != chunk_hash(title, chunk["text"])
    return OwnChunk(chunk["text"], vectors.get(chunk["hash"]) if is_given else None)


async def _read_chunks(
    connection: Connection, collection: Collection, document_number: int, with_vectors: bool
) -> list[asyncpg.Record]:
    schema, active = collection_schema(collection.number), collection.active.number
    embedding, join = "", ""
    if with_vectors:
        embedding = ", v.embedding"
        join = f" JOIN {schema}.{vector_table(active)} v ON v.chunk_id = c.id"
    return await connection.fetch(
        f"SELECT c.text, c.hash{embedding} FROM {schema}.{chunk_table(active)} c{join}"
        " WHERE c.document_id = $1 ORDER BY c.position",
        document_number,
    )


def _as_vector(stored: Any) -> Vector:
    return np.asarray(stored.to_numpy(), dtype=np.float32)


async def write_missing(
    connection: Connection,
    collection: Collection,
    embeddings: Sequence[tuple[Source, Embedding]],
) -> int:
    """Write what one generation makes of documents, and return of how many.

    One that has chunks there by now, or another content, is left out: whoever changed it wrote to
    all generations. The caller holds the lock of `generations.are_unchanged`.
    """
    if not embeddings:
        return 0
    schema = collection_schema(collection.number)
    table = chunk_table(embeddings[0][1].generation.number)
    locked = await connection.fetch(
        f"SELECT id, content_hash, language FROM {schema}.documents WHERE id = ANY ($1)"
        " ORDER BY id FOR UPDATE",
        [source.number for source, _ in embeddings],
    )
    hashes = {row["id"]: row["content_hash"] for row in locked}
    languages = {row["id"]: row["language"] for row in locked}  # no part of the content
    present = await connection.fetchval(  # what the locks waited for is seen by this statement
        f"SELECT coalesce(array_agg(DISTINCT document_id), '{{}}') FROM {schema}.{table}"
        " WHERE document_id = ANY ($1)",
        list(hashes),
    )
    fitting = [
        (source, embedding)
        for source, embedding in embeddings
        if hashes.get(source.number) == source.content_hash and source.number not in present
    ]
    for source, embedding in fitting:
        draft = replace(source.draft, language=languages[source.number])
        await insert_chunks(connection, collection, source.number, draft, embedding)
    return len(fitting)


async def sample_texts(
    database: Database, collection: Collection, fractions: Sequence[float]
) -> list[str]:
    """Return a title, or where there is none a chunk's text, for each of `fractions` in [0, 1).

    A fraction says where among the numbers of the documents the next stored one is looked for.
    """
    schema = collection_schema(collection.number)
    chunks = chunk_table(collection.active.number)
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT DISTINCT ON (d.id) coalesce(nullif(d.title, ''), c.text) AS text"
            f" FROM (SELECT min(id) AS lowest, max(id) AS highest FROM {schema}.documents) AS ends,"
            " unnest($1::float8[]) AS fraction,"
            f" LATERAL (SELECT id, title FROM {schema}.documents WHERE version > 0"
            " AND id >= lowest + floor(fraction * (highest - lowest + 1))::bigint"
            " ORDER BY id LIMIT 1) AS d,"
            f" LATERAL (SELECT text FROM {schema}.{chunks} WHERE document_id = d.id"
            " ORDER BY position LIMIT 1) AS c ORDER BY d.id",
            fractions,
        )
    return [row["text"] for row in rows]
