"""Chunks of documents and their vectors, in the tables of their generation."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import pgvector

from memoryd.documents.types import Chunk, Collection, Document, Draft, Generation, StoredChunk
from memoryd.storage.database import Connection, Database
from memoryd.storage.lexical_writing import SearchedChunk, delete_all_but, insert_lexical
from memoryd.storage.tables import chunk_table, collection_schema, vector_table
from memoryd.vectors.types import Vector

_VECTOR_TYPES = {"half": ("halfvec", pgvector.HalfVector), "full": ("vector", pgvector.Vector)}
_CHUNK = "id, document_id, position, start_char, end_char, token_count, text, page, headings"


@dataclass(frozen=True)
class Embedded:
    """Be a new chunk's vector: `vector` belongs to the chunk at `position`."""

    position: int
    vector: Vector


@dataclass(frozen=True)
class Embedding:
    """Be what a generation makes of a document: its chunks, and how they come about.

    `kept` are (number, new position) of stored chunks that stay with their vectors; `embedded` are
    the vectors of the others.
    """

    generation: Generation
    chunks: Sequence[Chunk]
    kept: Sequence[tuple[int, int]]
    embedded: Sequence[Embedded]


async def list_chunks(
    database: Database, collection: Collection, document: Document, *, after: int, limit: int
) -> list[StoredChunk]:
    """Return up to `limit` chunks of a document in order, from after position `after` on."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {_CHUNK} FROM {_chunks(collection)}"
            " WHERE document_id = $1 AND position > $2::bigint"
            f" ORDER BY position LIMIT {limit:d}",
            document.number,
            after,
        )
    return [_chunk(row) for row in rows]


async def find_neighbors(
    connection: Connection, collection: Collection, chunks: Sequence[StoredChunk], context: int
) -> dict[int, list[StoredChunk]]:
    """Return the chunks around each of `chunks`, by its number, in the order of the document.

    Those are `context` before it and `context` after it, fewer at the document's ends.
    """
    wanted = {place for chunk in chunks for place in _places_around(chunk, context)}
    rows = await connection.fetch(
        f"SELECT {_CHUNK} FROM {_chunks(collection)}"
        " JOIN unnest($1::bigint[], $2::int[]) AS wanted (document_id, position)"
        " USING (document_id, position)",
        [document_number for document_number, _ in wanted],
        [position for _, position in wanted],
    )
    found = {(row["document_id"], row["position"]): _chunk(row) for row in rows}
    return {
        chunk.number: [found[place] for place in _places_around(chunk, context) if place in found]
        for chunk in chunks
    }


def _places_around(chunk: StoredChunk, context: int) -> list[tuple[int, int]]:
    """Return document and position of what may stand before and after a chunk."""
    first, last = max(0, chunk.position - context), chunk.position + context
    return [
        (chunk.document_number, position)
        for position in range(first, last + 1)
        if position != chunk.position
    ]


async def find_chunk_hashes(
    database: Database, collection: Collection, generation: Generation, document_number: int
) -> list[tuple[int, bytes]]:
    """Return number and hash of each chunk that a generation has of a document, in order."""
    schema = collection_schema(collection.number)
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT id, hash FROM {schema}.{chunk_table(generation.number)}"
            " WHERE document_id = $1 ORDER BY position",
            document_number,
        )
    return [(row["id"], row["hash"]) for row in rows]


async def move_kept(
    connection: Connection, schema: str, document_number: int, embedding: Embedding
) -> None:
    """Delete the chunks that don't stay, and put the others in their new places."""
    table = f"{schema}.{chunk_table(embedding.generation.number)}"
    numbers = [number for number, _ in embedding.kept]
    moved = [embedding.chunks[position] for _, position in embedding.kept]
    await delete_all_but(connection, schema, embedding.generation.number, document_number, numbers)
    await connection.execute(
        f"DELETE FROM {table} WHERE document_id = $1 AND id <> ALL($2)", document_number, numbers
    )
    if not moved:
        return
    await connection.execute(
        f"UPDATE {table} c SET position = k.position, start_char = k.start_char,"
        " end_char = k.end_char, page = k.page,"
        " headings = ARRAY(SELECT jsonb_array_elements_text(k.headings -> 'headings'))"
        " FROM unnest($1::bigint[], $2::int[], $3::int[], $4::int[], $5::int[], $6::jsonb[])"
        " AS k (id, position, start_char, end_char, page, headings) WHERE c.id = k.id",
        numbers,
        [chunk.position for chunk in moved],
        [chunk.start_char for chunk in moved],
        [chunk.end_char for chunk in moved],
        [chunk.page for chunk in moved],
        [_boxed_headings(chunk) for chunk in moved],
    )


async def insert_chunks(
    connection: Connection,
    collection: Collection,
    document_number: int,
    draft: Draft,
    embedding: Embedding,
) -> None:
    """Write the new chunks of a document, their vectors and their lexemes."""
    generation = embedding.generation
    new = [embedding.chunks[item.position] for item in embedding.embedded]
    if not new:
        return
    numbers = await _insert_with_vectors(
        connection, collection_schema(collection.number), document_number, embedding, new
    )
    searched = [
        SearchedChunk(
            numbers[chunk.position], document_number, draft.title, chunk.text, draft.language
        )
        for chunk in new
    ]
    await insert_lexical(connection, collection.number, generation.number, searched)


async def _insert_with_vectors(
    connection: Connection,
    schema: str,
    document_number: int,
    embedding: Embedding,
    new: Sequence[Chunk],
) -> dict[int, int]:
    """Write in one statement, and return the chunks' numbers by position."""
    generation = embedding.generation
    kind, wrapper = _VECTOR_TYPES[generation.precision]
    rows = await connection.fetch(
        "WITH n AS (SELECT * FROM unnest($2::int[], $3::int[], $4::int[], $5::int[], $6::bytea[],"
        f" $7::text[], $8::int[], $9::jsonb[], $10::{kind}[])"
        " AS n (position, start_char, end_char, token_count, hash, text, page, headings,"
        " embedding)),"
        f" c AS (INSERT INTO {schema}.{chunk_table(generation.number)}"
        " (document_id, position, start_char, end_char, token_count, hash, text, page, headings)"
        " SELECT $1, position, start_char, end_char, token_count, hash, text, page,"
        " ARRAY(SELECT jsonb_array_elements_text(headings -> 'headings')) FROM n"
        " RETURNING id, position),"
        f" v AS (INSERT INTO {schema}.{vector_table(generation.number)}"
        " (chunk_id, document_id, embedding)"
        " SELECT c.id, $1, n.embedding FROM c JOIN n USING (position))"
        " SELECT position, id FROM c",
        document_number,
        [chunk.position for chunk in new],
        [chunk.start_char for chunk in new],
        [chunk.end_char for chunk in new],
        [chunk.token_count for chunk in new],
        [chunk.hash for chunk in new],
        [chunk.text for chunk in new],
        [chunk.page for chunk in new],
        [_boxed_headings(chunk) for chunk in new],
        [wrapper(item.vector) for item in embedding.embedded],  # a bare array would be nested
    )
    return {row["position"]: row["id"] for row in rows}


def _boxed_headings(chunk: Chunk) -> dict[str, list[str]]:
    return {"headings": list(chunk.headings or ())}  # a bare list in a list is a nested array


def _chunks(collection: Collection) -> str:
    return f"{collection_schema(collection.number)}.{chunk_table(collection.active.number)}"


def _chunk(row: asyncpg.Record) -> StoredChunk:
    fields = dict(row)
    return StoredChunk(number=fields.pop("id"), document_number=fields.pop("document_id"), **fields)
