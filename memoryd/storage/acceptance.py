"""Take documents on: settle at once what can be, and let the rest wait as drafts.

All of it is one transaction, so that what was acknowledged is listed and will be stored.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import asyncpg

from memoryd.documents.types import Collection, Document, Draft, Outcome
from memoryd.errors import ConflictError, MemorydError, UnavailableError
from memoryd.storage import jobs
from memoryd.storage.database import Connection
from memoryd.storage.documents import (
    attributes_of,
    check_version,
    confirm,
    document_of,
    write_attributes,
)
from memoryd.storage.drafts import INLINE_BYTES, Claim, Claimant, dump_draft
from memoryd.storage.expiry import note_expiry
from memoryd.storage.tables import collection_schema

logger = logging.getLogger(__name__)

# A row of a document may be deleted between our making and our locking it, but not for long.
_ATTEMPTS = 5
# What Postgres says of the rows, rather than of itself.
_REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.RaiseError,
    asyncpg.ProgramLimitExceededError,
)


class _RowsMissingError(Exception):
    """Report that documents were deleted between our making, or finding, and our locking them."""


@dataclass(frozen=True)
class Accepted:
    """Say what became of a submitted document so far."""

    outcome: Outcome
    draft_number: int | None = None
    """Of the draft that waits; None: it is settled."""
    claim: Claim | None = None
    """Where it was claimed at once."""


@dataclass(frozen=True)
class _Row:
    """Be a document that a draft is for, and say whether drafts wait for it."""

    document: Document
    is_waiting: bool
    is_open: bool = True
    """Whether no other worker stands before a draft of it."""
    is_new: bool = False

    @property
    def exists(self) -> bool:
        """Whether it is there for a client: stored, or accepted and not failed."""
        if self.is_new:
            return False
        return bool(self.document.version or self.is_waiting)

    def settles(self, draft: Draft) -> bool:
        """Say whether the document is what `draft` makes it, and stays so."""
        return (
            bool(self.document.version)
            and not self.is_waiting
            and self.document.has_content_of(draft)
            and self.document.has_attributes_of(draft)
            and not self.document.error
            and draft.version is None
            and draft.on_conflict == "replace"
        )


@dataclass(frozen=True)
class Terms:
    """Say for whom drafts are accepted."""

    wait_s: float = 0
    """How long their outcomes are kept for a client."""
    worker: Claimant | None = None
    """Who claims what nothing stands before; None: whoever has room."""

    @property
    def worker_id(self) -> UUID | None:
        """Who claims."""
        return self.worker.id if self.worker else None


async def accept(
    connection: Connection,
    collection: Collection,
    drafts: Sequence[Draft],
    terms: Terms,
    job_number: int | None = None,
) -> tuple[list[Accepted], int | None]:
    """Take drafts on in a transaction; return what became of each, and the job.

    What is unchanged, skipped or refused is settled at once, and so are other attributes of the
    same content. The rest waits in the job `job_number`, else in a new one, which is None if
    nothing waits. One that Postgres refuses fails alone.
    """
    try:
        return await _accept_together(connection, collection, drafts, terms, job_number)
    except _REFUSALS:
        logger.exception("the database refused documents of %r", collection.name)
        if len(drafts) == 1:
            error = MemorydError("the database refused this document")
            return [Accepted(Outcome(drafts[0].external_id, "failed", error=error))], job_number
    accepted: list[Accepted] = []
    terms = replace(terms, worker=None)  # which of them are held is told by the job as a whole
    for draft in drafts:
        one, job_number = await accept(connection, collection, [draft], terms, job_number)
        accepted += one
    return accepted, job_number


async def _accept_together(
    connection: Connection,
    collection: Collection,
    drafts: Sequence[Draft],
    terms: Terms,
    job_number: int | None,
) -> tuple[list[Accepted], int | None]:
    for _ in range(_ATTEMPTS):
        with suppress(_RowsMissingError):
            async with connection.transaction():  # a savepoint
                return await _accept(connection, collection, drafts, terms, job_number)
    raise UnavailableError("others make and delete these documents all the time: try again")


async def _accept(
    connection: Connection,
    collection: Collection,
    drafts: Sequence[Draft],
    terms: Terms,
    job_number: int | None,
) -> tuple[list[Accepted], int | None]:
    drafts = [_of_model(draft, collection) for draft in drafts]
    rows = await _find_rows(connection, collection, drafts, terms.worker_id)
    open_ = [draft for draft in drafts if not _is_settled(rows, draft)]
    if open_:
        known = set(rows)
        for draft in open_:
            rows.pop(draft.external_id, None)
        rows |= await _take_rows(connection, collection, open_, known, terms.worker_id)
    verdicts = [_judge(rows, draft) for draft in drafts]
    await _write_settled(connection, collection, verdicts)
    waiting = [verdict for verdict in verdicts if verdict.waits]
    if not waiting:
        return [Accepted(verdict.outcome) for verdict in verdicts], job_number
    number = await _enter(connection, collection, waiting, terms, job_number)
    await _insert_drafts(connection, collection, waiting, number, terms.worker)
    await note_expiry(connection, collection, [verdict.draft.expires_at for verdict in waiting])
    return [_accepted(each, number, collection, terms.worker_id) for each in verdicts], number


def _of_model(draft: Draft, collection: Collection) -> Draft:
    """Note whose the vectors are: the collection may have another model when they are stored."""
    return draft if draft.chunks is None else replace(draft, vectors_of=collection.model)


async def _enter(
    connection: Connection,
    collection: Collection,
    waiting: Sequence["_Verdict"],
    terms: Terms,
    job_number: int | None,
) -> int:
    """Count drafts in their job, which is made where there is none."""
    if job_number is not None:
        await jobs.add_to_total(connection, job_number, len(waiting))
        return job_number
    return await jobs.create_job(
        connection,
        collection.number,
        type="ingest",
        unit="documents",
        total=len(waiting),
        wait_s=terms.wait_s,
        held_s=terms.worker.lease_s
        if terms.worker and all(verdict.is_open for verdict in waiting)
        else 0,
    )


def _makes(draft: Draft) -> bool:
    return draft.version is None  # a version of what isn't there is a conflict


async def _take_rows(
    connection: Connection,
    collection: Collection,
    drafts: Sequence[Draft],
    known: set[str],
    worker: UUID | None,
) -> dict[str, "_Row"]:
    """Return the locked rows of the drafts' documents; those that are not `known` are made.

    Raises _RowsMissingError where others have deleted some meanwhile. They aren't made now: all
    make documents before they lock any, or two could wait for each other.
    """
    missing = [draft for draft in drafts if draft.external_id not in known and _makes(draft)]
    made = await _insert_documents(connection, collection, missing)
    taken = await _lock_rows(connection, collection, drafts, worker, made)
    if all(draft.external_id in taken for draft in drafts if _makes(draft)):
        return taken
    raise _RowsMissingError


@dataclass
class _Verdict:
    """Say what is to be done with a draft."""

    draft: Draft
    row: _Row | None
    outcome: Outcome
    waits: bool = False
    is_open: bool = False
    """Whether it can be claimed: no other worker stands before it."""
    draft_number: int | None = None
    size_bytes: int = 0


def _is_settled(rows: dict[str, _Row], draft: Draft) -> bool:
    row = rows.get(draft.external_id)
    if row is None:
        return draft.version is not None
    return row.settles(draft)


def _judge(rows: dict[str, _Row], draft: Draft) -> _Verdict:
    """Decide on one draft; later ones of the same document find it waiting."""
    row = rows.get(draft.external_id)
    id_ = draft.external_id
    try:
        _check_conflicts(row, draft)
    except ConflictError as error:
        return _Verdict(draft, row, Outcome(id_, "failed", error=error))
    assert row is not None  # noqa: S101 - without one, only a version can be asked for: a conflict
    document = row.document
    if row.exists and draft.on_conflict == "skip":
        outcome = Outcome(id_, "skipped", document.version or None, document.chunk_count)
        return _Verdict(draft, row, outcome)
    is_stored = bool(document.version) and not row.is_waiting
    if is_stored and document.has_content_of(draft):
        if document.has_attributes_of(draft):
            outcome = Outcome(id_, "unchanged", document.version, document.chunk_count)
            return _Verdict(draft, row, outcome)
        changed = replace(document, version=document.version + 1, **_attributes(draft))
        rows[id_] = _Row(changed, is_waiting=False)
        outcome = Outcome(id_, "updated", changed.version, document.chunk_count)
        return _Verdict(draft, row, outcome)
    rows[id_] = replace(row, is_waiting=True, is_new=False)
    return _Verdict(draft, row, Outcome(id_, "queued"), waits=True, is_open=row.is_open)


def _check_conflicts(row: _Row | None, draft: Draft) -> None:
    exists = row is not None and row.exists
    if exists and draft.on_conflict == "error":
        raise ConflictError(f"there is a document {draft.external_id!r} already", "id")
    if row is not None and row.is_waiting:
        return  # which version it will have then is seen when its turn comes
    check_version(row.document if row and exists else None, draft.external_id, draft.version)


def _attributes(draft: Draft) -> dict[str, Any]:
    fields = {
        "metadata": draft.metadata,
        "tags": draft.tags,
        "language": draft.language,
        "expires_at": draft.expires_at,
    }
    # What a file is, is found by reading it: the sender's word doesn't replace that.
    return fields if draft.file is not None else fields | {"mime_type": draft.mime_type}


def _accepted(
    verdict: _Verdict, job_number: int, collection: Collection, worker: UUID | None
) -> Accepted:
    number = verdict.draft_number
    if number is None or verdict.row is None:
        return Accepted(verdict.outcome)
    if worker is None or not verdict.is_open:
        return Accepted(verdict.outcome, number)
    claim = Claim(
        number=number,
        job_number=job_number,
        collection=collection,
        document_number=verdict.row.document.number,
        external_id=verdict.draft.external_id,
        worker=worker,
        attempt=1,
        draft=verdict.draft if verdict.size_bytes <= INLINE_BYTES else None,
        document=verdict.row.document if verdict.row.is_new else None,
    )
    return Accepted(verdict.outcome, number, claim)


# Whether drafts wait for a document, and whether this worker holds them all.
_WAITING = (
    "(w.drafts > 0) AS is_waiting, w.others = 0 AS is_open FROM {0}.documents d CROSS JOIN LATERAL"
    " (SELECT count(*) AS drafts, count(*) FILTER (WHERE claimed_by IS DISTINCT FROM $2) AS others"
    " FROM {0}.drafts w WHERE w.document_id = d.id AND w.outcome IS NULL) AS w"
)


async def _find_rows(
    connection: Connection, collection: Collection, drafts: Sequence[Draft], worker: UUID | None
) -> dict[str, _Row]:
    """Return the documents that are there, as they are now."""
    schema = collection_schema(collection.number)
    rows = await connection.fetch(
        f"SELECT {attributes_of(collection)}, {_WAITING.format(schema)}"
        " WHERE external_id = ANY ($1)",
        [draft.external_id for draft in drafts],
        worker,
    )
    return {row["external_id"]: _row(row, set()) for row in rows}


async def _insert_documents(
    connection: Connection,
    collection: Collection,
    drafts: Sequence[Draft],
) -> set[str]:
    """Make the rows of documents that are not there; return the ids of those that were made."""
    wanted = {draft.external_id: draft for draft in reversed(drafts)}
    if not wanted:
        return set()
    made = await connection.fetch(
        f"INSERT INTO {collection_schema(collection.number)}.documents"
        " (external_id, version, content_hash, title, text, mime_type, language, metadata, tags,"
        " expires_at, created_at, updated_at)"
        " SELECT id, 0, '', title, '', mime_type, language, metadata, tags, expires_at, now(),"
        " now() FROM jsonb_to_recordset($1) AS n (id text, title text, mime_type text,"
        " language text, metadata jsonb, tags text[], expires_at timestamptz)"
        " ON CONFLICT (external_id) DO NOTHING RETURNING external_id",
        [
            {
                "id": id_,
                "title": wanted[id_].title,
                "mime_type": wanted[id_].mime_type,
                "language": wanted[id_].language,
                "metadata": wanted[id_].metadata,
                "tags": wanted[id_].tags,
                "expires_at": wanted[id_].expires_at,
            }
            for id_ in sorted(wanted)  # all go in the same order
        ],
    )
    return {row["external_id"] for row in made}


async def _lock_rows(
    connection: Connection,
    collection: Collection,
    drafts: Sequence[Draft],
    worker: UUID | None,
    new: set[str],
) -> dict[str, _Row]:
    schema = collection_schema(collection.number)
    # Locked first, looked at after: the subquery would see what was before the lock.
    locked = await connection.fetch(
        f"SELECT id FROM {schema}.documents WHERE external_id = ANY ($1) ORDER BY id FOR UPDATE",
        [draft.external_id for draft in drafts],
    )
    rows = await connection.fetch(
        f"SELECT {attributes_of(collection)}, {_WAITING.format(schema)} WHERE id = ANY ($1)",
        [row["id"] for row in locked],
        worker,
    )
    return {row["external_id"]: _row(row, new) for row in rows}


def _row(row: asyncpg.Record, new: set[str]) -> _Row:
    fields = dict(row)
    is_waiting, is_open = fields.pop("is_waiting"), fields.pop("is_open")
    return _Row(document_of(fields), is_waiting, is_open, fields["external_id"] in new)


async def _write_settled(
    connection: Connection, collection: Collection, verdicts: Sequence[_Verdict]
) -> None:
    """Write other attributes of the same content; what is unchanged loses an earlier error."""
    for verdict in verdicts:
        if verdict.row is None:
            continue
        document = verdict.row.document
        if verdict.outcome.status == "updated":
            await write_attributes(
                connection, collection, document.number, document.version, verdict.draft
            )
        elif verdict.outcome.status == "unchanged" and document.error:
            await confirm(connection, collection, document.number)


async def _insert_drafts(
    connection: Connection,
    collection: Collection,
    verdicts: Sequence[_Verdict],
    job_number: int,
    worker: Claimant | None,
) -> None:
    """Write drafts in their order, and note their numbers."""
    payloads = [dump_draft(verdict.draft) for verdict in verdicts]
    files = [verdict.draft.file.data if verdict.draft.file else None for verdict in verdicts]
    claims = [worker.id if worker and verdict.is_open else None for verdict in verdicts]
    rows = await connection.fetch(
        f"INSERT INTO {collection_schema(collection.number)}.drafts"
        " (job_id, document_id, external_id, payload, file, size_bytes, claimed_by, lease_until,"
        " attempt)"
        " SELECT $1, document_id, external_id, payload, file,"
        " length(payload) + coalesce(length(file), 0), claimed_by,"
        " CASE WHEN claimed_by IS NOT NULL THEN now() + make_interval(secs => $2) END,"
        " (claimed_by IS NOT NULL)::int"
        " FROM unnest($3::bigint[], $4::text[], $5::bytea[], $6::bytea[], $7::uuid[])"
        " WITH ORDINALITY AS n (document_id, external_id, payload, file, claimed_by, position)"
        " ORDER BY position RETURNING id, size_bytes",
        job_number,
        worker.lease_s if worker else 0,
        [verdict.row.document.number if verdict.row else None for verdict in verdicts],
        [verdict.draft.external_id for verdict in verdicts],
        payloads,
        files,
        claims,
    )
    for verdict, row in zip(verdicts, rows, strict=True):
        verdict.draft_number, verdict.size_bytes = row["id"], row["size_bytes"]
