"""Find what is like a query: by meaning, by words, or by both; grouped by document."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import numpy as np

from memoryd.documents.filters import Filter
from memoryd.documents.types import Collection
from memoryd.errors import InvalidInputError, NotFoundError
from memoryd.memory.collections import with_current
from memoryd.memory.excerpts import add_context, highlight
from memoryd.memory.queries import (
    ChunkQuery,
    DocumentQuery,
    FoundChunk,
    Mmr,
    Query,
    QueryInput,
    Rerank,
    Result,
    Results,
    TextQuery,
    VectorQuery,
)
from memoryd.memory.reranking import rerank_texts
from memoryd.memory.retrieval import Found, Probe, Scope, retrieve
from memoryd.memory.state import Memory
from memoryd.memory.timings import Timings
from memoryd.storage import collections
from memoryd.storage.database import PLAN_ONCE, Connection
from memoryd.storage.dense import find_vectors, mean_vector
from memoryd.storage.documents import find_number
from memoryd.storage.filters import PLAN_FOR_ARGUMENTS
from memoryd.storage.found_chunks import FoundRow, fetch_found
from memoryd.storage.lexical_search import (
    LexicalQuery,
    analyze,
    score_chunks,
    score_documents,
)
from memoryd.vectors.diversity import diversify
from memoryd.vectors.similarity import normalize, shorten
from memoryd.vectors.types import Vector, Vectors

# Else the places of a common word's chunks would be kept by page, and each page's be compared.
_WORK_MEM = "32MB"
_CHUNK_ID = re.compile(r"c(\d{1,18})", re.ASCII)


async def search(memory: Memory, collection: Collection, query: Query) -> Results:
    """Return the documents whose chunks match the query best, best first.

    A document that is replaced meanwhile is found old or new, never half; so is a collection whose
    model is. Raises NotFoundError where the collection is deleted meanwhile or a stored document
    or chunk to search with isn't there, InvalidInputError for a vector of another width, and what
    the engine raises.
    """
    return await with_current(memory, collection, partial(_search, memory, query))


async def _search(memory: Memory, query: Query, collection: Collection) -> Results:
    timings = Timings()
    texts = await _read_texts(memory, collection, query, timings)
    async with memory.database.snapshot(*_opening(collection, query)) as connection:
        probes = [await _probe(connection, collection, each, texts) for each in query.inputs]
        scope = Scope(connection, collection, query, probes, timings)
        found = await retrieve(scope, _wanted(query))
        with timings.of("fetch"):
            results = await _fetch(scope, found)
    page, has_more = results, len(found.scores) > query.end
    if query.is_chosen:
        chosen = await _choose(memory, query, results, timings)
        page, has_more = chosen[query.offset : query.end], len(chosen) > query.end
    if query.contents.highlight:
        with timings.of("highlight"):
            page = await highlight(memory, collection, probes, page)
    return Results(
        page,
        next_offset=query.end if has_more else None,
        score_type="rerank" if query.rerank else found.score_type,
        model=collection.model,
        plan=found.plan,
        timings_ms=timings.parts_ms,
        took_ms=timings.total_ms(),
    )


async def search_chunks(
    memory: Memory,
    collection: Collection,
    texts: Sequence[str],
    *,
    limit: int,
    score_threshold: float | None = None,
    wanted: Filter | None = None,
) -> list[Result]:
    """Return up to `limit` chunks that are nearest to any of `texts`, nearest first.

    Each is a result of its own, and stands where the text that it is nearest to puts it: cosines of
    one model can be compared. Raises what `search` raises.
    """
    best: dict[str, Result] = {}
    for text in texts:
        query = Query(
            (TextQuery(text),),
            "dense",
            limit=limit,
            wanted=wanted,
            score_threshold=score_threshold,
            group_size=None,
        )
        for result in (await search(memory, collection, query)).results:
            chunk_id = result.chunks[0].chunk.id
            if chunk_id not in best or result.score > best[chunk_id].score:
                best[chunk_id] = result
    return sorted(best.values(), key=lambda result: -result.score)[:limit]


def _opening(collection: Collection, query: Query) -> list[str]:
    """Return what a search's transaction begins with."""
    return [
        collections.keep(collection),
        f"SET LOCAL work_mem = '{_WORK_MEM}'",
        PLAN_FOR_ARGUMENTS if query.wanted else PLAN_ONCE,
    ]


# --- What is looked for --------------------------------------------------------------------------


