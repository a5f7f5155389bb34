"""Generations: the ways in which a collection's documents are chunked and embedded.

Each has a table of chunks and one of vectors. A writer holds a lock shared while it writes to all
that exist (`are_unchanged`); whoever adds, switches or drops one holds it alone (`change_alone`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from memoryd.documents.types import Chunking, Collection, DenseIndex, Generation, Role
from memoryd.errors import ConflictError, NotFoundError, UnavailableError
from memoryd.storage.database import Connection, Database
from memoryd.storage.migrate import ADVISORY_LOCK
from memoryd.storage.tables import (
    chunk_table,
    collection_schema,
    embedding_type,
    lexical_table,
    term_change_table,
    term_table,
    vector_table,
)
from memoryd.storage.vector_indexes import cancel_indexing

# Rows of up to this many bytes stay in the table's own pages, where an exact scan reads them.
_PLAIN_STORAGE_BYTES = 8_000
_BYTES_PER_NUMBER = {"half": 2, "full": 4}
_GUARD = 0x67656E  # "gen": the first of the two keys of the advisory lock
# A table is made and dropped under locks for which those queue who come later, searches too: so
# they are asked for briefly, and again. Longer than the first who has them may be an export.
_LOCK_TIMEOUT_MS = 150
_LOCK_PAUSE_S = 0.5
_LOCK_PATIENCE_S = 20.0

T = TypeVar("T")


def read_generation(fields: dict[str, Any]) -> Generation:
    """Return the generation of a row of JSON."""
    index = fields["dense_index"]
    return Generation(
        **{
            **fields,
            "chunking": Chunking(**fields["chunking"]),
            "dense_index": DenseIndex(**index) if index else None,
        }
    )


async def insert_generation(
    connection: Connection, collection_number: int, generation: Generation
) -> None:
    """Write the row of a generation, without its tables."""
    await connection.execute(
        "INSERT INTO memoryd.generations (collection_id, number, role, model, dimensions,"
        " precision, chunking, instruction) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        collection_number,
        generation.number,
        generation.role,
        generation.model,
        generation.dimensions,
        generation.precision,
        generation.chunking.as_json(),
        generation.instruction,
    )


async def create_vector_table(connection: Connection, schema: str, generation: Generation) -> None:
    """Make the table of a generation's vectors; that of its chunks is there."""
    table = vector_table(generation.number)
    column = embedding_type(generation.precision, generation.dimensions)
    await connection.execute(
        f"CREATE TABLE {schema}.{table} ("
        f" chunk_id bigint PRIMARY KEY"
        f" REFERENCES {schema}.{chunk_table(generation.number)} ON DELETE CASCADE,"
        f" document_id bigint NOT NULL, embedding {column} NOT NULL);"
        f"CREATE INDEX {table}_document_id_idx ON {schema}.{table} (document_id)"
    )
    if generation.dimensions * _BYTES_PER_NUMBER[generation.precision] < _PLAIN_STORAGE_BYTES:
        await connection.execute(
            f"ALTER TABLE {schema}.{table} ALTER COLUMN embedding SET STORAGE PLAIN"
        )


