"""Documents and their chunks, in the schema of their collection."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import pgvector

from memoryd.documents.types import Chunk, Collection, Document, Draft, StoredChunk
from memoryd.errors import NotFoundError
from memoryd.storage.database import Connection, Database
from memoryd.storage.tables import collection_schema, vector_table
from memoryd.vectors.types import Vector

_ATTRIBUTES = (
    "id, external_id, version, content_hash, title, mime_type, language, metadata, tags,"
    " chunk_count, created_at, updated_at"
)
_VECTOR_TYPES = {"half": ("halfvec", pgvector.HalfVector), "full": ("vector", pgvector.Vector)}
_CHUNK = "id, document_id, position, start_char, end_char, token_count, text"


@dataclass(frozen=True)
class Embedded:
    """Be a new chunk's vector: `vector` belongs to the chunk at `position`."""

    position: int
    vector: Vector


async def find_document(
    database: Database, collection: Collection, external_id: str
) -> Document | None:
    """Return the document of that id without its text, or None."""
    return await _find_document(database, collection, external_id, _ATTRIBUTES)


async def require_document(
    database: Database, collection: Collection, external_id: str
) -> Document:
    """Return the document of that id without its text, or raise NotFoundError."""
    document = await find_document(database, collection, external_id)
    if document is None:
        raise not_found(collection, external_id)
    return document


async def read_document(database: Database, collection: Collection, external_id: str) -> Document:
    """Return the document of that id with its text, or raise NotFoundError."""
    document = await _find_document(database, collection, external_id, f"{_ATTRIBUTES}, text")
    if document is None:
        raise not_found(collection, external_id)
    return document


async def _find_document(
    database: Database, collection: Collection, external_id: str, columns: str
) -> Document | None:
    async with database.connection() as connection:
        row = await connection.fetchrow(
            f"SELECT {columns} FROM {collection_schema(collection.number)}.documents"
            " WHERE external_id = $1",
            external_id,
        )
    return _document(row) if row else None


def not_found(collection: Collection, external_id: str) -> NotFoundError:
    """Return the error that says so."""
    return NotFoundError(f"there is no document {external_id!r} in {collection.name!r}", "id")


async def list_documents(
    database: Database, collection: Collection, *, after: int, limit: int
) -> list[Document]:
    """Return up to `limit` documents without text, by number, from after `after` on."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {_ATTRIBUTES} FROM {collection_schema(collection.number)}.documents"
            f" WHERE id > $1 ORDER BY id LIMIT {limit:d}",
            after,
        )
    return [_document(row) for row in rows]


async def find_documents(
    connection: Connection, collection: Collection, numbers: Sequence[int]
) -> dict[int, Document]:
    """Return the documents of those rows, by number, without text."""
    rows = await connection.fetch(
        f"SELECT {_ATTRIBUTES}"
        f" FROM {collection_schema(collection.number)}.documents WHERE id = ANY($1)",
        numbers,
    )
    return {row["id"]: _document(row) for row in rows}


async def list_chunks(
    database: Database, collection: Collection, document: Document, *, after: int, limit: int
) -> list[StoredChunk]:
    """Return up to `limit` chunks of a document in order, from after position `after` on."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {_CHUNK} FROM {collection_schema(collection.number)}.chunks"
            " WHERE document_id = $1 AND position > $2::bigint"
            f" ORDER BY position LIMIT {limit:d}",
            document.number,
            after,
        )
    return [_chunk(row) for row in rows]


async def find_chunks(
    connection: Connection, collection: Collection, numbers: Sequence[int]
) -> dict[int, StoredChunk]:
    """Return the chunks of those rows, by number."""
    rows = await connection.fetch(
        f"SELECT {_CHUNK} FROM {collection_schema(collection.number)}.chunks WHERE id = ANY($1)",
        numbers,
    )
    return {row["id"]: _chunk(row) for row in rows}


