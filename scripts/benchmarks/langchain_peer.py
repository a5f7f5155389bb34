"""langchain-postgres' PGVectorStore: a child process in the stores' environment."""

import asyncio
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_postgres import PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWIndex, HNSWQueryOptions
from pgvector.asyncpg import register_vector
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.store_peer import Rows, serve_store

_EF_SEARCH = 100  # as memoryd and Chroma have it
_COLUMNS = ("langchain_id", "content", "embedding", "langchain_metadata")


class _LangChain:
    """Use the asynchronous half, which hands nothing to another thread."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.Runner()
        self._url = url
        pool = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:", 1))
        self._engine = PGEngine.from_engine(pool)
        self._stores: dict[str, PGVectorStore] = {}

    def add(self, name: str, rows: Rows) -> Callable[[], None]:
        store = self._make(name, rows)
        ids = [str(uuid.UUID(int=number)) for number in range(len(rows.texts))]
        vectors = rows.vectors.tolist()
        return lambda: self._run(store.aadd_embeddings(rows.texts, vectors, ids=ids))

    def index(self, name: str) -> None:
        self._run(self._stores[name].aapply_vector_index(HNSWIndex()))

    def load(self, name: str, rows: Rows) -> None:
        # Not by add_embeddings, which commits each row by itself.
        self._make(name, rows)
        self._run(self._copy(name, rows))
        self.index(name)

    def drop(self, name: str) -> None:
        self._run(self._engine.adrop_table(name))
        del self._stores[name]

    def search(self, name: str, vector: list[float], limit: int) -> list[int]:
        found = self._run(self._stores[name].asimilarity_search_by_vector(vector, limit))
        return [uuid.UUID(document.id).int for document in found]

    def _make(self, name: str, rows: Rows) -> PGVectorStore:
        width = rows.vectors.shape[1]
        self._run(self._engine.ainit_vectorstore_table(name, width))
        self._stores[name] = self._run(
            PGVectorStore.create(
                self._engine,
                DeterministicFakeEmbedding(size=width),
                name,
                index_query_options=HNSWQueryOptions(ef_search=_EF_SEARCH),
            )
        )
        return self._stores[name]

    async def _copy(self, name: str, rows: Rows) -> None:
        records = (
            (uuid.UUID(int=number), content, vector, "{}")
            for number, (content, vector) in enumerate(zip(rows.texts, rows.vectors, strict=True))
        )
        # A connection of its own: vectors go to those of the store as text.
        connection = await asyncpg.connect(self._url)
        try:
            await register_vector(connection)
            await connection.copy_records_to_table(name, records=records, columns=_COLUMNS)
        finally:
            await connection.close()

    def _run(self, work: Any) -> Any:
        return self._loop.run(work)


if __name__ == "__main__":
    serve_store(_LangChain(sys.argv[2]), Path(sys.argv[1]))