async def _read_texts(
    memory: Memory, collection: Collection, query: Query, timings: Timings
) -> dict[str, Probe]:
    """Return the probes of the inputs that are texts: embedded, and their words looked up.

    Both at once: an embedding takes longer, and no connection is held for it.
    """
    if not query.texts:
        return {}

    async def embed() -> Vectors:
        instruction = query.instruction or collection.active.instruction
        with timings.of("embed"):
            vectors = await memory.query_vectors.get_many(
                memory.engine, collection.model, query.texts, instruction
            )
        return shorten(np.stack(vectors), collection.dimensions)

    async def look_up() -> list[LexicalQuery]:
        with timings.of("analyze"):
            async with memory.database.snapshot(PLAN_ONCE) as connection:
                return [await analyze(connection, collection, text) for text in query.texts]

    vectors, words = await asyncio.gather(embed(), look_up())
    if any(each.uncounted for each in words):
        memory.statistics.note(collection.number)
    return dict(zip(query.texts, map(Probe, vectors, words), strict=True))


async def _probe(
    connection: Connection,
    collection: Collection,
    wanted: QueryInput,
    texts: Mapping[str, Probe],
) -> Probe:
    match wanted:
        case TextQuery(text):
            return texts[text]
        case VectorQuery(vector):
            _check_width(collection, vector)
            return Probe(vector)
        case DocumentQuery(external_id):
            return await _probe_document(connection, collection, external_id)
        case ChunkQuery(chunk_id):
            return await _probe_chunk(connection, collection, chunk_id)


def _check_width(collection: Collection, vector: Vector) -> None:
    if len(vector) != collection.dimensions:
        raise InvalidInputError(
            f"query.vector has {len(vector)} numbers, the collection {collection.dimensions}",
            "query.vector",
        )


async def _probe_document(
    connection: Connection, collection: Collection, external_id: str
) -> Probe:
    number = await find_number(connection, collection, external_id)
    vector = None if number is None else await mean_vector(connection, collection, number)
    if vector is None:
        raise NotFoundError(
            f"query.document: there is no stored document {external_id!r} with chunks",
            "query.document",
        )
    return Probe(vector, own_document=number)


async def _probe_chunk(connection: Connection, collection: Collection, chunk_id: str) -> Probe:
    match = _CHUNK_ID.fullmatch(chunk_id)
    number = int(match[1]) if match else 0
    vector = (await find_vectors(connection, collection, [number])).get(number)
    if vector is None:
        raise NotFoundError(f"query.chunk: there is no chunk {chunk_id!r}", "query.chunk")
    return Probe(vector, own_chunk=number)


def _wanted(query: Query) -> int:
    """Return how many results must be found to choose the page from."""
    if query.rerank:
        return query.rerank.candidates
    return query.mmr.candidates if query.mmr else query.end + 1


# --- What is shown of it -------------------------------------------------------------------------


async def _fetch(scope: Scope, found: Found) -> list[Result]:
    """Return the page, or all that it is chosen from."""
    query = scope.query
    start, stop = (0, _wanted(query)) if query.is_chosen else (query.offset, query.end)
    shown = list(found.scores)[start:stop]
    if not shown:
        return []
    words = await _score_words(scope, shown)
    rows = await _fetch_rows(scope, found, shown, words)
    chunks = await _describe_chunks(scope, found, rows, words)
    groups = _group(scope, found, shown, chunks)
    documents = {row.document.number: row.document for row in rows}
    results = [
        Result(documents[group[0].chunk.document_number], found.scores[key], group)
        for key, group in groups.items()
    ]
    if query.contents.context:
        return await add_context(scope, results)
    return results


async def _score_words(scope: Scope, shown: Sequence[int]) -> dict[int, tuple[int, float]]:
    """Return document and bm25 of the chunks of what is shown that have words of the query.

    They come best first; where several texts are looked for, each has the best of its scores.
    """
    score = score_chunks if scope.query.group_size is None else score_documents
    best: dict[int, tuple[int, float]] = {}
    for probe in scope.probes:
        if probe.words is None:
            continue
        ranking = await score(scope.connection, scope.collection, probe.words, shown)
        columns = (ranking.chunks.tolist(), ranking.documents.tolist(), ranking.scores.tolist())
        for chunk, document, bm25 in zip(*columns, strict=True):
            if chunk not in best or bm25 > best[chunk][1]:
                best[chunk] = (document, bm25)
    return dict(sorted(best.items(), key=lambda item: (-item[1][1], item[0])))


async def _fetch_rows(
    scope: Scope, found: Found, shown: Sequence[int], words: Mapping[int, tuple[int, float]]
) -> list[FoundRow]:
    """Return what is shown: of documents the chunks that were found, then others that match."""
    vectors = [probe.vector for probe in scope.probes]
    size = scope.query.group_size
    if size is None:
        return await fetch_found(scope.connection, scope.collection, vectors, shown)
    wordy = {} if scope.query.mode == "dense" else {at: each[0] for at, each in words.items()}
    places: dict[int, set[int]] = {number: set() for number in shown}
    for chunk, document in chain(found.documents.items(), wordy.items()):
        if document in places and len(places[document]) < size:
            places[document].add(chunk)
    return await fetch_found(
        scope.connection,
        scope.collection,
        vectors,
        list(chain.from_iterable(places.values())),
        documents=shown,
        nearest=0 if scope.query.mode == "lexical" else size,
    )


