"""Keys of requests that may be sent again, and what was answered to each.

Whoever works for a key has claimed it for a time (a lease), which it renews: where a process dies
between a request's acceptance and its answer, whoever sends the request again takes the key over.
"""

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from memoryd.storage.database import Database

KEPT_FOR_H = 24
"""How long an answer is kept."""


@dataclass(frozen=True)
class Key:
    """Be a key: each collection has its own."""

    collection_number: int
    text: str


@dataclass(frozen=True)
class KeptAnswer:
    """Be what was answered, and the hash of the request that it was answered to."""

    request_hash: bytes
    status: int
    body: bytes


async def claim_key(
    database: Database, key: Key, claimant: UUID, lease_s: float
) -> KeptAnswer | float | None:
    """Claim a key; return None, or its answer, or for how many seconds another's claim holds."""
    async with database.transaction() as connection:
        claimed = await connection.fetchval(
            "INSERT INTO memoryd.idempotency_keys AS k"
            " (collection_id, key, claimed_by, lease_until, created_at)"
            " VALUES ($1, $2, $3, now() + make_interval(secs => $4), now())"
            " ON CONFLICT (collection_id, key) DO UPDATE SET claimed_by = $3, request_hash = NULL,"
            " lease_until = now() + make_interval(secs => $4), created_at = now(), status = NULL,"
            " answer = NULL WHERE k.status IS NULL AND k.lease_until < now()"
            " OR k.created_at < now() - make_interval(hours => $5) RETURNING true",
            key.collection_number,
            key.text,
            claimant,
            float(lease_s),
            KEPT_FOR_H,
        )
        if claimed:
            return None
        row = await connection.fetchrow(
            "SELECT request_hash, status, answer, extract(epoch FROM lease_until - now())::float8"
            " AS left_s FROM memoryd.idempotency_keys WHERE collection_id = $1 AND key = $2",
            key.collection_number,
            key.text,
        )
    return _claim_or_answer(row)


def _claim_or_answer(row: asyncpg.Record | None) -> KeptAnswer | float:
    if row is None:  # released between the two statements
        return 0.0
    if row["status"] is None:
        return max(0.0, float(row["left_s"]))
    return KeptAnswer(row["request_hash"], row["status"], row["answer"])


async def renew_claim(database: Database, key: Key, claimant: UUID, lease_s: float) -> None:
    """Keep a key for another lease, if it is still the claimant's."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.idempotency_keys SET lease_until = now() + make_interval(secs => $4)"
            " WHERE collection_id = $1 AND key = $2 AND claimed_by = $3 AND status IS NULL",
            key.collection_number,
            key.text,
            claimant,
            float(lease_s),
        )


async def keep_answer(database: Database, key: Key, claimant: UUID, answer: KeptAnswer) -> None:
    """Write what is answered, if the key is still the claimant's."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.idempotency_keys SET request_hash = $4, status = $5, answer = $6"
            " WHERE collection_id = $1 AND key = $2 AND claimed_by = $3 AND status IS NULL",
            key.collection_number,
            key.text,
            claimant,
            answer.request_hash,
            answer.status,
            answer.body,
        )


async def release_key(database: Database, key: Key, claimant: UUID) -> None:
    """Forget a key to which nothing was answered, if it is still the claimant's."""
    async with database.connection() as connection:
        await connection.execute(
            "DELETE FROM memoryd.idempotency_keys"
            " WHERE collection_id = $1 AND key = $2 AND claimed_by = $3 AND status IS NULL",
            key.collection_number,
            key.text,
            claimant,
        )


async def delete_old(database: Database) -> None:
    """Forget keys that are older than answers are kept."""
    async with database.connection() as connection:
        await connection.execute(
            "DELETE FROM memoryd.idempotency_keys"
            " WHERE created_at < now() - make_interval(hours => $1)",
            KEPT_FOR_H,
        )
