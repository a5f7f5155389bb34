"""Jobs of ingest: the sums of their drafts."""

from collections.abc import Sequence
from typing import Any

from memoryd.documents.types import Collection, Outcome
from memoryd.errors import (
    ConflictError,
    MemorydError,
    describe_error,
)
from memoryd.storage import jobs
from memoryd.storage.database import Connection, Database
from memoryd.storage.tables import collection_schema


async def count_settled(database: Database, collection_number: int, job_number: int) -> None:
    """Add what is settled to the counts of an ingest, and end it where nothing is left to do.

    It has failed where every one of its documents has; else it is completed, and `last_error` is
    why the last of those failed that did.
    """
    schema = collection_schema(collection_number)
    async with database.transaction() as connection:
        job = await connection.fetchrow(
            "SELECT counts, open_until > now() AS is_open FROM memoryd.jobs"
            " WHERE id = $1 AND finished_at IS NULL"
            " AND (lease_until IS NULL OR lease_until < now()) FOR UPDATE SKIP LOCKED",
            job_number,
        )
        if job is None:
            return
        # Looked at before they are counted: one that is settled meanwhile is left to the next time.
        is_over = not job["is_open"] and not await connection.fetchval(
            f"SELECT EXISTS (SELECT 1 FROM {schema}.drafts WHERE job_id = $1 AND outcome IS NULL)",
            job_number,
        )
        counts = await _take_settled(connection, schema, job_number, job["counts"])
        has_failed = counts["failed"] > 0 and counts["failed"] == sum(counts.values())
        await connection.execute(
            "UPDATE memoryd.jobs SET counts = $2, done = $3, lease_until = NULL,"
            " status = CASE WHEN $4 THEN CASE WHEN $5 THEN 'failed' ELSE 'completed' END"
            " ELSE 'running' END, stage = CASE WHEN NOT $4 THEN stage END,"
            " started_at = coalesce(started_at, created_at),"
            f" last_error = (SELECT error FROM {schema}.drafts WHERE job_id = $1"
            " AND outcome = 'failed' ORDER BY id DESC LIMIT 1),"
            " finished_at = CASE WHEN $4 THEN now() END WHERE id = $1",
            job_number,
            counts,
            sum(counts.values()),
            is_over,
            has_failed,
        )


async def _take_settled(
    connection: Connection, schema: str, job_number: int, counts: dict[str, int]
) -> dict[str, int]:
    """Delete what is settled and hasn't failed; return the counts with it and the failed ones."""
    settled = await connection.fetch(
        f"WITH gone AS (DELETE FROM {schema}.drafts WHERE job_id = $1"
        " AND outcome IS NOT NULL AND outcome <> 'failed' RETURNING outcome)"
        " SELECT outcome, count(*) AS drafts FROM gone GROUP BY outcome",
        job_number,
    )
    counted = dict(counts)
    for row in settled:
        counted[row["outcome"]] = counted.get(row["outcome"], 0) + row["drafts"]
    counted["failed"] = await connection.fetchval(
        f"SELECT count(*) FROM {schema}.drafts WHERE job_id = $1 AND outcome = 'failed'",
        job_number,
    )
    return counted


async def forget_job(database: Database, collection_number: int, job_number: int) -> None:
    """Remove an ingest whose outcomes its client was told, and documents that never were stored."""
    schema = collection_schema(collection_number)
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL synchronous_commit = off")
        await connection.execute("DELETE FROM memoryd.jobs WHERE id = $1", job_number)
        await _forget_documents(connection, schema, job_number, "outcome = 'failed'")
        await connection.execute(f"DELETE FROM {schema}.drafts WHERE job_id = $1", job_number)


async def _forget_documents(
    connection: Connection, schema: str, job_number: int, condition: str
) -> None:
    """Delete what no other job works for and never was stored, of the job's drafts that meet it."""
    numbers = f"SELECT document_id FROM {schema}.drafts WHERE job_id = $1 AND {condition}"
    locked = await connection.fetchval(
        f"SELECT count(*) FROM (SELECT 1 FROM {schema}.documents WHERE id IN ({numbers})"
        " ORDER BY id FOR UPDATE) AS l",
        job_number,
    )
    if not locked:
        return
    await connection.execute(
        f"DELETE FROM {schema}.documents d WHERE id IN ({numbers}) AND version = 0"
        f" AND NOT EXISTS (SELECT 1 FROM {schema}.drafts w WHERE w.document_id = d.id"
        " AND w.job_id <> $1 AND (w.outcome IS NULL OR w.payload IS NOT NULL))",
        job_number,
    )