async def _describe_chunks(
    scope: Scope,
    found: Found,
    rows: Sequence[FoundRow],
    words: Mapping[int, tuple[int, float]],
) -> list[FoundChunk]:
    numbers = [row.chunk.number for row in rows]
    wants_vectors = scope.query.contents.vector or scope.query.mmr is not None
    vectors = (
        await find_vectors(scope.connection, scope.collection, numbers) if wants_vectors else {}
    )
    return [
        _describe_chunk(
            found, row, words.get(row.chunk.number, (0, None))[1], vectors.get(row.chunk.number)
        )
        for row in rows
    ]


def _describe_chunk(
    found: Found, row: FoundRow, bm25: float | None, vector: Vector | None
) -> FoundChunk:
    number = row.chunk.number
    # A chunk that no arm has among its best is shown for the document, which has others.
    own = {"cosine": row.cosine, "bm25": bm25 or 0.0}.get(found.score_type, 0.0)
    return FoundChunk(
        row.chunk,
        score=found.chunks.get(number, own),
        cosine=row.cosine,
        bm25=bm25,
        ranks={name: ranks[number] for name, ranks in found.ranks.items() if number in ranks},
        vector=vector,
    )


def _group(
    scope: Scope,
    found: Found,
    shown: Sequence[int],
    chunks: Sequence[FoundChunk],
) -> dict[int, list[FoundChunk]]:
    """Return the chunks of each of `shown`, best first."""
    size = scope.query.group_size
    groups: dict[int, list[FoundChunk]] = {key: [] for key in shown}
    for chunk in sorted(chunks, key=lambda each: (-each.score, -each.cosine, each.chunk.number)):
        key = chunk.chunk.number if size is None else chunk.chunk.document_number
        if (size is None or len(groups[key]) < size) and _may_be_shown(scope, found, chunk):
            groups[key].append(chunk)
    return groups


def _may_be_shown(scope: Scope, found: Found, chunk: FoundChunk) -> bool:
    """Say whether a chunk of a document that was found is near enough to be shown with it."""
    if chunk.chunk.number in found.chunks:
        return True
    if any(probe.own_chunk == chunk.chunk.number for probe in scope.probes):
        return False
    threshold = scope.query.score_threshold
    if threshold is None or scope.query.rerank is not None:
        return True
    return (chunk.score if scope.query.mode == "lexical" else chunk.cosine) >= threshold


# --- What is chosen from it ----------------------------------------------------------------------


async def _choose(
    memory: Memory, query: Query, results: list[Result], timings: Timings
) -> list[Result]:
    """Return candidates in the order that reranking and diversity give them."""
    if query.rerank:
        with timings.of("rerank"):
            results = await _rerank(memory, query, query.rerank, results)
    if query.mmr:
        with timings.of("mmr"):
            results = _diversify(query, query.mmr, results)
    return results if query.contents.vector else [_without_vectors(result) for result in results]


async def _rerank(
    memory: Memory, query: Query, rerank: Rerank, candidates: Sequence[Result]
) -> list[Result]:
    chunks = [found for result in candidates for found in result.chunks]
    _, scores = await rerank_texts(
        memory, rerank.model, "\n".join(query.texts), [each.chunk.text for each in chunks]
    )
    order = np.argsort(-scores, kind="stable").tolist()
    ranked = {
        chunks[at].chunk.number: replace(chunks[at], score=float(scores[at]), rerank_rank=rank)
        for rank, at in enumerate(order, start=1)
    }
    reranked = [_reranked(result, ranked) for result in candidates]
    if query.score_threshold is not None:
        reranked = [each for each in reranked if each.score >= query.score_threshold]
    return sorted(reranked, key=lambda result: -result.score)


def _reranked(result: Result, ranked: dict[int, FoundChunk]) -> Result:
    chunks = [ranked[each.chunk.number] for each in result.chunks]
    chunks.sort(key=lambda each: -each.score)
    return Result(result.document, chunks[0].score, chunks)


def _diversify(query: Query, mmr: Mmr, results: Sequence[Result]) -> list[Result]:
    candidates = results[: mmr.candidates]
    if not candidates:
        return []
    order = diversify(
        np.array([result.score for result in candidates]),
        normalize(np.stack([_vector_of(result.chunks[0]) for result in candidates])),
        mmr.diversity,
        query.end + 1,  # one more tells that there is another page
    )
    return [candidates[at] for at in order]


def _vector_of(found: FoundChunk) -> Vector:
    assert found.vector is not None  # noqa: S101 - fetched for mmr
    return found.vector


def _without_vectors(result: Result) -> Result:
    return replace(result, chunks=[replace(each, vector=None) for each in result.chunks])
