"""Drafts: documents that were accepted and wait to be stored.

A draft is written in the transaction that makes its document's row, so what was acknowledged is
listed. A worker claims it for a time (a lease), and settles it in the transaction that stores the
document: if another worker has claimed it meanwhile, that transaction fails, so nothing is written
twice. Drafts of one document are claimed in the order in which they were accepted.

Every transaction here locks a document's row before its drafts: else two could wait for each other.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
import orjson

from memoryd.documents.types import Collection, Document, Draft, File, Outcome, OwnChunk
from memoryd.errors import (
    ConflictError,
    MemorydError,
    UnavailableError,
    describe_error,
    rebuild_error,
)
from memoryd.storage import jobs
from memoryd.storage.database import Connection, Database
from memoryd.storage.documents import load_sections
from memoryd.storage.tables import collection_schema

# Larger ones are read when it is their turn, so that few are held in memory.
INLINE_BYTES = 256 << 10
# How many drafts of a job are looked at for some that nothing stands before.
_LOOKED_AT = 5_000
# What is locked for longer, such as a table, must not keep other jobs from their turn.
_LOCK_TIMEOUT = "500ms"


class LostClaimError(UnavailableError):
    """Report that the draft is another worker's now, or nobody's: nothing was written."""

    def __init__(self) -> None:
        super().__init__("another worker stores this document now")


@dataclass(frozen=True)
class Claimant:
    """Be a worker, and say for how long it keeps what it claims if it says nothing."""

    id: UUID
    lease_s: float


@dataclass(frozen=True)
class Claim:
    """Be a draft that a worker has taken; `attempt` counts how often it was."""

    number: int
    job_number: int
    collection: Collection
    document_number: int
    external_id: str
    worker: UUID
    attempt: int
    draft: Draft | None = None
    """Where it was claimed as it was accepted, if it isn't large."""
    payload: bytes | None = None
    """What was dumped of it; None of a large one, which `read_draft` fetches."""
    file: bytes | None = None
    document: Document | None = None
    """Of a new one that was claimed when it was accepted: nothing else can have changed it."""


def dump_draft(draft: Draft) -> bytes:
    """Return all of a draft but its file's bytes."""
    fields: dict[str, Any] = {
        "text": draft.text,
        "id": draft.external_id,
        "title": draft.title,
        "metadata": draft.metadata,
        "tags": draft.tags,
        "mime_type": draft.mime_type,
        "language": draft.language,
        "expires_at": draft.expires_at,
        "on_conflict": draft.on_conflict,
        "version": draft.version,
        "vectors_of": draft.vectors_of,
        "sections": None if draft.sections is None else [asdict(each) for each in draft.sections],
        "file": draft.file.name if draft.file else None,
        "chunks": None
        if draft.chunks is None
        else [[chunk.text, _dump_vector(chunk)] for chunk in draft.chunks],
    }
    return orjson.dumps(fields)


def _dump_vector(chunk: OwnChunk) -> str | None:
    if chunk.vector is None:
        return None
    return base64.b64encode(chunk.vector.astype("<f4").tobytes()).decode()


def load_draft(payload: bytes, file: bytes | None) -> Draft:
    """Return the draft that was dumped."""
    fields = orjson.loads(payload)
    if fields["expires_at"] is not None:
        fields["expires_at"] = datetime.fromisoformat(fields["expires_at"])
    if fields["file"] is not None:
        fields["file"] = File(fields["file"], file or b"")
    if fields["chunks"] is not None:
        fields["chunks"] = tuple(
            OwnChunk(text, None if vector is None else _load_vector(vector))
            for text, vector in fields["chunks"]
        )
    if fields["sections"] is not None:
        fields["sections"] = load_sections(fields["sections"])
    return Draft(**fields)


def _load_vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)


# --- Claiming ----


