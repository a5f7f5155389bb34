"""Jobs: durable work, with what is told of its progress.

A job of type `ingest` is the sum of its drafts, which workers claim one by one; any other type is
claimed and run as a whole. `lease_until` is until when that claim holds; of an ingest, until when
a client waits for the outcomes, which are kept for it until then. `served_at` is when drafts were
claimed last: those served longest ago have their turn. It lies in the future where all drafts were
claimed when they were accepted, and no other worker need look.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import asyncpg

from memoryd.errors import ConflictError, NotFoundError
from memoryd.storage.database import Connection, Database

JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
INGEST = "ingest"
"""The type of jobs that are the sums of their drafts."""
UNFINISHED: tuple[JobStatus, ...] = ("queued", "running")

CHANNEL = "memoryd_jobs"
"""Notified when there is something to claim."""

_FIELDS = (
    "j.id, j.type, j.collection_id, c.name AS collection, j.status, j.stage,"
    " coalesce(j.open_until > now(), false) AS is_open, j.counts, j.done, j.total, j.unit,"
    " j.attempt, j.last_error, j.result, j.created_at, j.started_at,"
    " j.finished_at, CASE WHEN j.type = 'ingest'"
    " THEN coalesce((j.checkpoint->>'done')::bigint, 0) ELSE 0 END AS done_before"
)
_FROM = " FROM memoryd.jobs j LEFT JOIN memoryd.collections c ON c.id = j.collection_id"


@dataclass(frozen=True)
class Job:
    """Be a job as it stands in the database."""

    number: int
    type: str
    collection_number: int
    collection: str | None
    """None: it has been deleted."""
    status: JobStatus
    stage: str | None
    is_open: bool
    """More drafts are on their way: `total` still grows."""
    counts: dict[str, int]
    done: int
    total: int
    unit: str
    attempt: int
    last_error: dict[str, Any] | None
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    done_before: int = 0
    """How much of `done` earlier attempts have done."""

    @property
    def id(self) -> str:
        """The job's name in answers."""
        return f"j{self.number}"


async def create_job(
    connection: Connection,
    collection_number: int,
    *,
    type: str,  # noqa: A002 - it is the field's name
    unit: str,
    total: int = 0,
    open_s: float = 0,
    parameters: Mapping[str, Any] | None = None,
    wait_s: float = 0,
    held_s: float = 0,
) -> int:
    """Write a queued job and return its number; workers hear of it when the transaction ends.

    An ingest for which a client waits tells it by `wait_s`, and by `held_s` for how long all its
    drafts are claimed already: it runs. One to which more are added is open for `open_s`. The
    `attempt` of an ingest counts from 1; that of another type is counted by who claims it.
    """
    number: int = await connection.fetchval(
        "INSERT INTO memoryd.jobs (type, collection_id, status, open_until, counts, done, total,"
        " unit, attempt, parameters, lease_until, served_at, created_at, started_at)"
        " VALUES ($1, $2, CASE WHEN $8::float8 > 0 THEN 'running' ELSE 'queued' END,"
        " now() + make_interval(secs => nullif($3::float8, 0)), '{}', 0, $4, $5,"
        " ($1 = 'ingest')::int, $6, now() + make_interval(secs => nullif($7::float8, 0)),"
        " now() + make_interval(secs => nullif($8::float8, 0)), now(),"
        " CASE WHEN $8::float8 > 0 THEN now() END) RETURNING id",
        type,
        collection_number,
        open_s,
        total,
        unit,
        dict(parameters or {}),
        wait_s,
        held_s,
    )
    if not held_s:
        await notify(connection)
    return number


async def notify(connection: Connection) -> None:
    """Tell all workers that there is something to claim, when the transaction ends."""
    await connection.execute(f"NOTIFY {CHANNEL}")


async def add_to_total(connection: Connection, number: int, added: int) -> None:
    """Count further drafts of an ingest; raise ConflictError where it has ended, as by a cancel."""
    is_counted = await connection.fetchval(
        "UPDATE memoryd.jobs SET total = total + $2 WHERE id = $1 AND finished_at IS NULL"
        " RETURNING true",
        number,
        added,
    )
    if not is_counted:
        raise _ended(number)
    await notify(connection)


async def keep_open(database: Database, number: int, *, open_s: float, wait_s: float) -> None:
    """Say how long from now an ingest is open, and how long a client waits; 0: no more."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.jobs SET open_until = now() + make_interval(secs => nullif($2, 0)),"
            " lease_until = now() + make_interval(secs => nullif($3, 0))"
            " WHERE id = $1 AND finished_at IS NULL",
            number,
            float(open_s),
            float(wait_s),
        )
        await notify(connection)


async def find_job(database: Database, number: int) -> Job:
    """Return the job of that number, or raise NotFoundError."""
    async with database.connection() as connection:
        row = await connection.fetchrow(f"SELECT {_FIELDS}{_FROM} WHERE j.id = $1", number)
    if row is None:
        raise NotFoundError(f"there is no job 'j{number}'", "id")
    return _job(row)


async def list_jobs(
    database: Database,
    *,
    before: int,
    limit: int,
    status: JobStatus | None = None,
    collection_number: int | None = None,
    among: frozenset[int] | None = None,
) -> list[Job]:
    """Return up to `limit` jobs, the newest first, from the one before number `before` on.

    `among` are the numbers of the collections whose jobs count; None: all.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {_FIELDS}{_FROM} WHERE j.id < $1 AND ($2::text IS NULL OR j.status = $2)"
            " AND ($3::int IS NULL OR j.collection_id = $3)"
            " AND ($4::int[] IS NULL OR j.collection_id = ANY ($4))"
            f" ORDER BY j.id DESC LIMIT {limit:d}",
            before,
            status,
            collection_number,
            among,
        )
    return [_job(row) for row in rows]


