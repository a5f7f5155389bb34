"""Find chunks by meaning, grouped by document."""

import time
from dataclasses import dataclass

from memoryd.documents.types import Collection, Document, StoredChunk
from memoryd.memory.state import Memory
from memoryd.storage import documents, vectors
from memoryd.storage.vectors import Match, Vector
from memoryd.vectors.similarity import shorten

# Chunks looked at per document wanted, at first: most documents are found by a few.
_CHUNKS_PER_DOCUMENT = 4


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


async def search(memory: Memory, collection: Collection, query: Query) -> Results:
    """Return the documents whose chunks are nearest to the query, nearest first.

    Raises NotFoundError where the collection is deleted meanwhile, and what the engine raises.
    """
    started = time.perf_counter()
    vector = await _query_vector(memory, collection, query)
    if query.group_size is None:
        groups = await _nearest_chunks(memory, collection, query, vector)
    else:
        groups = await _nearest_documents(memory, collection, query, vector, query.group_size)
    page = groups[query.offset : query.offset + query.limit]
    end = query.offset + query.limit
    results = await _fetch(memory, collection, page, with_vectors=query.with_vectors)
    return Results(
        results,
        end if len(groups) > end else None,
        (time.perf_counter() - started) * 1000,
    )


async def _query_vector(memory: Memory, collection: Collection, query: Query) -> Vector:
    if query.vector is not None:
        return query.vector
    model = await memory.engine.model(collection.model)
    vector: Vector = shorten(await model.embed_query(query.text), collection.dimensions)[0]
    return vector


async def _nearest_chunks(
    memory: Memory, collection: Collection, query: Query, vector: Vector
) -> list[list[Match]]:
    """Return one group per chunk, and one beyond the page if there is one."""
    wanted = query.offset + query.limit + 1
    found = await vectors.nearest_chunks(memory.database, collection, vector, wanted)
    return [[match] for match in _near_enough(found, query)]


async def _nearest_documents(
    memory: Memory, collection: Collection, query: Query, vector: Vector, group_size: int
) -> list[list[Match]]:
    """Return one group per document, best chunk first, and one beyond the page if there is one."""
    wanted = query.offset + query.limit + 1
    order = await _documents_in_order(memory, collection, query, vector, wanted)
    page = order[query.offset : query.offset + query.limit]
    matches = await vectors.nearest_in_documents(
        memory.database, collection, vector, page, group_size
    )
    groups: dict[int, list[Match]] = {number: [] for number in order}
    for match in _near_enough(matches, query):
        groups[match.document_number].append(match)
    return list(groups.values())


async def _documents_in_order(
    memory: Memory, collection: Collection, query: Query, vector: Vector, wanted: int
) -> list[int]:
    """Return the numbers of up to `wanted` documents by their nearest chunk."""
    limit = wanted * _CHUNKS_PER_DOCUMENT
    while True:
        found = await vectors.nearest_chunks(memory.database, collection, vector, limit)
        near = _near_enough(found, query)
        order = list(dict.fromkeys(match.document_number for match in near))
        if len(order) >= wanted or len(near) < limit:
            return order[:wanted]
        limit *= _CHUNKS_PER_DOCUMENT


def _near_enough(matches: list[Match], query: Query) -> list[Match]:
    if query.score_threshold is None:
        return matches
    return [match for match in matches if match.cosine >= query.score_threshold]


async def _fetch(
    memory: Memory, collection: Collection, groups: list[list[Match]], *, with_vectors: bool
) -> list[Result]:
    matches = [match for group in groups for match in group]
    numbers = [match.chunk_number for match in matches]
    chunks = await documents.find_chunks(memory.database, collection, numbers)
    found = await documents.find_documents(
        memory.database, collection, list({match.document_number for match in matches})
    )
    embedded = (
        await vectors.find_vectors(memory.database, collection, numbers) if with_vectors else {}
    )
    results = []
    for group in groups:
        # What was deleted since it was found is left out.
        kept = [
            FoundChunk(chunks[m.chunk_number], m.cosine, embedded.get(m.chunk_number))
            for m in group
            if m.chunk_number in chunks and m.document_number in found
        ]
        if kept:
            results.append(Result(found[group[0].document_number], kept))
    return results