async def claim_drafts(
    database: Database,
    collection: Collection,
    job_number: int,
    worker: Claimant,
    *,
    held: Sequence[int],
    limit: int,
) -> list[Claim]:
    """Claim up to `limit` drafts of an ingest, in their order, and mark it as served.

    Only the first that waits for a document is taken, and none that the worker holds already.
    Nobody is waited for: what others lock is left to the next time. Raises NotFoundError where the
    collection has been deleted.
    """
    schema = collection_schema(collection.number)
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL synchronous_commit = off")  # a lost claim expires
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        await jobs.mark_served(connection, job_number)
        rows = await connection.fetch(
            f"WITH picked AS (SELECT id FROM {schema}.drafts d WHERE job_id = $1"
            " AND outcome IS NULL AND (lease_until IS NULL OR lease_until < now())"
            " AND id <> ALL ($4)"
            # Of many drafts of one document each would be compared with each.
            f" AND id <= (SELECT max(id) FROM (SELECT id FROM {schema}.drafts WHERE job_id = $1"
            f" AND outcome IS NULL ORDER BY id LIMIT {_LOOKED_AT:d}) AS w)"
            f" AND id = (SELECT e.id FROM {schema}.drafts e WHERE e.outcome IS NULL"
            " AND e.document_id = d.document_id ORDER BY e.id LIMIT 1)"
            f" ORDER BY id LIMIT {limit:d} FOR UPDATE SKIP LOCKED)"
            f" UPDATE {schema}.drafts d SET claimed_by = $2, attempt = attempt + 1,"
            " lease_until = now() + make_interval(secs => $3) FROM picked WHERE d.id = picked.id"
            " RETURNING d.id, d.document_id, d.external_id, d.attempt,"
            f" CASE WHEN size_bytes <= {INLINE_BYTES} THEN d.payload END AS payload,"
            f" CASE WHEN size_bytes <= {INLINE_BYTES} THEN d.file END AS file",
            job_number,
            worker.id,
            worker.lease_s,
            held,
        )
    return [
        Claim(
            number=row["id"],
            job_number=job_number,
            collection=collection,
            document_number=row["document_id"],
            external_id=row["external_id"],
            worker=worker.id,
            attempt=row["attempt"],
            payload=row["payload"],
            file=row["file"],
        )
        for row in sorted(rows, key=lambda row: int(row["id"]))
    ]


async def read_draft(database: Database, claim: Claim) -> Draft:
    """Return the draft of a claim; raise LostClaimError where it is no longer the worker's."""
    if claim.draft is not None:
        return claim.draft
    if claim.payload is not None:
        return load_draft(claim.payload, claim.file)
    async with database.connection() as connection:
        row = await connection.fetchrow(
            f"SELECT payload, file FROM {collection_schema(claim.collection.number)}.drafts"
            " WHERE id = $1 AND claimed_by = $2 AND attempt = $3 AND outcome IS NULL",
            claim.number,
            claim.worker,
            claim.attempt,
        )
    if row is None:
        raise LostClaimError
    return load_draft(row["payload"], row["file"])


async def renew_claims(
    database: Database, collection_number: int, worker: Claimant, numbers: Sequence[int]
) -> set[int]:
    """Keep drafts for another lease; return those that are no longer the worker's to store."""
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL synchronous_commit = off")
        drafts = f"{collection_schema(collection_number)}.drafts"
        await connection.execute(
            f"UPDATE {drafts} SET lease_until = now() + make_interval(secs => $3) WHERE id IN"
            f" (SELECT id FROM {drafts} WHERE id = ANY ($1) AND claimed_by = $2"
            " AND outcome IS NULL FOR UPDATE SKIP LOCKED)",
            numbers,
            worker.id,
            worker.lease_s,
        )
        rows = await connection.fetch(
            f"SELECT id FROM {drafts} WHERE id = ANY ($1) AND claimed_by = $2 AND outcome IS NULL",
            numbers,
            worker.id,
        )
    return set(numbers) - {row["id"] for row in rows}


async def release_claim(database: Database, claim: Claim, wait_s: float) -> None:
    """Give a draft back, to be claimed by any worker after `wait_s`."""
    async with database.connection() as connection:
        await connection.execute(
            f"UPDATE {collection_schema(claim.collection.number)}.drafts SET claimed_by = NULL,"
            " lease_until = now() + make_interval(secs => $4)"
            " WHERE id = $1 AND claimed_by = $2 AND attempt = $3 AND outcome IS NULL",
            claim.number,
            claim.worker,
            claim.attempt,
            wait_s,
        )


async def postpone(database: Database, claim: Claim, wait_s: float) -> None:
    """Give a draft back as if it had not been tried: what keeps it waiting isn't its fault."""
    async with database.connection() as connection:
        await connection.execute(
            f"UPDATE {collection_schema(claim.collection.number)}.drafts SET claimed_by = NULL,"
            " attempt = attempt - 1, lease_until = now() + make_interval(secs => $4)"
            " WHERE id = $1 AND claimed_by = $2 AND attempt = $3 AND outcome IS NULL",
            claim.number,
            claim.worker,
            claim.attempt,
            wait_s,
        )