async def list_unserved(database: Database, limit: int) -> list[tuple[int, int]]:
    """Return number and collection of unfinished ingests, those served longest ago first."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT id, collection_id FROM memoryd.jobs"
            " WHERE finished_at IS NULL AND type = 'ingest'"
            " AND (served_at IS NULL OR served_at <= now())"
            f" ORDER BY served_at NULLS FIRST, id LIMIT {limit:d}"
        )
    return [(row["id"], row["collection_id"]) for row in rows]


async def mark_served(connection: Connection, number: int) -> None:
    """Note that a job has had its turn; who has locked its row isn't waited for."""
    await connection.execute(
        "UPDATE memoryd.jobs SET served_at = clock_timestamp(), status = 'running',"
        " started_at = coalesce(started_at, now()) WHERE id = (SELECT id FROM memoryd.jobs"
        " WHERE id = $1 AND finished_at IS NULL FOR UPDATE SKIP LOCKED)",
        number,
    )


async def pass_over(database: Database, number: int) -> None:
    """Let others have their turn before a job of which nothing could be claimed."""
    async with database.transaction() as connection:
        await mark_served(connection, number)


async def stop_waiting(database: Database, number: int) -> None:
    """Let an ingest be counted as any other: nobody waits for its outcomes any more."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.jobs SET lease_until = NULL, served_at = now()"
            " WHERE id = $1 AND finished_at IS NULL",
            number,
        )


async def offer(database: Database, numbers: Collection[int]) -> None:
    """Let workers look at ingests now, of which another has given drafts back."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.jobs SET served_at = NULL WHERE id = ANY ($1) AND finished_at IS NULL",
            numbers,
        )
        await notify(connection)


async def set_stage(database: Database, number: int, stage: str) -> None:
    """Write what is being done for a job."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.jobs SET stage = $2 WHERE id = (SELECT id FROM memoryd.jobs"
            " WHERE id = $1 AND finished_at IS NULL FOR UPDATE SKIP LOCKED)",
            number,
            stage,
        )


async def cancel_jobs_of(connection: Connection, collection_number: int) -> None:
    """End the unfinished jobs of a collection that is being deleted."""
    await connection.execute(
        "UPDATE memoryd.jobs SET status = 'cancelled', finished_at = now()"
        " WHERE collection_id = $1 AND finished_at IS NULL",
        collection_number,
    )


async def cancel_job(connection: Connection, number: int) -> None:
    """End a job; raise ConflictError where it has ended already."""
    cancelled = await connection.fetchval(
        "UPDATE memoryd.jobs SET status = 'cancelled', finished_at = now(), open_until = NULL,"
        " claimed_by = NULL, lease_until = NULL WHERE id = $1 AND finished_at IS NULL"
        " RETURNING true",
        number,
    )
    if not cancelled:
        raise _ended(number)


def _ended(number: int) -> ConflictError:
    return ConflictError(f"the job 'j{number}' has ended already", "id")


async def retry_job(connection: Connection, number: int) -> None:
    """Queue a failed job that is run as a whole once more; raise ConflictError for any other.

    It goes on from its checkpoint. `attempt` is left to whoever claims it: it never goes back.
    """
    is_queued = await connection.fetchval(
        "UPDATE memoryd.jobs SET status = 'queued', finished_at = NULL, stage = NULL,"
        " last_error = NULL, claimed_by = NULL, lease_until = NULL"
        " WHERE id = $1 AND status = 'failed' RETURNING true",
        number,
    )
    if not is_queued:
        raise ConflictError(f"the job 'j{number}' has not failed: nothing is to be retried", "id")
    await notify(connection)


@dataclass(frozen=True)
class Backlog:
    """Count the unfinished jobs of one type and status, and what they still have to do."""

    type: str
    status: JobStatus
    jobs: int
    left: int
    """In units of the type: documents, of ingests."""


async def count_unfinished(database: Database) -> list[Backlog]:
    """Return how many jobs of each type and status have not ended."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT type, status, count(*) AS jobs, sum(total - done)::bigint AS left"
            " FROM memoryd.jobs WHERE finished_at IS NULL GROUP BY type, status"
        )
    return [Backlog(**row) for row in rows]


async def delete_ended_jobs(database: Database, older_than_days: int) -> None:
    """Forget jobs that ended long ago."""
    async with database.connection() as connection:
        await connection.execute(
            "DELETE FROM memoryd.jobs WHERE finished_at < now() - make_interval(days => $1)",
            older_than_days,
        )


def _job(row: asyncpg.Record) -> Job:
    fields = dict(row)
    return Job(number=fields.pop("id"), collection_number=fields.pop("collection_id"), **fields)