async def find_chunk_hashes(
    database: Database, collection: Collection, document: Document
) -> list[tuple[int, bytes]]:
    """Return number and hash of each chunk of a document, in order."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT id, hash FROM {collection_schema(collection.number)}.chunks"
            " WHERE document_id = $1 ORDER BY position",
            document.number,
        )
    return [(row["id"], row["hash"]) for row in rows]


async def insert_document(
    database: Database,
    collection: Collection,
    draft: Draft,
    chunks: Sequence[Chunk],
    embedded: Sequence[Embedded],
) -> int | None:
    """Write a new document whole and return its version, or None where the id came to be taken."""
    schema = collection_schema(collection.number)
    async with database.transaction() as connection:
        number = await connection.fetchval(
            f"INSERT INTO {schema}.documents (external_id, version, content_hash, title, text,"
            " mime_type, language, metadata, tags, chunk_count, created_at, updated_at)"
            " VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, now(), now())"
            " ON CONFLICT (external_id) DO NOTHING RETURNING id",
            draft.external_id,
            *_written(draft, chunks),
        )
        if number is None:
            return None
        await _insert_chunks(connection, collection, number, chunks, embedded)
    return 1


async def replace_document(
    database: Database,
    collection: Collection,
    current: Document,
    draft: Draft,
    chunks: Sequence[Chunk],
    kept: Sequence[tuple[int, int]],
    embedded: Sequence[Embedded],
) -> int | None:
    """Swap in a new version whole and return it, or None where `current` has changed meanwhile.

    `kept` are (number, new position) of chunks that stay with their vectors; `embedded` are the
    vectors of the new ones.
    """
    schema = collection_schema(collection.number)
    async with database.transaction() as connection:
        version: int | None = await connection.fetchval(
            f"UPDATE {schema}.documents SET version = version + 1, content_hash = $3, title = $4,"
            " text = $5, mime_type = $6, language = $7, metadata = $8, tags = $9,"
            " chunk_count = $10, updated_at = now() WHERE id = $1 AND version = $2"
            " RETURNING version",
            current.number,
            current.version,
            *_written(draft, chunks),
        )
        if version is None:
            return None
        await _move_kept(connection, collection, current.number, chunks, kept)
        await _insert_chunks(connection, collection, current.number, chunks, embedded)
    return version


async def update_attributes(
    database: Database, collection: Collection, current: Document, draft: Draft
) -> int | None:
    """Write all that is not content and return the version, or None as in replace_document."""
    schema = collection_schema(collection.number)
    async with database.connection() as connection:
        version: int | None = await connection.fetchval(
            f"UPDATE {schema}.documents SET version = version + 1, mime_type = $3, language = $4,"
            " metadata = $5, tags = $6, updated_at = now() WHERE id = $1 AND version = $2"
            " RETURNING version",
            current.number,
            current.version,
            draft.mime_type,
            draft.language,
            draft.metadata,
            draft.tags,
        )
    return version


async def delete_document(database: Database, collection: Collection, current: Document) -> bool:
    """Delete a document with its chunks and vectors; False where it has changed meanwhile."""
    async with database.connection() as connection:
        deleted = await connection.fetchval(
            f"DELETE FROM {collection_schema(collection.number)}.documents"
            " WHERE id = $1 AND version = $2 RETURNING true",
            current.number,
            current.version,
        )
    return bool(deleted)


def _written(draft: Draft, chunks: Sequence[Chunk]) -> tuple[Any, ...]:
    """Return content_hash, title, text, mime_type, language, metadata, tags and chunk_count."""
    return (
        draft.content_hash,
        draft.title,
        draft.text,
        draft.mime_type,
        draft.language,
        draft.metadata,
        draft.tags,
        len(chunks),
    )


async def _move_kept(
    connection: Connection,
    collection: Collection,
    document_number: int,
    chunks: Sequence[Chunk],
    kept: Sequence[tuple[int, int]],
) -> None:
    schema = collection_schema(collection.number)
    numbers = [number for number, _ in kept]
    moved = [chunks[position] for _, position in kept]
    await connection.execute(
        f"DELETE FROM {schema}.chunks WHERE document_id = $1 AND id <> ALL($2)",
        document_number,
        numbers,
    )
    await connection.execute(
        f"UPDATE {schema}.chunks c SET position = k.position, start_char = k.start_char,"
        " end_char = k.end_char FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[])"
        " AS k (id, position, start_char, end_char) WHERE c.id = k.id",
        numbers,
        [chunk.position for chunk in moved],
        [chunk.start_char for chunk in moved],
        [chunk.end_char for chunk in moved],
    )


async def _insert_chunks(
    connection: Connection,
    collection: Collection,
    document_number: int,
    chunks: Sequence[Chunk],
    embedded: Sequence[Embedded],
) -> None:
    """Write new chunks and their vectors in one statement."""
    schema = collection_schema(collection.number)
    kind, wrapper = _VECTOR_TYPES[collection.precision]
    new = [chunks[item.position] for item in embedded]
    await connection.execute(
        "WITH n AS (SELECT * FROM unnest($2::int[], $3::int[], $4::int[], $5::int[], $6::bytea[],"
        f" $7::text[], $8::{kind}[])"
        " AS n (position, start_char, end_char, token_count, hash, text, embedding)),"
        f" c AS (INSERT INTO {schema}.chunks"
        " (document_id, position, start_char, end_char, token_count, hash, text)"
        " SELECT $1, position, start_char, end_char, token_count, hash, text FROM n"
        " RETURNING id, position)"
        f" INSERT INTO {schema}.{vector_table(collection.vector_table)}"
        " (chunk_id, document_id, embedding)"
        " SELECT c.id, $1, n.embedding FROM c JOIN n USING (position)",
        document_number,
        [chunk.position for chunk in new],
        [chunk.start_char for chunk in new],
        [chunk.end_char for chunk in new],
        [chunk.token_count for chunk in new],
        [chunk.hash for chunk in new],
        [chunk.text for chunk in new],
        [wrapper(item.vector) for item in embedded],  # a bare array would be a nested one
    )


def _document(row: asyncpg.Record) -> Document:
    fields = dict(row)
    return Document(number=fields.pop("id"), id=fields.pop("external_id"), **fields)


def _chunk(row: asyncpg.Record) -> StoredChunk:
    fields = dict(row)
    return StoredChunk(number=fields.pop("id"), document_number=fields.pop("document_id"), **fields)
