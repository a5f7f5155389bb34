"""What searches answer."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from memoryd.api.fields import Numbers
from memoryd.api.search_bodies import SearchBody
from memoryd.api.stored_documents import ChunkPlace, place_of
from memoryd.documents.types import StoredChunk
from memoryd.memory.federation import FederatedResult, FederatedResults
from memoryd.memory.queries import FoundChunk, Plan, Result, Results, ScoreType
from memoryd.storage.dense import DensePlan


class FoundDocument(TypedDict):
    """The document of a result."""

    id: str
    title: str
    metadata: NotRequired[dict[str, Any]]
    tags: NotRequired[list[str]]


class Span(TypedDict):
    """A part of a chunk's text: `text[start:end]`, in code points."""

    start: int
    end: int


class Rank(TypedDict):
    """Where something stands in a ranking, from 1."""

    rank: int


class ScoredRank(Rank):
    """Where something stands in a ranking, from 1, and its score there."""

    score: float


class ChunkExplanation(TypedDict):
    """The rankings that a chunk is in."""

    dense: NotRequired[Rank]
    lexical: NotRequired[Rank]
    rerank: NotRequired[ScoredRank]


class NeighborAnswer(ChunkPlace):
    """A chunk that stands before or after one that was found."""

    text: NotRequired[str]


class FoundChunkAnswer(ChunkPlace):
    """A chunk that was found; higher is better."""

    score: float
    """As `score_type` says."""
    cosine: float
    """To the nearest of the queries."""
    bm25: NotRequired[float]
    """Where it has words of the query."""
    text: NotRequired[str]
    vector: NotRequired[Numbers]
    highlights: NotRequired[list[Span]]
    before: NotRequired[list[NeighborAnswer]]
    after: NotRequired[list[NeighborAnswer]]
    explain: NotRequired[ChunkExplanation]


class ResultAnswer(TypedDict):
    """A document that was found, its best chunks first."""

    document: FoundDocument
    score: float
    chunks: list[FoundChunkAnswer]


class SearchPlan(TypedDict):
    """How it was searched; null: not at all."""

    dense: DensePlan | None
    lexical: Literal["bm25"] | None


class SearchAnswer(TypedDict):
    """What was found, the best first."""

    results: list[ResultAnswer]
    score_type: ScoreType
    model: str
    plan: SearchPlan
    took_ms: float
    timings_ms: NotRequired[dict[str, float]]
    """Of each part that was done."""
    next_offset: int | None


class BatchAnswer(TypedDict):
    """What each search found, in their order."""

    results: list[SearchAnswer]


class SeveralResultAnswer(ResultAnswer):
    """A document that was found in one of several collections."""

    collection: str
    explain: NotRequired[ScoredRank]
    """Its rank and score in its collection."""


class SearchedCollection(TypedDict):
    """How one of several collections was searched."""

    name: str
    score_type: ScoreType
    """Of its chunks, and of its results before all were fused."""
    model: str
    plan: SearchPlan
    took_ms: float
    timings_ms: NotRequired[dict[str, float]]


class SeveralAnswer(TypedDict):
    """What was found in several collections, the best first."""

    results: list[SeveralResultAnswer]
    score_type: Literal["rrf"]
    collections: list[SearchedCollection]
    took_ms: float
    next_offset: int | None


def search_answer(results: Results, body: SearchBody) -> SearchAnswer:
    """Return what is told of a page of one collection."""
    answer: SearchAnswer = {
        "results": [_result_answer(result, body) for result in results.results],
        "score_type": results.score_type,
        "model": results.model,
        "plan": _plan_answer(results.plan),
        "took_ms": round(results.took_ms, 3),
        "next_offset": results.next_offset,
    }
    if body.explain:
        answer["timings_ms"] = _timings_answer(results)
    return answer


def several_answer(found: FederatedResults, body: SearchBody) -> SeveralAnswer:
    """Return what is told of a page of several collections."""
    return {
        "results": [_federated_answer(result, body) for result in found.results],
        "score_type": "rrf",
        "collections": [
            _searched_answer(name, results, body) for name, results in found.collections.items()
        ],
        "took_ms": round(found.took_ms, 3),
        "next_offset": found.next_offset,
    }


def _federated_answer(found: FederatedResult, body: SearchBody) -> SeveralResultAnswer:
    result = _result_answer(found.result, body)
    answer: SeveralResultAnswer = {
        "collection": found.collection,
        "document": result["document"],
        "score": found.score,
        "chunks": result["chunks"],
    }
    if body.explain:
        answer["explain"] = {"rank": found.rank, "score": found.result.score}
    return answer


def _searched_answer(name: str, results: Results, body: SearchBody) -> SearchedCollection:
    answer: SearchedCollection = {
        "name": name,
        "score_type": results.score_type,
        "model": results.model,
        "plan": _plan_answer(results.plan),
        "took_ms": round(results.took_ms, 3),
    }
    if body.explain:
        answer["timings_ms"] = _timings_answer(results)
    return answer


def _plan_answer(plan: Plan) -> SearchPlan:
    return {"dense": plan.dense, "lexical": plan.lexical}


def _timings_answer(results: Results) -> dict[str, float]:
    return {part: round(took_ms, 3) for part, took_ms in results.timings_ms.items()}


def _result_answer(result: Result, body: SearchBody) -> ResultAnswer:
    document: FoundDocument = {"id": result.document.id, "title": result.document.title}
    if body.with_.metadata:
        document["metadata"] = result.document.metadata
        document["tags"] = result.document.tags
    return {
        "document": document,
        "score": result.score,
        "chunks": [_chunk_answer(found, body) for found in result.chunks],
    }


def _chunk_answer(found: FoundChunk, body: SearchBody) -> FoundChunkAnswer:
    chunk: FoundChunkAnswer = {
        **place_of(found.chunk),  # type: ignore[typeddict-item] # the rest may be absent
        "score": found.score,
        "cosine": found.cosine,
    }
    if found.bm25 is not None:
        chunk["bm25"] = found.bm25
    if body.with_.text:
        chunk["text"] = found.chunk.text
    if body.with_.vector:
        chunk["vector"] = found.vector
    if body.with_.highlight:
        chunk["highlights"] = [
            {"start": start, "end": end} for start, end in found.highlights or ()
        ]
    if body.with_.context:
        chunk["before"] = [_neighbor_answer(each, body) for each in found.before]
        chunk["after"] = [_neighbor_answer(each, body) for each in found.after]
    if body.explain:
        chunk["explain"] = _explanation(found)
    return chunk


def _neighbor_answer(chunk: StoredChunk, body: SearchBody) -> NeighborAnswer:
    answer: NeighborAnswer = {**place_of(chunk)}  # type: ignore[typeddict-item] # it has no text
    if body.with_.text:
        answer["text"] = chunk.text
    return answer


def _explanation(found: FoundChunk) -> ChunkExplanation:
    explanation: ChunkExplanation = {}
    for arm, rank in found.ranks.items():
        explanation[arm] = {"rank": rank}
    if found.rerank_rank is not None:
        explanation["rerank"] = {"rank": found.rerank_rank, "score": found.score}
    return explanation
