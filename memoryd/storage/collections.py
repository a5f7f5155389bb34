"""Collections and their aliases: rows in the shared schema, and a schema of each one's own."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import asyncpg

from memoryd.documents.types import (
    Chunking,
    Collection,
    FieldType,
    Generation,
    IndexSettings,
    Precision,
)
from memoryd.errors import ConflictError, NotFoundError, UnavailableError
from memoryd.storage.database import Connection, Database
from memoryd.storage.generations import (
    create_vector_table,
    insert_generation,
    read_generation,
)
from memoryd.storage.index_jobs import JOB_TYPE, start_indexing
from memoryd.storage.jobs import cancel_jobs_of
from memoryd.storage.migrate import ADVISORY_LOCK, head, render_upgrade
from memoryd.storage.tables import (
    chunk_table,
    collection_schema,
    lexical_table,
    term_change_table,
    term_table,
    vector_table,
)
from memoryd.storage.vector_indexes import cancel_indexing

# Collections and aliases share their names, but no table: who gives one away holds this lock.
_NAMES_LOCK = 0x6E616D65  # "name"

# While a deletion waits for a table, all others wait behind it: well below the second after which
# Postgres looks for deadlocks.
_DELETION_WAITS_MS = 300
_DELETION_PAUSE_S = 0.1
_DELETION_ATTEMPTS = 75

_FIELDS = (
    "c.id, c.name, c.language, c.metadata, c.created_at, c.updated_at, c.index_settings,"
    " c.indexed_fields,"
    " (SELECT jsonb_agg(to_jsonb(g) - 'collection_id' ORDER BY g.number)"
    " FROM memoryd.generations g WHERE g.collection_id = c.id) AS generations"
)


@dataclass(frozen=True)
class Counts:
    """Say how much a collection holds."""

    documents: int
    chunks: int
    bytes: int
    queued_jobs: int
    running_jobs: int
    is_indexing: bool
    """Whether a job makes indexes, or will."""
    indexed_part: float | None
    """How much of what that job does just now is done, in [0, 1]; None: it doesn't say yet."""


async def create_collection(
    database: Database,
    *,
    name: str,
    model: str,
    dimensions: int,
    precision: Precision,
    chunking: Chunking,
    language: str,
    metadata: dict[str, Any],
    index_settings: IndexSettings | None = None,
    indexed_fields: Mapping[str, FieldType] | None = None,
) -> Collection:
    """Make a collection and its schema; raise ConflictError where the name is taken."""
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", ADVISORY_LOCK)
        await _require_free(connection, name)
        number = await connection.fetchval(
            "INSERT INTO memoryd.collections"
            " (name, language, metadata, revision, index_settings, indexed_fields, created_at,"
            " updated_at) VALUES ($1, $2, $3, $4, $5, $6, now(), now()) RETURNING id",
            name,
            language,
            metadata,
            head("collection"),
            asdict(index_settings or IndexSettings()),
            dict(indexed_fields or {}),
        )
        generation = Generation(1, "active", model, dimensions, precision, chunking)
        await insert_generation(connection, number, generation)
        schema = collection_schema(number)
        await connection.execute(f"CREATE SCHEMA {schema};")
        await connection.execute(render_upgrade("collection", schema, None))
        await create_vector_table(connection, schema, generation)
        if index_settings or indexed_fields:
            await start_indexing(connection, number)
        collection = await _find(connection, name)
    assert collection is not None  # noqa: S101 - it was made above
    return collection


