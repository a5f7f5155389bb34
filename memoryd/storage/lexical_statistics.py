"""Count how many chunks have each lexeme, from what the writers of lexical rows have noted."""

from contextlib import suppress

from memoryd.errors import NotFoundError
from memoryd.storage.database import Connection, Database
from memoryd.storage.generations import list_generations
from memoryd.storage.tables import (
    collection_schema,
    lexical_table,
    term_change_table,
    term_table,
)

# Of one transaction, so that none is long.
_FOLDED_AT_ONCE = 20_000
_LOCK = 0x7465726D  # "term": the first of the two keys of the advisory lock


async def fold(database: Database, collection_number: int) -> bool:
    """Count what was noted of all generations; say whether there may be more of it.

    What is deleted meanwhile needs no counting.
    """
    async with database.connection() as connection:
        generations = await list_generations(connection, collection_number)
    has_more = False
    for generation in generations:
        with suppress(NotFoundError):
            has_more |= await _fold_generation(database, collection_number, generation.number)
    return has_more


async def _fold_generation(database: Database, collection_number: int, generation: int) -> bool:
    """Count what was noted of a generation; another who does so is not waited for."""
    schema = collection_schema(collection_number)
    async with database.transaction() as connection:
        # A statement of its own: the next one sees what the last who had the lock has done.
        is_alone = await connection.fetchval(
            "SELECT pg_try_advisory_xact_lock($1, $2)", _LOCK, collection_number
        )
        if not is_alone:
            return True
        count = await _count(connection, schema, generation)
    if count:
        await _tidy_index(database, schema, generation)
    return count == _FOLDED_AT_ONCE


async def _tidy_index(database: Database, schema: str, generation: int) -> None:
    """Sort in what an index has only listed so far: each search reads the whole list."""
    async with database.connection() as connection:
        await connection.execute(
            "SELECT gin_clean_pending_list($1::text::regclass)",
            f"{schema}.{lexical_table(generation)}_lexemes_idx",
        )


async def _count(connection: Connection, schema: str, generation: int) -> int:
    """Add what was noted to the table of terms, whose row of no lexeme is about all chunks."""
    changes = f"{schema}.{term_change_table(generation)}"
    terms = f"{schema}.{term_table(generation)}"
    [row] = await connection.fetch(
        f"WITH taken AS (DELETE FROM {changes} WHERE id IN"
        f" (SELECT id FROM {changes} ORDER BY id LIMIT {_FOLDED_AT_ONCE:d})"
        " RETURNING sign, length, lexemes),"
        " counted AS (SELECT lexeme, sum(sign) AS chunks, 0 AS length"
        " FROM taken, unnest(tsvector_to_array(lexemes)) AS lexeme GROUP BY lexeme"
        " UNION ALL SELECT '', sum(sign), sum(sign * length) FROM taken HAVING count(*) > 0),"
        f" written AS (INSERT INTO {terms} AS t (lexeme, chunks, length)"
        " SELECT lexeme, chunks, length FROM counted WHERE chunks <> 0 OR length <> 0"
        " ORDER BY lexeme ON CONFLICT (lexeme) DO UPDATE"
        " SET chunks = t.chunks + excluded.chunks, length = t.length + excluded.length"
        " RETURNING lexeme, chunks)"
        " SELECT (SELECT count(*) FROM taken) AS count,"
        " ARRAY(SELECT lexeme FROM written WHERE chunks = 0 AND lexeme <> '') AS gone"
    )
    if row["gone"]:
        await connection.execute(
            f"DELETE FROM {terms} WHERE lexeme = ANY ($1) AND chunks = 0", row["gone"]
        )
    return int(row["count"])
