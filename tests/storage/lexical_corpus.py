"""Documents of a collection of the tests' own, and BM25 as the formula says, in plain Python."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memoryd.documents.filters import Filter
from memoryd.documents.types import Chunk, Chunking, Collection, Draft, chunk_hash
from memoryd.storage import collections, documents
from memoryd.storage.chunks import Embedded, Embedding
from memoryd.storage.database import Connection, Database
from memoryd.storage.lexical_search import analyze, score_chunks, search_lexical
from memoryd.storage.lexical_statistics import fold

# ruff: noqa: S608 - numbers of collections and generations are all that goes into statements


async def make(database: Database, language: str = "simple") -> Collection:
    """Make a collection."""
    return await collections.create_collection(
        database,
        name="kb",
        model="toy",
        dimensions=3,
        precision="half",
        chunking=Chunking(),
        language=language,
        metadata={},
    )


@dataclass
class Corpus:
    """Be the documents of a collection, each of one chunk for each of its texts."""

    database: Database
    collection: Collection

    async def put(
        self, id_: str, *texts: str, language: str | None = None, **attributes: Any
    ) -> int:
        """Store a document, in place of the one that is there, and return its number."""
        draft = Draft(" ".join(texts), language=language, **attributes)
        async with self.database.transaction() as connection:
            number, version = await self._find(connection, id_)
            embeddings = [
                await self._embed(connection, number, generation, draft.title, texts)
                for generation in self.collection.generations
            ]
            written = await documents.write_document(
                connection, self.collection, number, version, draft, b"", 1, embeddings
            )
        assert written == version + 1
        return number

    async def _find(self, connection: Connection, id_: str) -> tuple[int, int]:
        [row] = await connection.fetch(
            f"INSERT INTO c_{self.collection.number}.documents (external_id, version, content_hash,"
            " title, text, metadata, tags, created_at, updated_at)"
            " VALUES ($1, 0, '', '', '', '{}', '{}', now(), now())"
            " ON CONFLICT (external_id) DO UPDATE SET error = NULL RETURNING id, version",
            id_,
        )
        return row["id"], row["version"]

    async def _embed(
        self,
        connection: Connection,
        number: int,
        generation: Any,
        title: str,
        texts: Sequence[str],
    ) -> Embedding:
        rows = await connection.fetch(
            f"SELECT id, hash FROM c_{self.collection.number}.chunks_{generation.number}"
            " WHERE document_id = $1",
            number,
        )
        stored = {row["hash"]: row["id"] for row in rows}
        chunks = [Chunk(at, text, chunk_hash(title, text)) for at, text in enumerate(texts)]
        kept = [(stored[chunk.hash], chunk.position) for chunk in chunks if chunk.hash in stored]
        vector = np.ones(generation.dimensions, np.float32)
        new = [
            Embedded(chunk.position, vector)
            for chunk in reversed(chunks)  # in no order
            if chunk.hash not in stored
        ]
        return Embedding(generation, chunks, kept, new)

    async def delete(self, *numbers: int) -> None:
        """Delete documents."""
        async with self.database.transaction() as connection:
            await connection.execute(
                f"SELECT FROM c_{self.collection.number}.documents WHERE id = ANY ($1)"
                " ORDER BY id FOR UPDATE",
                numbers,
            )
            await documents.delete_documents(connection, self.collection, numbers)

    async def find(
        self, query: str, depth: int | None = None, wanted: Filter | None = None
    ) -> dict[str, float]:
        """Return texts of the chunks that are found, and their scores, best first."""
        async with self.database.snapshot() as connection:
            analyzed = await analyze(connection, self.collection, query)
            found = await search_lexical(
                connection, self.collection, analyzed, depth=depth, wanted=wanted
            )
            rows = await connection.fetch(
                f"SELECT id, text FROM c_{self.collection.number}"
                f".chunks_{self.collection.active.number}"
            )
            texts = {row["id"]: row["text"] for row in rows}
            scores = dict(zip(found.chunks.tolist(), found.scores.tolist(), strict=True))
            again = await score_chunks(connection, self.collection, analyzed, list(texts))
            rescored = dict(zip(again.chunks.tolist(), again.scores.tolist(), strict=True))
        if depth is None and wanted is None:
            assert scores == rescored
        return {texts[number]: value for number, value in scores.items()}


def bm25(texts: Mapping[str, str], query: str) -> dict[str, float]:
    """Return the scores of the texts that match, of words between spaces, by key."""
    words = {key: text.split() for key, text in texts.items()}
    mean = sum(map(len, words.values())) / max(len(words), 1)
    scores: Counter[str] = Counter()
    for term in query.split():
        having = [key for key, each in words.items() if term in each]
        idf = math.log(1 + (len(words) - len(having) + 0.5) / (len(having) + 0.5))
        for key in having:
            frequency = min(words[key].count(term), 15)
            length = len(words[key])
            scores[key] += idf * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * length / mean))
    return dict(scores)


async def assert_exact(corpus: Corpus) -> None:
    """Fold all and compare each generation's statistics with a count of what is stored."""
    while await fold(corpus.database, corpus.collection.number):
        pass
    async with corpus.database.snapshot() as connection:
        for generation in corpus.collection.generations:
            schema, number = f"c_{corpus.collection.number}", generation.number
            counted = await connection.fetch(
                f"SELECT lexeme, chunks, length FROM {schema}.terms_{number}"
            )
            stored = await connection.fetch(
                f"SELECT lexeme, count(*) AS chunks, 0 AS length FROM {schema}.lexical_{number},"
                " unnest(tsvector_to_array(lexemes)) AS lexeme GROUP BY 1"
                " UNION ALL SELECT '', count(*), coalesce(sum(length), 0)"
                f" FROM {schema}.lexical_{number}"
            )
            missing = await connection.fetchval(
                f"SELECT count(*) FROM {schema}.chunks_{number} c FULL JOIN"
                f" {schema}.lexical_{number} l ON l.chunk_id = c.id"
                " WHERE l.chunk_id IS NULL OR c.id IS NULL"
            )
            left = await connection.fetchval(f"SELECT count(*) FROM {schema}.term_changes_{number}")
            assert {tuple(row) for row in counted if any(row[1:])} == {
                tuple(row) for row in stored if any(row[1:])
            }
            assert (missing, left) == (0, 0)


class Explained:
    """Be a connection that keeps the plan of the last statement."""

    def __init__(self, connection: Connection) -> None:
        """Take the connection that answers."""
        self._connection = connection
        self.plan = ""

    async def fetch(self, statement: str, *arguments: Any) -> Any:
        """Return what the statement returns."""
        rows = await self._connection.fetch(f"EXPLAIN {statement}", *arguments)
        self.plan = "\n".join(row[0] for row in rows)
        return await self._connection.fetch(statement, *arguments)
