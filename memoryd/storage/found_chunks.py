"""What a page of a search shows of the chunks that were found, in one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from memoryd.documents.types import Collection, Document, StoredChunk
from memoryd.storage.database import Connection
from memoryd.storage.documents import attributes_of, document_of
from memoryd.storage.tables import (
    chunk_table,
    collection_schema,
    embedding_type,
    vector_table,
)
from memoryd.vectors.types import Vector

_CHUNK = ("position", "start_char", "end_char", "token_count", "text", "page", "headings")


@dataclass(frozen=True)
class FoundRow:
    """Be a chunk with its document, and its cosine to the nearest of some vectors."""

    chunk: StoredChunk
    document: Document
    cosine: float


async def fetch_found(
    connection: Connection,
    collection: Collection,
    vectors: Sequence[Vector],
    chunks: Sequence[int],
    *,
    documents: Sequence[int] = (),
    nearest: int = 0,
) -> list[FoundRow]:
    """Return the `chunks`, and the `nearest` chunks to `vectors` of each of `documents`.

    There is at least one vector, (dimensions,). The rows come in no order.
    """
    schema = collection_schema(collection.number)
    number = collection.active.number
    places = _places(collection, len(vectors), nearest)
    rows = await connection.fetch(
        # A document comes with one of its chunks alone: it can be large.
        "WITH p AS MATERIALIZED (SELECT *, row_number() OVER (PARTITION BY document_id) = 1"
        f" AS is_first FROM ({places}) AS places)"
        " SELECT p.distance, p.document_id, c.id AS chunk_id,"
        f" {', '.join(f'c.{name}' for name in _CHUNK)}, {attributes_of(collection)} FROM p"
        f" JOIN {schema}.{chunk_table(number)} c ON c.id = p.chunk_id"
        f" LEFT JOIN {schema}.documents d ON d.id = p.document_id AND p.is_first",
        chunks,
        *([documents] if nearest else []),
        *vectors,
    )
    return _read(rows)


def _places(collection: Collection, vectors: int, nearest: int) -> str:
    """Return a query for the rows of vectors that are wanted, with their distances."""
    kind = embedding_type(collection.precision, collection.dimensions)
    first = 3 if nearest else 2
    distances = [f"embedding <=> ${first + n}::{kind}" for n in range(vectors)]
    distance = distances[0] if vectors == 1 else f"least({', '.join(distances)})"
    table = f"{collection_schema(collection.number)}.{vector_table(collection.active.number)}"
    if not nearest:
        return (
            f"SELECT chunk_id, document_id, {distance} AS distance FROM {table}"
            " WHERE chunk_id = ANY ($1)"
        )
    return (
        "SELECT * FROM (SELECT *, row_number() OVER"
        " (PARTITION BY document_id ORDER BY distance, chunk_id) AS place"
        f" FROM (SELECT chunk_id, document_id, {distance} AS distance FROM {table}"
        " WHERE document_id = ANY ($2)) AS measured) AS placed"
        f" WHERE place <= {nearest:d} OR chunk_id = ANY ($1)"
    )


def _read(rows: Sequence[asyncpg.Record]) -> list[FoundRow]:
    chunks: list[tuple[StoredChunk, float]] = []
    documents: dict[int, Document] = {}
    for row in rows:
        fields: dict[str, Any] = dict(row)
        distance, number = fields.pop("distance"), fields.pop("document_id")
        own = {name: fields.pop(name) for name in _CHUNK}
        chunk = StoredChunk(number=fields.pop("chunk_id"), document_number=number, **own)
        chunks.append((chunk, 1.0 - distance))
        if fields["id"] is not None:
            documents[number] = document_of(fields)
    return [FoundRow(chunk, documents[chunk.document_number], cosine) for chunk, cosine in chunks]
