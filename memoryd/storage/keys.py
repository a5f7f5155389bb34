"""API keys: rows in the shared schema. Of a key's secret only a hash is stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import asyncpg

from memoryd.storage.database import Connection, Database

Scope = Literal["read", "write", "admin"]

_FIELDS = (
    "k.id, k.secret_hash, k.name, k.scopes, k.collection_ids, k.created_at, k.last_used_at,"
    " k.expires_at, (SELECT array_agg(c.name ORDER BY c.name) FROM memoryd.collections c"
    " WHERE c.id = ANY (k.collection_ids)) AS collections"
)


@dataclass(frozen=True)
class ApiKey:
    """Be an API key as it is stored; `number` is its row."""

    number: int
    secret_hash: bytes = field(repr=False)
    name: str
    scopes: list[Scope]
    collection_numbers: frozenset[int] | None
    """None: all collections. Those that were deleted since stand here too."""
    collections: list[str] | None
    """What those are called now that are still there; None: all."""
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None

    @property
    def id(self) -> str:
        """The key's name in answers and in the log."""
        return f"k{self.number}"


async def lock_keys(connection: Connection) -> None:
    """Let nobody else make or revoke a key until the transaction ends; they can be read."""
    await connection.execute("LOCK TABLE memoryd.api_keys IN SHARE ROW EXCLUSIVE MODE")


async def insert_key(
    connection: Connection,
    *,
    secret_hash: bytes,
    name: str,
    scopes: Sequence[Scope],
    collection_numbers: Sequence[int] | None,
    expires_at: datetime | None,
) -> ApiKey:
    """Write a key and return it."""
    rows = await connection.fetch(
        "INSERT INTO memoryd.api_keys AS k"
        " (secret_hash, name, scopes, collection_ids, created_at, expires_at)"
        f" VALUES ($1, $2, $3, $4, now(), $5) RETURNING {_FIELDS}",
        secret_hash,
        name,
        scopes,
        collection_numbers,
        expires_at,
    )
    return _key(rows[0])


async def find_key(database: Database, number: int) -> ApiKey | None:
    """Return the key of that number, None where there is none."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            f"SELECT {_FIELDS} FROM memoryd.api_keys k WHERE id = $1", number
        )
    return _key(row) if row else None


async def list_keys(database: Database, *, after: int, limit: int) -> list[ApiKey]:
    """Return up to `limit` keys in the order in which they were made, those after `after`."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {_FIELDS} FROM memoryd.api_keys k WHERE id > $1 ORDER BY id LIMIT {limit:d}",
            after,
        )
    return [_key(row) for row in rows]


async def delete_key(connection: Connection, number: int) -> bool:
    """Delete a key, and say whether it was there."""
    deleted = await connection.fetchval(
        "DELETE FROM memoryd.api_keys WHERE id = $1 RETURNING true", number
    )
    return deleted is not None


async def any_key(connection: Connection) -> bool:
    """Say whether there is any key, one that has expired too."""
    found = await connection.fetchval("SELECT EXISTS (SELECT FROM memoryd.api_keys)")
    return bool(found)


async def any_lasting_admin(connection: Connection) -> bool:
    """Say whether there is a key with the scope admin that never expires."""
    found = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM memoryd.api_keys"
        " WHERE 'admin' = ANY (scopes) AND expires_at IS NULL)"
    )
    return bool(found)


async def note_use(database: Database, number: int) -> None:
    """Write that a key was used now."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.api_keys SET last_used_at = now() WHERE id = $1", number
        )


def _key(row: asyncpg.Record) -> ApiKey:
    numbers = row["collection_ids"]
    return ApiKey(
        number=row["id"],
        secret_hash=row["secret_hash"],
        name=row["name"],
        scopes=row["scopes"],
        collection_numbers=None if numbers is None else frozenset(numbers),
        collections=None if numbers is None else row["collections"] or [],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
    )
