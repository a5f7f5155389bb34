"""HNSW indexes over the vectors of a generation, made and dropped while others read and write.

Each is named by what it is made of: one that is wanted otherwise is made anew beside it. Only what
stands in the generation's row is used by searches.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

import asyncpg

from memoryd.documents.types import Collection, DenseIndex, Generation, IndexSettings
from memoryd.storage.database import INDEXER, Connection, Database
from memoryd.storage.tables import collection_schema, embedding_type, vector_table

M, EF_CONSTRUCTION = 16, 128
"""Of an index of which the client says nothing."""

# What an HNSW can be made of: halfvec up to the first, bit up to the second (pgvector's README).
_MOST_DIMENSIONS = 4_000
_MOST_BITS = 64_000
_PROGRESS_EVERY_S = 1.0
# What a row of the graph takes beside its vector, for each neighbor and at all: measured.
_NEIGHBOR_BYTES = 48
_ROW_BYTES = 256
_LEAST_MEMORY_BYTES = 64 << 20

Report = Callable[[int, int], Awaitable[None]]
"""Takes how many rows are in the index, and of how many."""


@dataclass(frozen=True)
class FoundIndex:
    """Be an index over vectors that is there; one that isn't valid was never finished."""

    name: str
    is_valid: bool


def expected_index(
    collection: Collection, generation: Generation, chunks: int, threshold: int
) -> DenseIndex | None:
    """Return the index over vectors that a generation of so many chunks should have.

    One that is there stays when the collection gets smaller.
    """
    settings = collection.index_settings
    is_large = chunks >= threshold or generation.dense_index is not None
    return plan_index(settings, generation) if settings.type == "hnsw" or is_large else None


def plan_index(settings: IndexSettings, generation: Generation) -> DenseIndex | None:
    """Return the index that a generation of many vectors should have; None: it can't or mustn't."""
    if settings.type == "exact" or generation.dimensions > _MOST_BITS:
        return None
    is_wide = generation.dimensions > _MOST_DIMENSIONS
    m = settings.m or M
    ef_construction = settings.ef_construction or max(EF_CONSTRUCTION, 2 * m)
    name = f"{vector_table(generation.number)}_{'binary' if is_wide else 'hnsw'}"
    return DenseIndex(
        "binary" if is_wide else "hnsw", f"{name}_{m}_{ef_construction}", m, ef_construction
    )


def describe_key(generation: Generation, index: DenseIndex, value: str) -> str:
    """Return what is indexed, or looked for, of `value`, which is SQL of the column's type."""
    dimensions = generation.dimensions
    if index.type == "binary":
        return f"binary_quantize({value})::bit({dimensions:d})"
    if generation.precision == "full":  # half the room, and more dimensions are possible
        return f"{value}::{embedding_type('half', dimensions)}"
    return value


