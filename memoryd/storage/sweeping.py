"""Delete what has expired, and what is told of jobs that ended long ago."""

from collections.abc import Sequence

from memoryd.documents.types import Collection
from memoryd.storage.database import Connection, Database
from memoryd.storage.drafts import list_waiting
from memoryd.storage.generations import are_unchanged
from memoryd.storage.lexical_writing import delete_lexical
from memoryd.storage.tables import chunk_table, collection_schema


async def delete_expired(database: Database, collection: Collection, limit: int) -> int:
    """Delete up to `limit` documents that have expired, and return how many there were.

    Those that others are changing are left for the next time, and all are where `collection` isn't
    as it stands there any more. Where drafts wait for one, which was
    accepted to take its place, its row stays for them, without what has expired.
    """
    schema = collection_schema(collection.number)
    async with database.transaction() as connection:
        if not await are_unchanged(connection, collection):
            return 0
        rows = await connection.fetch(
            f"SELECT id FROM {schema}.documents WHERE expires_at <= now()"
            f" ORDER BY expires_at LIMIT {limit:d} FOR UPDATE SKIP LOCKED"
        )
        expired = [row["id"] for row in rows]
        awaited = list(await list_waiting(connection, collection, expired))
        await delete_lexical(connection, collection, expired)
        await connection.execute(
            f"DELETE FROM {schema}.documents WHERE id = ANY ($1) AND id <> ALL ($2)",
            expired,
            awaited,
        )
        if awaited:
            await _empty(connection, collection, awaited)
    return len(expired)


async def _empty(connection: Connection, collection: Collection, documents: Sequence[int]) -> None:
    """Make documents as if they had been accepted and never stored."""
    schema = collection_schema(collection.number)
    await connection.execute(
        f"UPDATE {schema}.documents SET version = 0, content_hash = '', title = '', text = '',"
        " mime_type = NULL, language = NULL, metadata = '{}', tags = '{}', error = NULL,"
        " sections = NULL, has_own_chunks = false, expires_at = NULL, updated_at = now()"
        " WHERE id = ANY ($1)",
        documents,
    )
    for generation in collection.generations:
        await connection.execute(
            f"DELETE FROM {schema}.{chunk_table(generation.number)} WHERE document_id = ANY ($1)",
            documents,
        )


async def list_with_ended_jobs(database: Database, older_than_days: int) -> list[int]:
    """Return the numbers of the collections that have jobs which ended so long ago."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT DISTINCT c.id FROM memoryd.jobs j"
            " JOIN memoryd.collections c ON c.id = j.collection_id"
            " WHERE j.finished_at < now() - make_interval(days => $1)",
            older_than_days,
        )
    return [row["id"] for row in rows]


async def delete_ended_drafts(
    database: Database, collection_number: int, older_than_days: int
) -> None:
    """Forget the failed drafts of a collection's jobs that ended so long ago."""
    async with database.connection() as connection:
        await connection.execute(
            f"DELETE FROM {collection_schema(collection_number)}.drafts WHERE outcome IS NOT NULL"
            " AND job_id IN (SELECT id FROM memoryd.jobs WHERE collection_id = $1"
            " AND finished_at < now() - make_interval(days => $2))",
            collection_number,
            older_than_days,
        )
