"""Write what lexical search reads of chunks: which lexemes they have, and how often.

`lexical_N` has a row of each chunk of generation N. Whoever adds or deletes some notes it in
`term_changes_N` by the same statement, and so exactly once; `lexical_statistics` counts that later.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from memoryd.documents.lexemes import prepare_text
from memoryd.documents.types import Collection, Generation
from memoryd.errors import NotFoundError
from memoryd.storage.database import Connection, Database
from memoryd.storage.generations import are_unchanged, change_alone, list_generations
from memoryd.storage.tables import (
    LEXEME_DIMENSIONS,
    chunk_table,
    collection_schema,
    lexical_table,
    term_change_table,
)
from memoryd.vectors.bm25 import MAX_FREQUENCY

# Preparing takes some 20 µs for a thousand characters: other requests wait for few at most.
_CHARS_AT_ONCE = 20_000
# pgvector's SPARSEVEC_MAX_NNZ (sparsevec.h).
_MAX_LEXEMES = 16_000


@dataclass(frozen=True)
class SearchedChunk:
    """Be a chunk with what it is found by."""

    number: int
    document_number: int
    title: str
    text: str
    language: str | None
    """None: the collection's."""


def dimension_of(lexeme: str) -> str:
    """Return SQL for the dimension that a lexeme has in `frequencies`, counted from 1.

    Postgres can't change this function's results: tables that are partitioned by hash lie on disks
    by them. Below 2**29 it is below what a sparsevec may have.
    """
    return f"((hashtextextended({lexeme}, 0) & 536870911) + 1)"


CONFIGURATIONS = (
    "configurations AS MATERIALIZED (SELECT DISTINCT ON (language) cfgname::text AS language,"
    " oid::regconfig AS configuration FROM pg_catalog.pg_ts_config"
    " WHERE pg_catalog.pg_ts_config_is_visible(oid) ORDER BY language)"
)
"""A CTE of the languages that Postgres can stem. Others are searched without that."""
CONFIGURATION = "coalesce(configuration, 'pg_catalog.simple'::regconfig)"

# Lexemes of the same dimension, which are very rare, are counted as one.
_FREQUENCIES = (
    "SELECT coalesce(sum(frequency), 0) AS length,"
    f" ('{{' || coalesce(string_agg(dimension || ':' || least(frequency, {MAX_FREQUENCY}), ','),"
    f" '') || '}}/{LEXEME_DIMENSIONS}')::sparsevec AS frequencies"
    f" FROM (SELECT {dimension_of('u.lexeme')} AS dimension,"
    " sum(cardinality(u.positions)) AS frequency FROM unnest(p.lexemes) AS u GROUP BY 1"
    f" LIMIT {_MAX_LEXEMES:d}) AS each"
)


async def insert_lexical(
    connection: Connection, collection_number: int, generation: int, chunks: Sequence[SearchedChunk]
) -> None:
    """Write the lexical rows of chunks that have none."""
    if not chunks:
        return
    schema = collection_schema(collection_number)
    await connection.execute(
        f"WITH {CONFIGURATIONS}, prepared AS MATERIALIZED (SELECT chunk_id, document_id,"
        f" to_tsvector({CONFIGURATION}, words) AS lexemes"
        " FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])"
        " AS n (chunk_id, document_id, language, words) LEFT JOIN configurations k"
        " ON k.language = coalesce(n.language,"
        " (SELECT language FROM memoryd.collections WHERE id = $5))),"
        f" written AS (INSERT INTO {schema}.{lexical_table(generation)}"
        " (chunk_id, document_id, length, lexemes, frequencies)"
        " SELECT p.chunk_id, p.document_id, f.length, p.lexemes, f.frequencies"
        f" FROM prepared AS p, LATERAL ({_FREQUENCIES}) AS f RETURNING length, lexemes)"
        f" {_note(schema, generation, 1, 'written')}",
        [chunk.number for chunk in chunks],
        [chunk.document_number for chunk in chunks],
        [chunk.language for chunk in chunks],
        await _prepare(chunks),
        collection_number,
    )