async def list_indexes(
    database: Database, collection: Collection, generation: Generation
) -> list[FoundIndex]:
    """Return the HNSW indexes of a generation."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'hnsw'"
            " AND i.indrelid = to_regclass($1) ORDER BY c.relname",
            _table(collection, generation),
        )
    return [FoundIndex(row["relname"], row["indisvalid"]) for row in rows]


async def count_vectors(
    database: Database, collection: Collection, generation: Generation, enough: int
) -> int:
    """Return how many vectors a generation has: the true number up to `enough`, then about.

    Raises NotFoundError where it was dropped.
    """
    table = _table(collection, generation)
    async with database.connection() as connection:
        count: int = await connection.fetchval(
            f"SELECT greatest((SELECT count(*) FROM (SELECT FROM {table} LIMIT {enough:d}) AS v),"
            " CASE WHEN EXISTS (SELECT FROM"
            f" {table} OFFSET {enough:d}) THEN pg_stat_get_live_tuples($1::regclass) END)",
            table,
        )
    return count


async def build_index(
    database: Database,
    collection: Collection,
    generation: Generation,
    index: DenseIndex,
    rows: int,
    report: Report,
) -> None:
    """Make an index of about `rows` vectors; others write meanwhile. `report` is called at times.

    What `report` raises ends it. Where it ends before it is done, a part of it stays.
    """
    async with database.connection_apart() as connection:
        await _allow_memory(connection, generation, index, rows)
        building = asyncio.create_task(_create(connection, collection, generation, index))
        process: int = connection.get_server_pid()
        try:
            while not (await asyncio.wait({building}, timeout=_PROGRESS_EVERY_S))[0]:
                await report(*await _read_progress(database, process, rows))
            await building
        finally:
            building.cancel()
            with suppress(asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await building


async def _create(
    connection: Connection, collection: Collection, generation: Generation, index: DenseIndex
) -> None:
    statement = (
        f"CREATE INDEX CONCURRENTLY {index.name} ON {_table(collection, generation)}"
        f" USING hnsw (({describe_key(generation, index, 'embedding')}) {_operators(index)})"
        f" WITH (m = {index.m:d}, ef_construction = {index.ef_construction:d})"
    )
    try:
        await connection.execute(statement)
    except (asyncpg.DiskFullError, asyncpg.OutOfMemoryError):
        # Several processes share the graph, for which a container may have too little room.
        await _drop(connection, collection, index.name)
        await connection.execute("SET max_parallel_maintenance_workers = 0")
        await connection.execute(statement)


def _operators(index: DenseIndex) -> str:
    return "bit_hamming_ops" if index.type == "binary" else "halfvec_cosine_ops"


async def _allow_memory(
    connection: Connection, generation: Generation, index: DenseIndex, rows: int
) -> None:
    """Let Postgres hold the whole graph, where it has the memory: else building takes far longer.

    Its `effective_cache_size` tells how much there is.
    """
    bits = 1 if index.type == "binary" else 16
    row_bytes = generation.dimensions * bits / 8 + 2 * index.m * _NEIGHBOR_BYTES + _ROW_BYTES
    await connection.execute(
        "SELECT set_config('maintenance_work_mem', greatest(least($1,"
        " pg_size_bytes(current_setting('effective_cache_size')) / 2),"
        " pg_size_bytes(current_setting('maintenance_work_mem'))) / 1024 || 'kB', false)",
        max(round(1.25 * rows * row_bytes), _LEAST_MEMORY_BYTES),
    )


async def _read_progress(database: Database, process: int, rows: int) -> tuple[int, int]:
    """Return how many rows are in the index that `process` makes, and of how many."""
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT tuples_done, tuples_total FROM pg_stat_progress_create_index WHERE pid = $1"
            " AND phase LIKE 'building index%'",
            process,
        )
    if row is None:  # it waits for others, or has all
        return 0, rows
    total = max(row["tuples_total"], rows)
    return min(row["tuples_done"], total), total


async def note_index(
    connection: Connection, collection: Collection, generation: Generation, index: DenseIndex | None
) -> None:
    """Let searches use that index of a generation from now on; None: none."""
    await connection.execute(
        "UPDATE memoryd.generations SET dense_index = $3 WHERE collection_id = $1 AND number = $2",
        collection.number,
        generation.number,
        asdict(index) if index else None,
    )


async def drop_index(database: Database, collection: Collection, name: str) -> None:
    """Drop an index while others search; it must not be noted any more."""
    async with database.connection_apart() as connection:
        await _drop(connection, collection, name)


async def _drop(connection: Connection, collection: Collection, name: str) -> None:
    schema = collection_schema(collection.number)
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{name}")


async def cancel_indexing(connection: Connection, collection_number: int) -> None:
    """End what any process makes or drops of a collection's indexes just now.

    Its locks are free soon after.
    """
    await connection.execute(
        "SELECT pg_cancel_backend(a.pid) FROM pg_stat_activity a WHERE a.application_name = $1"
        " AND a.datname = current_database() AND EXISTS (SELECT FROM pg_locks l"
        " JOIN pg_class c ON c.oid = l.relation"
        " WHERE l.pid = a.pid AND l.database = a.datid AND c.relnamespace = to_regnamespace($2))",
        INDEXER,
        collection_schema(collection_number),
    )


def _table(collection: Collection, generation: Generation) -> str:
    return f"{collection_schema(collection.number)}.{vector_table(generation.number)}"
