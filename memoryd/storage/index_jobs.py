"""Jobs that make indexes: one of a collection at a time, which hears what is asked meanwhile."""

from dataclasses import dataclass

from memoryd.storage.database import Connection, Database
from memoryd.storage.job_claims import JobClaim, LostJobError, complete_job
from memoryd.storage.jobs import create_job

JOB_TYPE = "index"

_GUARD = 0x696E64  # "ind": the first of the two keys of the advisory lock
# None begins by itself for so long after one that was canceled or failed, nor soon after one
# that found nothing to do: there were fewer vectors than Postgres took them for.
_PATIENCE_S = {"cancelled": 600, "failed": 600, "completed": 30}


@dataclass(frozen=True)
class Grown:
    """Be a collection that lacks an index, with about how many vectors it has."""

    collection_number: int
    vectors: int


async def start_indexing(connection: Connection, collection_number: int) -> None:
    """Let a job make what is missing; one that runs begins anew when it is through."""
    await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _GUARD, collection_number)
    is_told = await connection.fetchval(
        "UPDATE memoryd.jobs SET parameters = parameters || '{\"again\": true}'"
        " WHERE collection_id = $1 AND type = $2 AND finished_at IS NULL RETURNING true",
        collection_number,
        JOB_TYPE,
    )
    if not is_told:
        await create_job(connection, collection_number, type=JOB_TYPE, unit="rows")


async def begin_round(database: Database, claim: JobClaim) -> None:
    """Note that what was asked for until now is being done."""
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE memoryd.jobs SET parameters = parameters - 'again' WHERE id = $1", claim.number
        )


async def complete_round(database: Database, claim: JobClaim) -> bool:
    """End the job and return True, unless something was asked for since its round began.

    Raises LostJobError where the job is another worker's.
    """
    async with database.transaction() as connection:
        parameters = await connection.fetchval(
            "SELECT parameters FROM memoryd.jobs WHERE id = $1 FOR UPDATE", claim.number
        )
        if parameters is None:
            raise LostJobError
        if "again" in parameters:
            return False
        await complete_job(connection, claim, {}, {})
        return True


async def list_lacking(database: Database, threshold: int) -> list[Grown]:
    """Return the collections that lack an index and for which no job makes it, or failed just now.

    `threshold` is how many vectors are too many to read them all. They are not counted: what
    Postgres has gathered about the tables says how many there are.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(
            "WITH active AS (SELECT g.collection_id, g.dense_index, c.index_settings ->> 'type' AS"
            " type, to_regclass(format('c_%s.vectors_%s', g.collection_id, g.number)) AS vectors,"
            " (SELECT bool_or(lexical_state = 'building') FROM memoryd.generations b"
            "  WHERE b.collection_id = g.collection_id) AS lacks_lexemes"
            " FROM memoryd.generations g JOIN memoryd.collections c ON c.id = g.collection_id"
            " WHERE g.role = 'active'),"
            " sized AS (SELECT *, greatest(pg_stat_get_live_tuples(vectors),"
            "  (SELECT reltuples FROM pg_class WHERE oid = vectors)::bigint) AS size FROM active)"
            " SELECT collection_id AS collection_number, size AS vectors FROM sized"
            " WHERE (lacks_lexemes OR dense_index IS NULL AND type IS DISTINCT FROM 'exact'"
            "  AND (size >= $1 OR type = 'hnsw')) AND vectors IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM memoryd.jobs j"
            "  WHERE j.collection_id = sized.collection_id"
            "  AND j.type = $2 AND (j.finished_at IS NULL"
            "  OR j.finished_at > now() - make_interval(secs => ($3::jsonb ->> j.status)::int)))",
            threshold,
            JOB_TYPE,
            _PATIENCE_S,
        )
    return [Grown(**row) for row in rows]