async def _require_free(connection: Connection, name: str) -> None:
    """Raise ConflictError where the name is taken; else nobody takes it in this transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _NAMES_LOCK)
    if await _find(connection, name):
        raise ConflictError(f"a collection or an alias is called {name!r} already", "name")


async def find_collection(database: Database, name: str) -> Collection:
    """Return the collection of that name or alias, or raise NotFoundError."""
    async with database.connection() as connection:
        collection = await _find(connection, name)
    if collection is None:
        raise _not_found(name)
    return collection


async def _find(connection: Connection, name: str) -> Collection | None:
    row = await connection.fetchrow(
        f"SELECT {_FIELDS} FROM memoryd.collections c WHERE name = $1"
        f" UNION ALL SELECT {_FIELDS} FROM memoryd.collections c"
        " JOIN memoryd.aliases a ON a.collection_id = c.id WHERE a.alias = $1",
        name,
    )
    return _collection(row) if row else None


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"there is no collection {name!r}", "collection")


async def list_collections(
    database: Database, *, after: str, limit: int, among: frozenset[int] | None = None
) -> list[Collection]:
    """Return up to `limit` collections by name, from the first one after `after` on.

    `among` are the numbers of those that count; None: all.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT {_FIELDS} FROM memoryd.collections c"
            " WHERE name > $1 AND ($2::int[] IS NULL OR id = ANY ($2))"
            f" ORDER BY name LIMIT {limit:d}",
            after,
            among,
        )
    return [_collection(row) for row in rows]


async def list_models(database: Database) -> list[str]:
    """Return the models that collections work with."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT DISTINCT model FROM memoryd.generations")
    return [row["model"] for row in rows]


async def count_contents(database: Database, collection: Collection) -> Counts:
    """Return what a collection holds, or raise NotFoundError where it has been deleted."""
    schema = collection_schema(collection.number)
    async with database.connection() as connection:
        rows = await connection.fetch(
            f"SELECT (SELECT count(*) FROM {schema}.documents) AS documents,"
            f" (SELECT count(*) FROM {schema}.{chunk_table(collection.active.number)}) AS chunks,"
            " (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r'"
            f" AND relnamespace = '{schema}'::regnamespace) AS bytes,"
            " count(*) FILTER (WHERE status = 'queued') AS queued_jobs,"
            " count(*) FILTER (WHERE status = 'running') AS running_jobs,"
            " coalesce(bool_or(type = $2), false) AS is_indexing,"
            " max(done / nullif(total, 0)::float8) FILTER (WHERE type = $2) AS indexed_part"
            " FROM memoryd.jobs WHERE collection_id = $1 AND finished_at IS NULL",
            collection.number,
            JOB_TYPE,
        )
    return Counts(**rows[0])


async def find_collection_by_number(database: Database, number: int) -> Collection:
    """Return the collection of that number, or raise NotFoundError."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            f"SELECT {_FIELDS} FROM memoryd.collections c WHERE id = $1", number
        )
    if row is None:
        raise NotFoundError("the collection was deleted meanwhile", "collection")
    return _collection(row)


async def update_collection(
    database: Database,
    collection: Collection,
    *,
    name: str | None,
    language: str | None,
    metadata: dict[str, Any] | None,
    index_settings: IndexSettings | None = None,
    indexed_fields: Mapping[str, FieldType] | None = None,
) -> Collection:
    """Write those that are not None; raise ConflictError where the name is taken.

    A job makes indexes what they should be, and writes lexemes again in another language.
    """
    async with database.transaction() as connection:
        if name is not None and name != collection.name:
            await _require_free(connection, name)
        before = await connection.fetchval(
            "SELECT language FROM memoryd.collections WHERE id = $1 FOR UPDATE", collection.number
        )
        is_translated = language not in (None, before)
        if is_translated:
            await _require_lexemes(connection, collection.number)
        row = await connection.fetchrow(
            "UPDATE memoryd.collections c SET name = coalesce($2, name),"
            " language = coalesce($3, language), metadata = coalesce($4, metadata),"
            " index_settings = coalesce($5, index_settings),"
            " indexed_fields = coalesce($6, indexed_fields),"
            f" updated_at = now() WHERE id = $1 RETURNING {_FIELDS}",
            collection.number,
            name,
            language,
            metadata,
            asdict(index_settings) if index_settings else None,
            None if indexed_fields is None else dict(indexed_fields),
        )
        if row is None:
            raise _not_found(collection.name)
        if is_translated or index_settings or indexed_fields is not None:
            await start_indexing(connection, collection.number)
    return _collection(row)


