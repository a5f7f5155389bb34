"""Write many documents at once, with chunks and vectors that are there already, by binary COPY."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import asyncpg
import numpy as np
import numpy.typing as npt

from memoryd.documents.records import Record
from memoryd.documents.types import Collection, Document, Precision
from memoryd.errors import UnavailableError
from memoryd.storage.database import Connection
from memoryd.storage.documents import attributes_of, document_of
from memoryd.storage.lexical_writing import SearchedChunk, insert_lexical
from memoryd.storage.tables import chunk_table, collection_schema, vector_table
from memoryd.vectors.types import Vectors

_DOCUMENT_COLUMNS = (
    *("id", "external_id", "version", "content_hash", "title", "text", "mime_type", "language"),
    *("metadata", "tags", "created_at", "updated_at", "sections", "has_own_chunks", "expires_at"),
    "last_draft",
)
_CHUNK_COLUMNS = (
    *("id", "document_id", "position", "start_char", "end_char", "token_count", "hash", "text"),
    *("page", "headings"),
)
_VECTOR_COLUMNS = ("chunk_id", "document_id", "embedding")
# postgresql.org/docs/current/sql-copy.html, "Binary Format": signature, no flags, no extension.
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"
_NUMBERS = {"half": ">f2", "full": ">f4"}


@dataclass(frozen=True)
class Found:
    """Be a document that is there, and say whether drafts wait for it."""

    document: Document
    is_waiting: bool


async def find_documents(
    connection: Connection, collection: Collection, ids: Sequence[str]
) -> dict[str, Found]:
    """Return those documents that are there, by id."""
    schema = collection_schema(collection.number)
    rows = await connection.fetch(
        f"SELECT {attributes_of(collection)}, EXISTS (SELECT FROM {schema}.drafts w"
        f" WHERE w.document_id = d.id AND w.outcome IS NULL) AS is_waiting"
        f" FROM {schema}.documents d WHERE external_id = ANY ($1)",
        ids,
    )
    return {row["external_id"]: _found(row) for row in rows}


async def lock_documents(
    connection: Connection, collection: Collection, ids: Sequence[str]
) -> dict[str, Found]:
    """Return as `find_documents`; none else changes them in this transaction's time."""
    await connection.execute(
        f"SELECT FROM {collection_schema(collection.number)}.documents"
        " WHERE external_id = ANY ($1) ORDER BY id FOR UPDATE",
        ids,
    )
    return await find_documents(connection, collection, ids)


def _found(row: asyncpg.Record) -> Found:
    fields = dict(row)
    is_waiting = fields.pop("is_waiting")
    return Found(document_of(fields), is_waiting)


async def find_chunk_hashes(
    connection: Connection, collection: Collection, documents: Sequence[int]
) -> dict[int, list[tuple[int, bytes]]]:
    """Return number and hash of each chunk of the documents of those numbers, in order."""
    rows = await connection.fetch(
        "SELECT document_id, id, hash FROM"
        f" {collection_schema(collection.number)}.{chunk_table(collection.active.number)}"
        " WHERE document_id = ANY ($1) ORDER BY document_id, position",
        documents,
    )
    hashes: defaultdict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for row in rows:
        hashes[row["document_id"]].append((row["id"], row["hash"]))
    return hashes


async def take_draft_number(connection: Connection, collection: Collection) -> int:
    """Return a number as of a draft that is accepted now: it orders what is stored in bulk too."""
    number: int = await connection.fetchval(
        "SELECT nextval(pg_get_serial_sequence($1, 'id'))",
        f"{collection_schema(collection.number)}.drafts",
    )
    return number


async def read_time(connection: Connection) -> datetime:
    """Return the time by the database's clock."""
    now: datetime = await connection.fetchval("SELECT now()")
    return now


async def set_creation_times(
    connection: Connection,
    collection: Collection,
    times: Mapping[str, datetime],
    since: datetime,
) -> None:
    """Write other creation times, by id, of documents that were made after `since`."""
    await connection.execute(
        f"UPDATE {collection_schema(collection.number)}.documents d SET created_at = n.created_at"
        " FROM unnest($1::text[], $2::timestamptz[]) AS n (external_id, created_at)"
        " WHERE d.external_id = n.external_id AND d.created_at > $3",
        list(times),
        list(times.values()),
        since,
    )


