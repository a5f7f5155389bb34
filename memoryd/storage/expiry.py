"""When the first document of each collection expires.

`memoryd.collections.next_expiry` says it, or an earlier time, so that the sweeper looks at those
collections alone that may have something for it.
"""

from collections.abc import Sequence
from datetime import datetime

from memoryd.documents.types import Collection
from memoryd.storage.database import Connection, Database
from memoryd.storage.tables import collection_schema

_GUARD = 0x74746C  # "ttl": the first of the two keys of the advisory lock


async def note_expiry(
    connection: Connection, collection: Collection, times: Sequence[datetime | None]
) -> None:
    """Let the sweeper know of the earliest of `times`, which this transaction has written.

    From then on the transaction must lock no document.
    """
    given = [time for time in times if time is not None]
    if not given:
        return
    # Shared, so that writers don't wait for each other; `settle_expiry` holds it alone.
    await connection.execute(
        "SELECT pg_advisory_xact_lock_shared($1, $2)", _GUARD, collection.number
    )
    await connection.execute(
        "UPDATE memoryd.collections SET next_expiry = $2"
        " WHERE id = $1 AND (next_expiry IS NULL OR next_expiry > $2)",
        collection.number,
        min(given),
    )


async def settle_expiry(database: Database, collection: Collection) -> None:
    """Write when the first document that is left expires.

    Not while others write documents that will: these can't be seen yet, and have noted nothing
    where an earlier time stood. The sweeper comes again.
    """
    async with database.transaction() as connection:
        is_alone = await connection.fetchval(
            "SELECT pg_try_advisory_xact_lock($1, $2)", _GUARD, collection.number
        )
        if is_alone:  # a statement of its own, which sees what was written before
            await connection.execute(
                "UPDATE memoryd.collections SET next_expiry ="
                f" (SELECT min(expires_at) FROM {collection_schema(collection.number)}.documents)"
                " WHERE id = $1",
                collection.number,
            )


async def list_expiring(database: Database) -> list[int]:
    """Return the numbers of the collections in which a document may have expired."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT id FROM memoryd.collections WHERE next_expiry <= now() ORDER BY id"
        )
    return [row["id"] for row in rows]
