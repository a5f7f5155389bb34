"""Nearest vectors of a collection."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np

from memoryd.documents.types import Collection
from memoryd.storage.database import Connection
from memoryd.storage.tables import collection_schema, embedding_type, vector_table
from memoryd.vectors.types import Vector


@dataclass(frozen=True)
class Match:
    """Be a found chunk and its cosine to the query, in [-1, 1]."""

    chunk_number: int
    document_number: int
    cosine: float


@dataclass(frozen=True)
class NearDocument:
    """Be a found document and the cosine of its nearest chunk to the query."""

    number: int
    cosine: float


def _table(collection: Collection) -> str:
    return f"{collection_schema(collection.number)}.{vector_table(collection.active.number)}"


async def nearest_chunks(
    connection: Connection, collection: Collection, query: Vector, limit: int
) -> list[Match]:
    """Return the `limit` chunks nearest to `query` (dimensions,) by exact scan, nearest first.

    Chunks of equal distance come in the order of their numbers.
    """
    kind = embedding_type(collection.precision, collection.dimensions)
    rows = await connection.fetch(
        f"SELECT chunk_id, document_id, embedding <=> $1::{kind} AS distance"
        f" FROM {_table(collection)} ORDER BY distance, chunk_id LIMIT {limit:d}",
        query,
    )
    return _matches(rows)


async def nearest_documents(
    connection: Connection, collection: Collection, query: Vector, limit: int
) -> list[NearDocument]:
    """Return the `limit` documents whose nearest chunk is nearest to `query`, by exact scan.

    Documents of equal distance come in the order of their numbers.
    """
    kind = embedding_type(collection.precision, collection.dimensions)
    rows = await connection.fetch(
        f"SELECT document_id, min(embedding <=> $1::{kind}) AS distance"
        f" FROM {_table(collection)} GROUP BY document_id"
        f" ORDER BY distance, document_id LIMIT {limit:d}",
        query,
    )
    return [NearDocument(row["document_id"], 1.0 - row["distance"]) for row in rows]


async def nearest_in_documents(
    connection: Connection,
    collection: Collection,
    query: Vector,
    documents: Sequence[int],
    limit: int,
) -> list[Match]:
    """Return the `limit` chunks nearest to `query` of each of `documents`, nearest first."""
    kind = embedding_type(collection.precision, collection.dimensions)
    rows = await connection.fetch(
        "SELECT chunk_id, document_id, distance FROM ("
        f" SELECT chunk_id, document_id, embedding <=> $1::{kind} AS distance, row_number()"
        f" OVER (PARTITION BY document_id ORDER BY embedding <=> $1::{kind}, chunk_id) AS rank"
        f" FROM {_table(collection)} WHERE document_id = ANY($2)) AS ranked"
        f" WHERE rank <= {limit:d} ORDER BY distance, chunk_id",
        query,
        documents,
    )
    return _matches(rows)


async def find_vectors(
    connection: Connection, collection: Collection, chunks: Sequence[int]
) -> dict[int, Vector]:
    """Return the vectors of those chunks, by chunk number."""
    rows = await connection.fetch(
        f"SELECT chunk_id, embedding FROM {_table(collection)} WHERE chunk_id = ANY($1)",
        chunks,
    )
    return {row["chunk_id"]: row["embedding"].to_numpy().astype(np.float32) for row in rows}


def _matches(rows: Sequence[asyncpg.Record]) -> list[Match]:
    return [Match(row["chunk_id"], row["document_id"], 1.0 - row["distance"]) for row in rows]