async def _require_lexemes(connection: Connection, number: int) -> None:
    """Say of all generations that their lexemes are to be written again."""
    await connection.execute(
        "UPDATE memoryd.generations SET lexical_state = 'building' WHERE collection_id = $1", number
    )


async def note_lexical_ready(
    connection: Connection, collection: Collection, generation: Generation
) -> None:
    """Say that a generation's lexemes are written, unless the language was changed meanwhile."""
    language = await connection.fetchval(
        "SELECT language FROM memoryd.collections WHERE id = $1 FOR SHARE", collection.number
    )
    if language == collection.language:
        await connection.execute(
            "UPDATE memoryd.generations SET lexical_state = 'ready'"
            " WHERE collection_id = $1 AND number = $2",
            collection.number,
            generation.number,
        )


async def move_alias(database: Database, collection: Collection, alias: str) -> None:
    """Let `alias` name `collection` from now on, in one step.

    Raises ConflictError where a collection has that name, NotFoundError where `collection` has
    been deleted.
    """
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _NAMES_LOCK)
        taken = await connection.fetchval(
            "SELECT true FROM memoryd.collections WHERE name = $1", alias
        )
        if taken:
            raise ConflictError(f"a collection is called {alias!r}", "alias")
        moved = await connection.fetchval(
            "INSERT INTO memoryd.aliases (alias, collection_id)"
            " SELECT $1, id FROM memoryd.collections WHERE id = $2"
            " ON CONFLICT (alias) DO UPDATE SET collection_id = excluded.collection_id"
            " RETURNING true",
            alias,
            collection.number,
        )
        if not moved:
            raise _not_found(collection.name)


async def list_aliases(database: Database, collection: Collection) -> list[str]:
    """Return the aliases of `collection`, sorted."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT alias FROM memoryd.aliases WHERE collection_id = $1 ORDER BY alias",
            collection.number,
        )
    return [row["alias"] for row in rows]


def keep(collection: Collection) -> str:
    """Return the statement that keeps a collection from being deleted in its transaction's time.

    It locks the tables in the order in which a deletion does: else each could wait for the other.
    It fails with NotFoundError where the collection has been deleted.
    """
    schema = collection_schema(collection.number)
    number = collection.active.number
    tables = (
        *("documents", chunk_table(number), vector_table(number), lexical_table(number)),
        *(term_table(number), term_change_table(number)),
    )
    return f"LOCK TABLE {', '.join(f'{schema}.{table}' for table in tables)} IN ACCESS SHARE MODE"


async def delete_collection(database: Database, collection: Collection) -> None:
    """Delete the collection's row, aliases and schema, with all that is in it, and end its jobs.

    It needs all tables, which others lock in all orders: so it gives way to whoever has one for
    long, before Postgres would take the two for a deadlock, and tries again. Raises NotFoundError
    where it has been deleted, UnavailableError where others never let go of it.
    """
    async with database.connection() as connection:
        for _ in range(_DELETION_ATTEMPTS):
            await cancel_indexing(connection, collection.number)
            try:
                async with connection.transaction():
                    await _delete_collection(connection, collection)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                await asyncio.sleep(_DELETION_PAUSE_S)
            else:
                return
    raise UnavailableError(
        f"the collection {collection.name!r} is being read or written all the time: try again"
    )


async def _delete_collection(connection: Connection, collection: Collection) -> None:
    await connection.execute(f"SET LOCAL lock_timeout = {_DELETION_WAITS_MS}")
    deleted = await connection.fetchval(
        "DELETE FROM memoryd.collections WHERE id = $1 RETURNING true", collection.number
    )
    if not deleted:
        raise _not_found(collection.name)
    await connection.execute(f"DROP SCHEMA {collection_schema(collection.number)} CASCADE")
    await cancel_jobs_of(connection, collection.number)


def _collection(row: asyncpg.Record) -> Collection:
    return Collection(
        number=row["id"],
        name=row["name"],
        language=row["language"],
        metadata=row["metadata"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        index_settings=IndexSettings(**row["index_settings"]),
        indexed_fields=row["indexed_fields"],
        generations=tuple(read_generation(each) for each in row["generations"]),
    )
