"""Find chunks by meaning, grouped by document."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from memoryd.documents.types import Collection, Document, StoredChunk
from memoryd.errors import InvalidInputError
from memoryd.memory.collections import with_current
from memoryd.memory.state import Memory
from memoryd.storage import chunks as storage_chunks
from memoryd.storage import collections, documents, vectors
from memoryd.storage.database import Connection
from memoryd.storage.vectors import Match
from memoryd.vectors.similarity import shorten
from memoryd.vectors.types import Vector


@dataclass(frozen=True)
class Query:
    """Say what to look for; `vector` (dimensions,) is searched instead of `text` if given."""

    text: str = ""
    vector: Vector | None = None
    limit: int = 10
    offset: int = 0
    score_threshold: float | None = None
    group_size: int | None = 3
    """Most chunks per document; None for one result per chunk."""
    with_vectors: bool = False
    instruction: str | None = None
    """What the query is for, where the model takes that."""


@dataclass(frozen=True)
class FoundChunk:
    """Be a chunk that was found, and how near it is."""

    chunk: StoredChunk
    cosine: float
    vector: Vector | None = None


@dataclass(frozen=True)
class Result:
    """Be a document that was found, its best chunks first."""

    document: Document
    chunks: list[FoundChunk]

    @property
    def score(self) -> float:
        """The best chunk's."""
        return self.chunks[0].cosine


@dataclass(frozen=True)
class Results:
    """Be one page of what was found."""

    results: list[Result]
    next_offset: int | None
    took_ms: float
    model: str
    """Whose vectors were searched."""


@dataclass(frozen=True)
class _Scope:
    """Hold what one search works with; the connection sees one snapshot."""

    connection: Connection
    collection: Collection
    query: Query
    vector: Vector

    def is_near_enough(self, cosine: float) -> bool:
        threshold = self.query.score_threshold
        return threshold is None or cosine >= threshold


async def search(memory: Memory, collection: Collection, query: Query) -> Results:
    """Return the documents whose chunks are nearest to the query, nearest first.

    A document that is replaced meanwhile is found old or new, never half; so is a collection whose
    model is. Raises NotFoundError where the collection is deleted meanwhile, InvalidInputError for
    a vector of another width, and what the engine raises.
    """
    return await with_current(memory, collection, partial(_search, memory, query))


async def _search(memory: Memory, query: Query, collection: Collection) -> Results:
    started = time.perf_counter()
    vector = await _query_vector(memory, collection, query)
    end = query.offset + query.limit
    async with memory.database.snapshot() as connection:
        await collections.keep(connection, collection)
        scope = _Scope(connection, collection, query, vector)
        if query.group_size is None:  # one result per chunk
            groups = await _nearest_chunks(scope, end + 1)
        else:
            groups = await _nearest_documents(scope, end + 1, query.group_size)
        results = await _fetch(scope, groups[query.offset : end])
    took_ms = (time.perf_counter() - started) * 1000
    next_offset = end if len(groups) > end else None
    return Results(results, next_offset, took_ms, collection.model)


async def search_chunks(
    memory: Memory,
    collection: Collection,
    texts: Sequence[str],
    *,
    limit: int,
    score_threshold: float | None = None,
) -> list[Result]:
    """Return up to `limit` chunks that are nearest to any of `texts`, nearest first.

    Each is a result of its own, and stands where the text that it is nearest to puts it: cosines of
    one model can be compared. Raises what `search` raises.
    """
    best: dict[str, Result] = {}
    for text in texts:
        query = Query(text=text, limit=limit, score_threshold=score_threshold, group_size=None)
        for result in (await search(memory, collection, query)).results:
            chunk_id = result.chunks[0].chunk.id
            if chunk_id not in best or result.score > best[chunk_id].score:
                best[chunk_id] = result
    return sorted(best.values(), key=lambda result: -result.score)[:limit]


async def _query_vector(memory: Memory, collection: Collection, query: Query) -> Vector:
    if query.vector is not None:
        _check_width(collection, query.vector)
        return query.vector
    instruction = query.instruction or collection.active.instruction
    async with memory.engine.pinning(collection.model) as model:
        vectors = await model.embed_query(query.text, instruction)
    vector: Vector = shorten(vectors, collection.dimensions)[0]
    return vector


def _check_width(collection: Collection, vector: Vector) -> None:
    if len(vector) != collection.dimensions:
        raise InvalidInputError(
            f"query.vector has {len(vector)} numbers, the collection {collection.dimensions}",
            "query.vector",
        )


async def _nearest_chunks(scope: _Scope, wanted: int) -> list[list[Match]]:
    found = await vectors.nearest_chunks(scope.connection, scope.collection, scope.vector, wanted)
    return [[match] for match in found if scope.is_near_enough(match.cosine)]


async def _nearest_documents(scope: _Scope, wanted: int, group_size: int) -> list[list[Match]]:
    """Return up to `wanted` documents, each as its best chunks; only the page has them."""
    query = scope.query
    found = await vectors.nearest_documents(
        scope.connection, scope.collection, scope.vector, wanted
    )
    order = [document.number for document in found if scope.is_near_enough(document.cosine)]
    page = order[query.offset : query.offset + query.limit]
    matches = await vectors.nearest_in_documents(
        scope.connection, scope.collection, scope.vector, page, group_size
    )
    groups: dict[int, list[Match]] = {number: [] for number in order}
    for match in matches:
        if scope.is_near_enough(match.cosine):
            groups[match.document_number].append(match)
    return list(groups.values())


async def _fetch(scope: _Scope, groups: list[list[Match]]) -> list[Result]:
    connection, collection = scope.connection, scope.collection
    numbers = [match.chunk_number for group in groups for match in group]
    chunks = await storage_chunks.find_chunks(connection, collection, numbers)
    found = await documents.find_documents(
        connection, collection, [group[0].document_number for group in groups]
    )
    embedded = (
        await vectors.find_vectors(connection, collection, numbers)
        if scope.query.with_vectors
        else {}
    )
    return [
        Result(
            found[group[0].document_number],
            [
                FoundChunk(chunks[m.chunk_number], m.cosine, embedded.get(m.chunk_number))
                for m in group
            ],
        )
        for group in groups
    ]
