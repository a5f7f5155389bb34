"""Claims of jobs that one worker runs as a whole.

A claim holds until its lease ends, unless it is renewed. Its attempt is a fence: whatever a worker
writes for a job, it writes in one transaction with a check that the claim is still its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from memoryd.errors import MemorydError, UnavailableError, describe_error
from memoryd.storage.database import Connection, Database

_IS_OURS = "id = $1 AND claimed_by = $2 AND attempt = $3 AND finished_at IS NULL"


class LostJobError(UnavailableError):
    """Report that the job is another worker's now, or nobody's: nothing was written."""

    def __init__(self) -> None:
        super().__init__("another worker runs this job now, or it was canceled")


@dataclass(frozen=True)
class JobClaim:
    """Be a job that a worker has taken; `attempt` says for the how manieth time."""

    number: int
    type: str
    collection_number: int
    worker: UUID
    attempt: int
    parameters: dict[str, Any]
    checkpoint: dict[str, Any]
    """What was saved last, with the number of that `attempt`; empty: nothing was."""
    done: int
    total: int

    @property
    def fruitless_attempts(self) -> int:
        """How many attempts, with this one, began since something was saved."""
        saved: int = self.checkpoint.get("attempt", 0)
        return self.attempt - saved


async def claim_job(
    database: Database, worker: UUID, types: Collection[str], lease_s: float
) -> JobClaim | None:
    """Claim the oldest unfinished job of those types that is nobody's; None where there is none."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "UPDATE memoryd.jobs SET claimed_by = $1, attempt = attempt + 1, status = 'running',"
            " started_at = coalesce(started_at, now()),"
            " lease_until = now() + make_interval(secs => $3) WHERE id = (SELECT id"
            " FROM memoryd.jobs WHERE finished_at IS NULL AND type = ANY ($2)"
            " AND (lease_until IS NULL OR lease_until < now())"
            " ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)"
            " RETURNING id, type, collection_id, attempt, parameters, checkpoint, done, total",
            worker,
            list(types),
            lease_s,
        )
    if row is None:
        return None
    return JobClaim(
        row["id"],
        row["type"],
        row["collection_id"],
        worker,
        row["attempt"],
        row["parameters"],
        row["checkpoint"] or {},
        row["done"],
        row["total"],
    )


async def renew_job(database: Database, claim: JobClaim, lease_s: float) -> None:
    """Keep a job for another lease; raise LostJobError where it is no longer the worker's."""
    async with database.connection() as connection:
        await _write(
            connection, claim, "lease_until = now() + make_interval(secs => $4)", float(lease_s)
        )


async def save_progress(
    connection: Connection,
    claim: JobClaim,
    checkpoint: dict[str, Any],
    *,
    stage: str,
    done: int,
    total: int,
) -> None:
    """Write from where another worker would go on, in the transaction that makes it so.

    Raises LostJobError where the job isn't the worker's any more: the transaction must fail.
    """
    await _write(
        connection,
        claim,
        "checkpoint = $4, stage = $5, done = $6, total = $7",
        {**checkpoint, "attempt": claim.attempt},
        stage,
        done,
        total,
    )


async def release_job(
    database: Database, claim: JobClaim, wait_s: float, error: MemorydError | None = None
) -> None:
    """Give a job back, to be claimed by any worker after `wait_s`; LostJobError as above."""
    async with database.connection() as connection:
        await _write(
            connection,
            claim,
            "claimed_by = NULL, lease_until = now() + make_interval(secs => $4), last_error = $5",
            float(wait_s),
            describe_error(error) if error else None,
        )


async def complete_job(
    connection: Connection, claim: JobClaim, counts: dict[str, int], result: dict[str, Any]
) -> None:
    """End a job well, in the transaction of its last write; LostJobError as above."""
    await _write(
        connection,
        claim,
        "status = 'completed', stage = NULL, counts = $4, result = $5, done = total,"
        " last_error = NULL, claimed_by = NULL, lease_until = NULL, finished_at = now()",
        counts,
        result,
    )


async def fail_job(connection: Connection, claim: JobClaim, error: MemorydError) -> None:
    """End a job with the reason why it failed; LostJobError as above."""
    await _write(
        connection,
        claim,
        "status = 'failed', stage = NULL, last_error = $4,"
        " claimed_by = NULL, lease_until = NULL, finished_at = now()",
        describe_error(error),
    )


async def read_parameters(connection: Connection, number: int) -> dict[str, Any]:
    """Return what a job was made with."""
    parameters: dict[str, Any] = await connection.fetchval(
        "SELECT parameters FROM memoryd.jobs WHERE id = $1", number
    )
    return parameters


async def reset_job(connection: Connection, number: int, parameters: dict[str, Any]) -> None:
    """Let a job that is queued again begin from the start, with `parameters`.

    Attempts go on being counted: what a worker of an earlier one still writes must fail.
    """
    await connection.execute(
        "UPDATE memoryd.jobs SET parameters = $2, counts = '{}', done = 0, total = 0,"
        " started_at = NULL, checkpoint = jsonb_build_object('attempt', attempt) WHERE id = $1",
        number,
        parameters,
    )


async def _write(
    connection: Connection, claim: JobClaim, assignments: str, *values: object
) -> None:
    written = await connection.fetchval(
        f"UPDATE memoryd.jobs SET {assignments} WHERE {_IS_OURS} RETURNING true",
        claim.number,
        claim.worker,
        claim.attempt,
        *values,
    )
    if not written:
        raise LostJobError
