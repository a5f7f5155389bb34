"""What a search costs in SQL alone, on the tables of a server that runs."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from pgvector import HalfVector
from pgvector.asyncpg import register_vector

from benchmarks.scene import LIMIT
from memoryd.postgres.access import reach
from memoryd.storage.tables import chunk_table, collection_schema, vector_table
from memoryd.vectors.types import Vector

EF_SEARCH = 100
"""As memoryd's own searches have it, and those of its peers here."""

_PLACE = """
SELECT collection_id, number FROM memoryd.generations
JOIN memoryd.collections ON collections.id = collection_id WHERE name = $1 AND role = 'active'
"""
_INDEX_BYTES = """
SELECT pg_relation_size(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
JOIN pg_am ON pg_am.oid = relam WHERE amname = 'hnsw' AND indrelid = $1::text::regclass
"""


class BareSearch:
    """Be the query that a client of Postgres would write, over memoryd's own index."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", place: asyncpg.Record):
        """Take a connection, and where the collection's vectors are."""
        schema = collection_schema(place["collection_id"])
        self._vectors = f"{schema}.{vector_table(place['number'])}"
        self._connection = connection
        self._sql = f"""
SELECT documents.external_id, title, metadata, tags, nearest.chunk_id, chunks.text, distance
FROM (
  SELECT chunk_id, document_id, embedding <=> $1 AS distance
  FROM {self._vectors} ORDER BY embedding <=> $1 LIMIT {LIMIT}
) AS nearest
JOIN {schema}.{chunk_table(place["number"])} AS chunks ON chunks.id = nearest.chunk_id
JOIN {schema}.documents ON documents.id = nearest.document_id
ORDER BY distance
"""  # noqa: S608 - names are memoryd's own numbers

    async def uses_index(self, vector: Vector) -> bool:
        """Say whether Postgres takes the index of the vectors."""
        plan = await self._connection.fetch(f"EXPLAIN {self._sql}", HalfVector(vector))
        return any("embedding" in line[0] and "Order By" in line[0] for line in plan)

    async def time_s(self, vector: Vector) -> float:
        """Run it; return the seconds until its rows are here."""
        started = time.perf_counter()
        await self._connection.fetch(self._sql, HalfVector(vector))
        return time.perf_counter() - started

    async def index_bytes(self) -> int:
        """Return how large the index of the vectors is."""
        size: int = await self._connection.fetchval(_INDEX_BYTES, self._vectors)
        return size


@asynccontextmanager
async def open_bare_search(data_dir: Path, collection: str) -> AsyncIterator[BareSearch]:
    """Connect to the Postgres of the server that runs over `data_dir`."""
    async with reach(data_dir) as access:
        connection = await asyncpg.connect(access.dsn)
        try:
            await register_vector(connection)
            await connection.execute(f"SET hnsw.ef_search = {EF_SEARCH}")
            place = await connection.fetchrow(_PLACE, collection)
            if place is None:
                raise RuntimeError(f"there is no collection {collection}")
            yield BareSearch(connection, place)
        finally:
            await connection.close()
