"""Bring the schema to this version: Alembic writes the SQL, asyncpg runs it.

There are two branches of revisions in migrations/versions: `shared` for the schema memoryd, whose
revision stands in memoryd.alembic_version, and `collection` for the schema of each collection,
whose revision stands in its row. Each collection is migrated in a transaction of its own, so that
an interrupted run goes on where it stopped. An advisory lock keeps two memoryds from migrating at
once, and a collection from being made meanwhile.
"""

import io
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import asyncpg
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from memoryd.errors import DatabaseError
from memoryd.storage.tables import SHARED_SCHEMA, collection_schema

logger = logging.getLogger(__name__)

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Branch = Literal["shared", "collection"]

ADVISORY_LOCK = 0x6D656D6F  # "memo"
"""Held exclusively while migrating, shared while a collection is made."""

Note = Callable[[int, int], None]
"""Takes how many collections are migrated, and of how many."""


@dataclass(frozen=True)
class Behind:
    """Count the schemas of a branch that are at one revision, and name those that they lack."""

    branch: Branch
    revision: str | None
    lacking: tuple[str, ...]
    schemas: int


def migrations_directory() -> Path:
    """Return where the revisions are: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(migrations_directory()))


def head(branch: Branch) -> str:
    """Return the newest revision of a branch."""
    return str(_scripts().get_revisions(f"{branch}@head")[0].revision)


def render_upgrade(branch: Branch, schema: str, current: str | None) -> str:
    """Return the SQL that brings `schema` from revision `current` (None: empty) to the newest.

    Raises DatabaseError where this memoryd doesn't know `current`.
    """
    steps = reversed(_steps(branch, current, f"{branch}@head"))
    return _render(schema, [step.module.upgrade for step in steps])


def render_downgrade(branch: Branch, schema: str, current: str, target: str | None) -> str:
    """Return the SQL that takes `schema` from revision `current` back to `target` (None: empty)."""
    return _render(schema, [step.module.downgrade for step in _steps(branch, target, current)])


def _steps(branch: Branch, lower: str | None, upper: str) -> list[Script]:
    try:
        return list(_scripts().iterate_revisions(upper, lower or f"{branch}@base"))
    except (CommandError, RevisionError) as error:
        raise DatabaseError(
            f"the database was made by a newer memoryd (its {branch} schema is at revision "
            f"{lower}): install that version, or use another data directory"
        ) from error


def lacking(branch: Branch, revision: str | None) -> tuple[str, ...]:
    """Return the revisions that a schema at `revision` lacks, the next one first.

    Raises DatabaseError where this memoryd doesn't know `revision`.
    """
    steps = _steps(branch, revision, f"{branch}@head")
    return tuple(str(step.revision) for step in reversed(steps))


def _render(schema: str, functions: list[Any]) -> str:
    buffer = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        opts={"as_sql": True, "output_buffer": buffer, "schema": schema},
    )
    with Operations.context(context):
        for function in functions:
            function()
    return buffer.getvalue()


@asynccontextmanager
async def alone(connection: Connection) -> AsyncIterator[None]:
    """Let no other memoryd prepare this database, nor make a collection, while the block runs."""
    await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)


async def find_behind(connection: Connection) -> list[Behind]:
    """Return what `migrate` would do; nothing where all schemas are at their newest revisions.

    Raises DatabaseError where the database was made by a newer memoryd.
    """
    shared = await shared_revision(connection)
    found = [Behind("shared", shared, lacking("shared", shared), 1)]
    if shared is not None:
        rows = await connection.fetch(
            f"SELECT revision, count(*) AS schemas FROM {SHARED_SCHEMA}.collections"
            " GROUP BY revision ORDER BY revision"
        )
        found += [
            Behind("collection", revision, lacking("collection", revision), schemas)
            for revision, schemas in rows
        ]
    return [behind for behind in found if behind.lacking]


def log_migrated(done: int, total: int) -> None:
    """Say in the log how many collections are migrated."""
    logger.info("migrated %d of %d collections", done, total)


async def migrate(connection: Connection, note: Note = log_migrated) -> None:
    """Bring the shared schema and every collection to the newest revision; be `alone` for it.

    Raises DatabaseError where the database was made by a newer memoryd.
    """
    await _migrate_shared(connection)
    await _migrate_collections(connection, note)


async def _migrate_shared(connection: Connection) -> None:
    current = await shared_revision(connection)
    if current == head("shared"):
        return
    sql = render_upgrade("shared", SHARED_SCHEMA, current)
    logger.info("migrating the shared schema from %s to %s", current, head("shared"))
    async with connection.transaction():
        await connection.execute(
            f"CREATE SCHEMA IF NOT EXISTS {SHARED_SCHEMA};"
            f"CREATE TABLE IF NOT EXISTS {SHARED_SCHEMA}.alembic_version"
            " (version_num varchar(32) PRIMARY KEY);" + sql
        )
        await connection.execute(f"DELETE FROM {SHARED_SCHEMA}.alembic_version")
        await connection.execute(
            f"INSERT INTO {SHARED_SCHEMA}.alembic_version VALUES ($1)",
            head("shared"),
        )


async def shared_revision(connection: Connection) -> str | None:
    """Return the revision of the shared schema; None where it isn't there."""
    table = f"{SHARED_SCHEMA}.alembic_version"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return None
    revision: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")
    return revision


async def _migrate_collections(connection: Connection, note: Note) -> None:
    behind = await connection.fetch(
        f"SELECT id, revision FROM {SHARED_SCHEMA}.collections WHERE revision <> $1 ORDER BY id",
        head("collection"),
    )
    for done, row in enumerate(behind, start=1):
        await _migrate_collection(connection, row["id"], row["revision"])
        note(done, len(behind))


async def _migrate_collection(connection: Connection, number: int, current: str) -> None:
    sql = render_upgrade("collection", collection_schema(number), current)
    async with connection.transaction():
        await connection.execute(sql)
        await connection.execute(
            f"UPDATE {SHARED_SCHEMA}.collections SET revision = $2 WHERE id = $1",
            number,
            head("collection"),
        )