async def are_unchanged(connection: Connection, collection: Collection) -> bool:
    """Keep the generations as they are until the transaction ends; say if they are as known."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock_shared($1, $2)", _GUARD, collection.number
    )
    found = await connection.fetchval(  # a statement of its own: it sees what the lock waited for
        "SELECT array_agg(role || ' ' || number ORDER BY number) FROM memoryd.generations"
        " WHERE collection_id = $1",
        collection.number,
    )
    return bool(found == [f"{each.role} {each.number}" for each in collection.generations])


async def change_alone(
    database: Database, collection_number: int, change: Callable[[Connection], Awaitable[T]]
) -> T:
    """Return what `change` returns, called in a transaction that no writer is beside.

    It is called again where it had to wait for others' locks. Raises NotFoundError where the
    collection has been deleted, UnavailableError where others, an export say, don't end in time.
    """
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            async with database.transaction() as connection:
                await _guard_alone(connection, collection_number)
                return await change(connection)
        except UnavailableError as error:
            if type(error) is not UnavailableError:  # not for a lock, nor for a deadlock
                raise
            if time.monotonic() > deadline:
                raise UnavailableError(
                    "others read or write this collection all the time, an export or a backup, or "
                    "memoryd is migrating: try again when they have ended",
                    retry_after_s=10,
                ) from error
        await asyncio.sleep(_LOCK_PAUSE_S)


async def _guard_alone(connection: Connection, collection_number: int) -> None:
    """Keep all writers of a collection, its deletion and migrations away until the end."""
    await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", ADVISORY_LOCK)
    await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _GUARD, collection_number)
    exists = await connection.fetchval(
        "SELECT true FROM memoryd.collections WHERE id = $1 FOR KEY SHARE", collection_number
    )
    if not exists:
        raise NotFoundError("the collection was deleted meanwhile", "collection")


async def list_generations(
    connection: Connection, collection_number: int
) -> tuple[Generation, ...]:
    """Return the generations of a collection by number."""
    rows = await connection.fetch(
        "SELECT to_jsonb(g) - 'collection_id' AS fields FROM memoryd.generations g"
        " WHERE collection_id = $1 ORDER BY number",
        collection_number,
    )
    return tuple(read_generation(row["fields"]) for row in rows)


async def next_number(connection: Connection, collection_number: int) -> int:
    """Return a number that no generation has had that someone may still know of.

    Those that were never finished are gone: their jobs tell that they were there.
    """
    highest: int = await connection.fetchval(
        "SELECT greatest((SELECT max(number) FROM memoryd.generations WHERE collection_id = $1),"
        " (SELECT max((parameters ->> 'number')::int) FROM memoryd.jobs"
        " WHERE collection_id = $1 AND type = 'reembed'))",
        collection_number,
    )
    return highest + 1


async def build_generation(
    connection: Connection, collection_number: int, active: int, generation: Generation
) -> None:
    """Make a generation's row and tables, like those of number `active`; hold the lock alone.

    Whoever writes from now on writes to it too.
    """
    schema = collection_schema(collection_number)
    chunks = f"{schema}.{chunk_table(generation.number)}"
    await insert_generation(connection, collection_number, generation)
    await connection.execute(
        f"CREATE TABLE {chunks} (LIKE {schema}.{chunk_table(active)} INCLUDING ALL);"
        f"ALTER TABLE {chunks} ADD FOREIGN KEY (document_id)"
        f" REFERENCES {schema}.documents ON DELETE CASCADE"
    )
    await create_vector_table(connection, schema, generation)
    await _create_lexical_tables(connection, schema, active, generation.number)


async def _create_lexical_tables(
    connection: Connection, schema: str, active: int, number: int
) -> None:
    for table in (lexical_table, term_table, term_change_table):
        await connection.execute(
            f"CREATE TABLE {schema}.{table(number)} (LIKE {schema}.{table(active)} INCLUDING ALL)"
        )
    await connection.execute(
        f"ALTER TABLE {schema}.{lexical_table(number)} ADD FOREIGN KEY (chunk_id)"
        f" REFERENCES {schema}.{chunk_table(number)} ON DELETE CASCADE"
    )


async def drop_generation(
    connection: Connection, collection_number: int, generation: Generation
) -> None:
    """Delete a generation's row and tables; hold the lock alone."""
    schema = collection_schema(collection_number)
    tables = ", ".join(
        f"{schema}.{table(generation.number)}"
        for table in (chunk_table, vector_table, lexical_table, term_table, term_change_table)
    )
    await cancel_indexing(connection, collection_number)
    # In the order of searches. A reference can't be dropped without locking both its ends.
    await connection.execute(
        f"LOCK TABLE {schema}.documents, {tables} IN ACCESS EXCLUSIVE MODE; DROP TABLE {tables}"
    )
    await connection.execute(
        "DELETE FROM memoryd.generations WHERE collection_id = $1 AND number = $2",
        collection_number,
        generation.number,
    )


async def activate(connection: Connection, collection_number: int, role: Role) -> None:
    """Let the generation of that role be searched, and keep the one that was; hold the lock alone.

    Raises ConflictError where there is none of that role.
    """
    chosen = await connection.fetchval(
        "SELECT number FROM memoryd.generations WHERE collection_id = $1 AND role = $2",
        collection_number,
        role,
    )
    if chosen is None:
        raise ConflictError(f"the collection has no {role} model", "collection")
    # No two have the same role, not even in between.
    for assignment in (
        "role = 'chosen' WHERE collection_id = $1 AND number = $2",
        "role = 'previous' WHERE collection_id = $1 AND number <> $2 AND role = 'active'",
        "role = 'active' WHERE collection_id = $1 AND number = $2",
    ):
        await connection.execute(
            f"UPDATE memoryd.generations SET {assignment}", collection_number, chosen
        )
    await connection.execute(
        "UPDATE memoryd.collections SET updated_at = now() WHERE id = $1", collection_number
    )


async def list_only_in(
    connection: Connection,
    collection_number: int,
    generation: Generation,
    other: Generation,
    limit: int,
) -> list[str]:
    """Return up to `limit` ids of documents of own chunks that `generation` has and `other` hasn't.

    Of such a document there is no text but that of its chunks.
    """
    schema = collection_schema(collection_number)
    chunks, others = (chunk_table(each.number) for each in (generation, other))
    rows = await connection.fetch(
        f"SELECT external_id FROM {schema}.documents d WHERE has_own_chunks"
        f" AND EXISTS (SELECT 1 FROM {schema}.{chunks} c WHERE c.document_id = d.id)"
        f" AND NOT EXISTS (SELECT 1 FROM {schema}.{others} o WHERE o.document_id = d.id)"
        f" ORDER BY id LIMIT {limit:d}"
    )
    return [row["external_id"] for row in rows]