async def give_back(
    database: Database, collection_number: int, worker: UUID, numbers: Sequence[int]
) -> None:
    """Let other workers claim drafts at once, as if this one never had; it stops."""
    async with database.connection() as connection:
        await connection.execute(
            f"UPDATE {collection_schema(collection_number)}.drafts SET claimed_by = NULL,"
            " lease_until = NULL, attempt = attempt - 1"
            " WHERE id = ANY ($1) AND claimed_by = $2 AND outcome IS NULL",
            numbers,
            worker,
        )


# --- Settling ----


async def settle(connection: Connection, claim: Claim, outcome: Outcome) -> None:
    """Write what became of a draft, in the transaction that stores its document.

    Raises LostClaimError where the draft isn't the worker's any more: the transaction must fail.
    """
    error = describe_error(outcome.error) if outcome.error else None
    result = {"version": outcome.version, "chunks": outcome.chunks, "embedded": outcome.embedded}
    settled = await connection.fetchval(
        f"UPDATE {collection_schema(claim.collection.number)}.drafts SET outcome = $4, error = $5,"
        " result = $6, claimed_by = NULL, lease_until = NULL,"
        " payload = CASE WHEN $4 = 'failed' THEN payload END,"
        " file = CASE WHEN $4 = 'failed' THEN file END"
        " WHERE id = $1 AND claimed_by = $2 AND attempt = $3 AND outcome IS NULL RETURNING true",
        claim.number,
        claim.worker,
        claim.attempt,
        outcome.status,
        error,
        result,
    )
    if not settled:
        raise LostClaimError


async def settle_failure(database: Database, claim: Claim, error: MemorydError) -> None:
    """Write why a draft can't be stored, at its document too; raise LostClaimError as settle.

    Not at one that has gone on since, nor at one that is as it should be, but for the version that
    the draft was for.
    """
    schema = collection_schema(claim.collection.number)
    async with database.transaction() as connection:
        await connection.execute(
            f"UPDATE {schema}.documents SET error = $2 WHERE id = $1 AND last_draft < $3"
            " AND NOT ($4 AND version > 0)",
            claim.document_number,
            describe_error(error),
            claim.number,
            isinstance(error, ConflictError),
        )
        await settle(connection, claim, Outcome(claim.external_id, "failed", error=error))


async def find_outcomes(
    database: Database, collection_number: int, numbers: Sequence[int]
) -> dict[int, Outcome | None]:
    """Return the outcomes of those drafts that are settled, by number; None of one that is gone."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT n.id, external_id, outcome, error, result FROM unnest($1::bigint[]) AS n (id)"
            f" LEFT JOIN {collection_schema(collection_number)}.drafts d ON d.id = n.id"
            " WHERE d.id IS NULL OR outcome IS NOT NULL",
            numbers,
        )
    return {row["id"]: _outcome(row) for row in rows}


def _outcome(row: asyncpg.Record) -> Outcome | None:
    if row["outcome"] is None:
        return None
    error = rebuild_error(row["error"]) if row["error"] else None
    if row["outcome"] == "cancelled":
        gone = ConflictError("the document was deleted, or its job cancelled, meanwhile", "id")
        return Outcome(row["external_id"], "failed", error=gone)
    return Outcome(row["external_id"], row["outcome"], error=error, **(row["result"] or {}))


async def list_waiting(
    connection: Connection, collection: Collection, documents: Sequence[int]
) -> dict[int, list[int]]:
    """Return the numbers of the drafts that wait for each document that has some."""
    rows = await connection.fetch(
        "SELECT document_id, array_agg(id ORDER BY id) AS drafts"
        f" FROM {collection_schema(collection.number)}.drafts"
        " WHERE document_id = ANY ($1) AND outcome IS NULL GROUP BY document_id",
        documents,
    )
    return {row["document_id"]: row["drafts"] for row in rows}


async def drop_drafts(
    connection: Connection, collection: Collection, documents: Sequence[int]
) -> None:
    """Give up what waits for documents that are being deleted; hold their rows' locks."""
    await connection.execute(
        f"UPDATE {collection_schema(collection.number)}.drafts"
        " SET outcome = 'cancelled', payload = NULL, file = NULL,"
        " claimed_by = NULL, lease_until = NULL WHERE document_id = ANY ($1) AND outcome IS NULL",
        documents,
    )
