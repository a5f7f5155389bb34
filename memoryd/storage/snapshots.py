"""What a database holds, counted in a snapshot that pg_dump can share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from memoryd.storage.database import Connection, connected
from memoryd.storage.migrate import Behind, find_behind, shared_revision
from memoryd.storage.tables import SHARED_SCHEMA, collection_schema

# Of the tables of users, those that an extension made are none.
_OTHER_TABLES = (
    "SELECT count(*) FROM pg_class c WHERE relnamespace = to_regnamespace('public')"
    " AND relkind IN ('r', 'p', 'm', 'v', 'f') AND NOT EXISTS"
    " (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
)


@dataclass(frozen=True)
class Contents:
    """Say what a database holds: nothing of memoryd's where `revision` is None.

    `other_tables` are those in the schema public, a user's own.
    """

    revision: str | None = None
    collections: tuple[str, ...] = ()
    documents: int = 0
    keys: int = 0
    other_tables: int = 0

    def __str__(self) -> str:
        """Return it in words, such as `1 collection with 3 documents, 2 API keys`."""
        parts = [
            f"{_counted(len(self.collections), 'collection')} with "
            f"{_counted(self.documents, 'document')}"
        ]
        if self.keys:
            parts.append(_counted(self.keys, "API key"))
        if self.other_tables:
            parts.append(f"{_counted(self.other_tables, 'table')} of your own")
        return ", ".join(parts)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Snapshot:
    """Name a snapshot that other sessions can import, and say what the database holds in it."""

    id: str
    postgres_major: int
    contents: Contents


@asynccontextmanager
async def exported_snapshot(dsn: str) -> AsyncIterator[Snapshot]:
    """Hold the database as it is now for the block.

    Raises DatabaseError where it can't be reached or read.
    """
    async with (
        connected(dsn) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        contents = await count_contents(connection)
        version = await connection.fetchval("SELECT current_setting('server_version_num')::int")
        id_ = await connection.fetchval("SELECT pg_export_snapshot()")
        yield Snapshot(id_, version // 10_000, contents)


async def read_contents(dsn: str) -> Contents:
    """Return what the database holds, whatever its revision."""
    async with connected(dsn) as connection:
        return await count_contents(connection)


async def read_behind(dsn: str) -> list[Behind]:
    """Return what is to be migrated, as `find_behind` does."""
    async with connected(dsn) as connection:
        return await find_behind(connection)


async def count_contents(connection: Connection) -> Contents:
    """Return what the database holds, whatever its revision."""
    revision = await shared_revision(connection)
    other_tables = await connection.fetchval(_OTHER_TABLES)
    if revision is None:
        return Contents(other_tables=other_tables)
    rows = await connection.fetch(f"SELECT id, name FROM {SHARED_SCHEMA}.collections ORDER BY name")
    return Contents(
        revision=revision,
        collections=tuple(row["name"] for row in rows),
        documents=sum([await _count_documents(connection, row["id"]) for row in rows]),
        keys=await _count_keys(connection),
        other_tables=other_tables,
    )


async def _count_documents(connection: Connection, number: int) -> int:
    count: int = await connection.fetchval(
        f"SELECT count(*) FROM {collection_schema(number)}.documents"
    )
    return count


async def _count_keys(connection: Connection) -> int:
    table = f"{SHARED_SCHEMA}.api_keys"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return 0  # an early revision
    count: int = await connection.fetchval(f"SELECT count(*) FROM {table}")
    return count
