"""Read all of a collection, a group of documents at a time, as it is in one snapshot."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import asyncpg
import numpy as np
import orjson

from memoryd.documents.records import Record
from memoryd.documents.types import Chunk, Collection, Draft, OwnChunk
from memoryd.storage.database import Connection
from memoryd.storage.documents import load_sections
from memoryd.storage.tables import chunk_table, collection_schema, vector_table
from memoryd.vectors.types import Vectors

# How many documents are looked at, and how many bytes of texts and vectors are read, at once.
_LISTED = 1_000
_GROUP_BYTES = 2 << 20
_CHUNK_BYTES = 100
# The binary forms of pgvector's types begin with the number of dimensions and two unused bytes.
_VECTOR_HEAD_BYTES = 4
_NUMBERS = {"half": ">f2", "full": ">f4"}
_SENDERS = {"half": "halfvec_send", "full": "vector_send"}

_ATTRIBUTES = (
    "id, external_id, content_hash, title, text, mime_type, language, metadata::text, tags,"
    " created_at, expires_at, sections::text, has_own_chunks"
)
_PLACES = "document_id, position, start_char, end_char, token_count, hash, text, page, headings"


@dataclass(frozen=True)
class Group:
    """Be some documents and their chunks as rows."""

    documents: Sequence[asyncpg.Record]
    chunks: Sequence[asyncpg.Record]
    """In the order of their documents and places, with `embedding` where vectors are wanted."""


async def read_groups(
    connection: Connection, collection: Collection, *, with_vectors: bool
) -> AsyncIterator[Group]:
    """Yield all stored documents in the order of their making; what waits or failed is left out.

    The connection is one of `Database.snapshot_apart`.
    """
    after = 0
    while listed := await _list(connection, collection, after, with_vectors=with_vectors):
        for numbers in _group(listed):
            yield await _read(connection, collection, numbers, with_vectors=with_vectors)
        after = listed[-1]["id"]


async def _list(
    connection: Connection, collection: Collection, after: int, *, with_vectors: bool
) -> list[asyncpg.Record]:
    """Return number and size of the next documents."""
    schema = collection_schema(collection.number)
    chunks = f"{schema}.{chunk_table(collection.active.number)}"
    chunk_bytes = _CHUNK_BYTES + (collection.dimensions * 4 if with_vectors else 0)
    rows: list[asyncpg.Record] = await connection.fetch(
        "SELECT id, octet_length(text) + (SELECT coalesce("
        f"sum(octet_length(c.text) + {chunk_bytes:d}), 0) FROM {chunks} c"
        f" WHERE c.document_id = d.id) AS bytes FROM {schema}.documents d"
        f" WHERE id > $1 AND version > 0 ORDER BY id LIMIT {_LISTED:d}",
        after,
    )
    return rows


def _group(listed: Sequence[asyncpg.Record]) -> Iterator[list[int]]:
    numbers: list[int] = []
    size_bytes = 0
    for row in listed:
        if numbers and size_bytes + row["bytes"] > _GROUP_BYTES:
            yield numbers
            numbers, size_bytes = [], 0
        numbers.append(row["id"])
        size_bytes += row["bytes"]
    yield numbers


async def _read(
    connection: Connection, collection: Collection, numbers: Sequence[int], *, with_vectors: bool
) -> Group:
    schema, number = collection_schema(collection.number), collection.active.number
    embedding, join = "", ""
    if with_vectors:
        embedding = f", {_SENDERS[collection.precision]}(embedding) AS embedding"
        join = f" JOIN {schema}.{vector_table(number)} v ON v.chunk_id = c.id"
    places = ", ".join(f"c.{place}" for place in _PLACES.split(", "))
    return Group(
        await connection.fetch(
            f"SELECT {_ATTRIBUTES} FROM {schema}.documents WHERE id = ANY ($1) ORDER BY id", numbers
        ),
        await connection.fetch(
            f"SELECT {places}{embedding} FROM {schema}.{chunk_table(number)} c{join}"
            " WHERE c.document_id = ANY ($1) ORDER BY c.document_id, c.position",
            numbers,
        ),
    )


def make_records(group: Group, collection: Collection, *, with_vectors: bool) -> list[Record]:
    """Return the records of a group, in its order."""
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(group.chunks):
        rows[row["document_id"]].append(index)
    chunks = list(map(_chunk, group.chunks))
    vectors = _vectors(group.chunks, collection) if with_vectors and chunks else None
    records = []
    for document in group.documents:
        indexes = rows[document["id"]]
        records.append(
            _record(
                document,
                tuple(chunks[index] for index in indexes),
                None if vectors is None else vectors[indexes],
            )
        )
    return records


def _record(row: asyncpg.Record, chunks: tuple[Chunk, ...], vectors: Vectors | None) -> Record:
    draft = Draft(
        text=row["text"],
        chunks=tuple(OwnChunk(chunk.text) for chunk in chunks) if row["has_own_chunks"] else None,
        id=row["external_id"],
        title=row["title"],
        metadata=orjson.loads(row["metadata"]),
        tags=row["tags"],
        mime_type=row["mime_type"],
        language=row["language"],
        expires_at=row["expires_at"],
        sections=load_sections(orjson.loads(row["sections"])) if row["sections"] else None,
    )
    return Record(draft, row["content_hash"], chunks, vectors, row["created_at"])


def _chunk(row: asyncpg.Record) -> Chunk:
    return Chunk(
        row["position"],
        row["text"],
        row["hash"],
        row["start_char"],
        row["end_char"],
        row["token_count"],
        row["page"],
        tuple(row["headings"] or ()),
    )


def _vectors(rows: Sequence[asyncpg.Record], collection: Collection) -> Vectors:
    """Return the vectors of chunks as they are stored, each number as float32."""
    data = np.frombuffer(b"".join(row["embedding"] for row in rows), np.uint8)
    numbers = data.reshape(len(rows), -1)[:, _VECTOR_HEAD_BYTES:]
    stored = np.ascontiguousarray(numbers).view(_NUMBERS[collection.precision])
    return stored.astype(np.float32)