async def cancel_ingest(database: Database, collection_number: int, job_number: int) -> None:
    """End an ingest: what isn't stored yet will not be, and new documents of it go.

    Raises ConflictError where it has ended already.
    """
    schema = collection_schema(collection_number)
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")  # a million drafts may wait
        # Its row first: from here on nothing is added to it, claimed of it or counted.
        await jobs.cancel_job(connection, job_number)
        await _forget_documents(connection, schema, job_number, "outcome IS NULL")
        await connection.execute(
            f"UPDATE {schema}.drafts SET outcome = 'cancelled', payload = NULL, file = NULL,"
            " claimed_by = NULL, lease_until = NULL WHERE job_id = $1 AND outcome IS NULL",
            job_number,
        )
        counts = await connection.fetchval(
            "SELECT counts FROM memoryd.jobs WHERE id = $1", job_number
        )
        counts = await _take_settled(connection, schema, job_number, counts)
        await connection.execute(
            "UPDATE memoryd.jobs SET counts = $2, done = $3 WHERE id = $1",
            job_number,
            counts,
            sum(counts.values()),
        )


async def retry_failed(database: Database, collection_number: int, job_number: int) -> int:
    """Let the failed drafts of an ingest be claimed again, and return how many there are.

    Raises ConflictError where there are none.
    """
    schema = collection_schema(collection_number)
    failed = (
        f"FROM {schema}.drafts WHERE job_id = $1 AND outcome = 'failed' AND payload IS NOT NULL"
    )
    async with database.transaction() as connection:
        await connection.execute("SELECT 1 FROM memoryd.jobs WHERE id = $1 FOR UPDATE", job_number)
        await connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {schema}.documents WHERE id IN"
            f" (SELECT document_id {failed}) ORDER BY id FOR UPDATE) AS l",
            job_number,
        )
        await connection.execute(
            f"UPDATE {schema}.documents SET error = NULL WHERE id IN (SELECT document_id {failed})",
            job_number,
        )
        retried: int = await connection.fetchval(
            f"WITH again AS (UPDATE {schema}.drafts SET outcome = NULL, error = NULL,"
            f" result = NULL, attempt = 0 WHERE id IN (SELECT id {failed}) RETURNING 1)"
            " SELECT count(*) FROM again",
            job_number,
        )
        if not retried:
            raise ConflictError(f"the job 'j{job_number}' has nothing to try again", "id")
        await _reopen(connection, job_number, retried)
    return retried


async def _reopen(connection: Connection, job_number: int, retried: int) -> None:
    """Let workers look at an ingest again; its pace is measured from what was done before."""
    await connection.execute(
        "UPDATE memoryd.jobs SET done = greatest(done - $2, 0), served_at = NULL,"
        " last_error = NULL,"
        " counts = counts || jsonb_build_object('failed',"
        " greatest(coalesce((counts->>'failed')::bigint, 0) - $2, 0)),"
        " checkpoint = jsonb_build_object('done', greatest(done - $2, 0)),"
        " attempt = attempt + (finished_at IS NOT NULL)::int,"
        " status = CASE WHEN finished_at IS NULL THEN status ELSE 'queued' END,"
        " started_at = CASE WHEN finished_at IS NULL THEN started_at END, finished_at = NULL"
        " WHERE id = $1",
        job_number,
        retried,
    )
    await jobs.notify(connection)


async def list_failures(
    database: Database, collection_number: int, job_number: int, *, after: int, limit: int
) -> list[tuple[int, str | None, dict[str, Any]]]:
    """Return number, id and error of up to `limit` failed drafts, from after `after` on."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT id, external_id, error FROM {collection_schema(collection_number)}.drafts"
            " WHERE job_id = $1 AND outcome = 'failed' AND id > $2"
            f" ORDER BY id LIMIT {limit:d}",
            job_number,
            after,
        )
    return [(row["id"], row["external_id"], row["error"]) for row in rows]


async def insert_failures(
    connection: Connection,
    collection: Collection,
    job_number: int,
    failures: Sequence[tuple[str | None, MemorydError]],
) -> None:
    """Write what could not be accepted, (id, why), as failed drafts that can't be tried again."""
    await connection.executemany(
        f"INSERT INTO {collection_schema(collection.number)}.drafts"
        " (job_id, external_id, size_bytes, outcome, error) VALUES ($1, $2, 0, 'failed', $3)",
        [(job_number, id_, describe_error(error)) for id_, error in failures],
    )


async def lock_unfinished(connection: Connection, job_number: int) -> None:
    """Keep an ingest from being counted, claimed or canceled until the transaction ends.

    To be called before any document is locked. Raises ConflictError where it has ended.
    """
    is_there = await connection.fetchval(
        "SELECT true FROM memoryd.jobs WHERE id = $1 AND finished_at IS NULL FOR UPDATE", job_number
    )
    if not is_there:
        raise ConflictError(f"the job 'j{job_number}' has ended meanwhile: send the rest again")


async def add_settled(
    connection: Connection, collection: Collection, job_number: int, outcomes: Sequence[Outcome]
) -> None:
    """Count documents that were settled when they came; hold the lock of `lock_unfinished`."""
    failures = [(each.id, each.error) for each in outcomes if each.error is not None]
    await insert_failures(connection, collection, job_number, failures)
    counts: dict[str, int] = await connection.fetchval(
        "SELECT counts FROM memoryd.jobs WHERE id = $1", job_number
    )
    for outcome in outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    await connection.execute(
        "UPDATE memoryd.jobs SET counts = $2, done = $3, total = total + $4 WHERE id = $1",
        job_number,
        counts,
        sum(counts.values()),
        len(outcomes),
    )