async def insert_records(
    connection: Connection,
    collection: Collection,
    records: Sequence[Record],
    draft_number: int,
) -> None:
    """Write documents that aren't there yet, with chunks and vectors; they keep their order.

    Raises UnavailableError where another has stored one of them meanwhile.
    """
    schema = collection_schema(collection.number)
    now = await read_time(connection)
    numbers = await _take_numbers(connection, f"{schema}.documents_id_seq", len(records))
    rows = [
        _document_row(number, record, draft_number, now)
        for number, record in zip(numbers, records, strict=True)
    ]
    try:
        await connection.copy_records_to_table(
            "documents",
            schema_name=schema,
            columns=_DOCUMENT_COLUMNS,
            # All go in the same order of ids: else two transactions could wait for each other.
            records=sorted(rows, key=itemgetter(_DOCUMENT_COLUMNS.index("external_id"))),
        )
    except asyncpg.UniqueViolationError as error:
        raise UnavailableError("others store the same documents just now: try again") from error
    await _insert_chunks(connection, collection, numbers, records)


async def _take_numbers(connection: Connection, sequence: str, count: int) -> list[int]:
    numbers: list[int] = await connection.fetchval(
        "SELECT ARRAY(SELECT nextval($1::text::regclass) FROM generate_series(1, $2))",
        sequence,
        count,
    )
    return numbers


def _document_row(number: int, record: Record, draft_number: int, now: datetime) -> tuple[Any, ...]:
    draft = record.draft
    sections = None if draft.sections is None else [asdict(each) for each in draft.sections]
    return (
        number,
        draft.external_id,
        1,
        record.content_hash,
        draft.title,
        draft.text,
        draft.mime_type,
        draft.language,
        draft.metadata,
        draft.tags,
        record.created_at or now,
        now,
        sections,
        draft.chunks is not None,
        draft.expires_at,
        draft_number,
    )


async def _insert_chunks(
    connection: Connection,
    collection: Collection,
    documents: Sequence[int],
    records: Sequence[Record],
) -> None:
    schema, generation = collection_schema(collection.number), collection.active
    owners = [
        document for document, record in zip(documents, records, strict=True) for _ in record.chunks
    ]
    numbers = await _take_numbers(connection, f"{schema}.chunk_ids", len(owners))
    chunks = [chunk for record in records for chunk in record.chunks]
    await connection.copy_records_to_table(
        chunk_table(generation.number),
        schema_name=schema,
        columns=_CHUNK_COLUMNS,
        records=[
            (
                number,
                owner,
                chunk.position,
                chunk.start_char,
                chunk.end_char,
                chunk.token_count,
                chunk.hash,
                chunk.text,
                chunk.page,
                chunk.headings or (),
            )
            for number, owner, chunk in zip(numbers, owners, chunks, strict=True)
        ],
    )
    vectors = np.concatenate([record.vectors for record in records if record.vectors is not None])
    await connection.copy_to_table(
        vector_table(generation.number),
        schema_name=schema,
        columns=_VECTOR_COLUMNS,
        source=io.BytesIO(_copy_of_vectors(numbers, owners, vectors, generation.precision)),
        format="binary",
    )
    drafts = [record.draft for record in records for _ in record.chunks]
    searched = [
        SearchedChunk(number, owner, draft.title, chunk.text, draft.language)
        for number, owner, draft, chunk in zip(numbers, owners, drafts, chunks, strict=True)
    ]
    await insert_lexical(connection, collection.number, generation.number, searched)


def _copy_of_vectors(
    chunks: Sequence[int], documents: Sequence[int], vectors: Vectors, precision: Precision
) -> bytes:
    """Return rows of a vector table in COPY's binary format, made without a loop over them.

    Each field comes after its length in bytes; a vector begins with the number of its dimensions
    and two unused bytes (halfvec_send and vector_send in pgvector's halfvec.c and vector.c).
    """
    numbers = np.dtype((_NUMBERS[precision], (vectors.shape[1],)))
    row = np.dtype(
        [
            ("fields", ">i2"),
            *(("chunk_bytes", ">i4"), ("chunk", ">i8")),
            *(("document_bytes", ">i4"), ("document", ">i8")),
            *(("vector_bytes", ">i4"), ("dimensions", ">i2"), ("unused", ">i2")),
            ("numbers", numbers),
        ]
    )
    rows: npt.NDArray[np.void] = np.zeros(len(vectors), row)
    rows["fields"] = len(_VECTOR_COLUMNS)
    rows["chunk_bytes"] = rows["document_bytes"] = 8
    rows["chunk"], rows["document"] = chunks, documents
    rows["vector_bytes"] = 4 + numbers.itemsize
    rows["dimensions"] = vectors.shape[1]
    rows["numbers"] = vectors
    return b"".join((_COPY_HEAD, rows.tobytes(), _COPY_END))