def _note(schema: str, generation: int, sign: int, changed: str) -> str:
    return (
        f"INSERT INTO {schema}.{term_change_table(generation)} (sign, length, lexemes)"
        f" SELECT {sign:d}, length, strip(lexemes) FROM {changed}"
    )


async def _prepare(chunks: Sequence[SearchedChunk]) -> list[str]:
    if sum(len(chunk.text) for chunk in chunks) <= _CHARS_AT_ONCE:
        return _words(chunks)
    return await asyncio.to_thread(_words, chunks)


def _words(chunks: Sequence[SearchedChunk]) -> list[str]:
    return [prepare_text(f"{chunk.title}\n{chunk.text}") for chunk in chunks]


async def delete_lexical(
    connection: Connection, collection: Collection, documents: Sequence[int]
) -> None:
    """Delete the lexical rows of documents, in all generations, before they are deleted."""
    await are_unchanged(connection, collection)  # as they are now is how they stay
    for generation in await list_generations(connection, collection.number):
        await _delete(
            connection, collection_schema(collection.number), generation.number, documents
        )


async def _delete(
    connection: Connection, schema: str, generation: int, documents: Sequence[int]
) -> None:
    await connection.execute(
        f"WITH gone AS (DELETE FROM {schema}.{lexical_table(generation)}"
        " WHERE document_id = ANY ($1) RETURNING length, lexemes)"
        f" {_note(schema, generation, -1, 'gone')}",
        documents,
    )


async def delete_all_but(
    connection: Connection,
    schema: str,
    generation: int,
    document_number: int,
    kept: Sequence[int],
) -> None:
    """Delete the lexical rows of a document's chunks, but for those of the numbers `kept`."""
    await connection.execute(
        f"WITH gone AS (DELETE FROM {schema}.{lexical_table(generation)}"
        " WHERE document_id = $1 AND chunk_id <> ALL ($2) RETURNING length, lexemes)"
        f" {_note(schema, generation, -1, 'gone')}",
        document_number,
        kept,
    )


async def rewrite_lexical(
    connection: Connection, collection: Collection, documents: Sequence[int]
) -> None:
    """Write the lexical rows of stored documents again, in all generations; hold their locks."""
    await are_unchanged(connection, collection)  # as they are now is how they stay
    for generation in await list_generations(connection, collection.number):
        await _rewrite(connection, collection.number, generation.number, documents)


async def _rewrite(
    connection: Connection, collection_number: int, generation: int, documents: Sequence[int]
) -> None:
    schema = collection_schema(collection_number)
    await _delete(connection, schema, generation, documents)
    rows = await connection.fetch(
        "SELECT c.id AS number, d.id AS document_number, d.title, c.text, d.language"
        f" FROM {schema}.{chunk_table(generation)} AS c"
        f" JOIN {schema}.documents AS d ON d.id = c.document_id WHERE d.id = ANY ($1) ORDER BY 1",
        documents,
    )
    chunks = [SearchedChunk(**row) for row in rows]
    await insert_lexical(connection, collection_number, generation, chunks)


async def rebuild_batch(
    database: Database, collection: Collection, generation: Generation, *, after: int, limit: int
) -> int | None:
    """Write the lexical rows of up to `limit` documents again, from after number `after` on.

    Returns the last one's number, after which to go on, or None where there are no more: a job can
    begin again anywhere. Raises NotFoundError where the generation was deleted meanwhile.
    """
    schema = collection_schema(collection.number)
    if not after:
        # Those who write just now may know another language than the collection has by now.
        await change_alone(database, collection.number, _do_nothing)
    async with database.transaction() as connection:
        await are_unchanged(connection, collection)
        found = await list_generations(connection, collection.number)
        if generation.number not in [each.number for each in found]:
            raise NotFoundError("the model was replaced meanwhile", "collection")
        rows = await connection.fetch(
            f"SELECT id FROM {schema}.documents WHERE id > $1 AND version > 0"
            f" ORDER BY id LIMIT {limit:d} FOR UPDATE",
            after,
        )
        numbers = [row["id"] for row in rows]
        await _rewrite(connection, collection.number, generation.number, numbers)
    return numbers[-1] if len(numbers) == limit else None


async def _do_nothing(_: Connection) -> None:
    pass
