"""Routes of search."""

from typing import Annotated, Any, Literal, NotRequired

import numpy as np
from aiohttp import web
from pydantic import Discriminator, Field, Tag
from typing_extensions import TypedDict

from memoryd.api import limits
from memoryd.api.bodies import ALTERNATIVE, Body, parse, read_json
from memoryd.api.collections import find
from memoryd.api.errors import json_response
from memoryd.api.fields import NotBlank, Numbers
from memoryd.api.queries import Query as QueryString
from memoryd.api.queries import Whole, read_query
from memoryd.api.state import MEMORY
from memoryd.api.stored_documents import ChunkPlace, place_of
from memoryd.documents.types import Collection
from memoryd.errors import InvalidInputError, TooLargeError
from memoryd.memory.search import FoundChunk, Query, Result, Results
from memoryd.memory.search import search as run_search
from memoryd.vectors.types import Vector


class VectorQuery(Body):
    """A vector to search with."""

    vector: list[float] = Field(min_length=1, max_length=limits.VECTOR_DIMENSIONS)


class WithBody(Body):
    """What results carry beside ids and scores."""

    text: bool = True
    metadata: bool = True
    vector: bool = False


def _kind_of_query(value: Any) -> str:
    return f"{ALTERNATIVE}vector" if isinstance(value, dict) else f"{ALTERNATIVE}text"


class SearchBody(Body):
    """What to look for."""

    query: Annotated[
        Annotated[NotBlank, Tag(f"{ALTERNATIVE}text")]
        | Annotated[VectorQuery, Tag(f"{ALTERNATIVE}vector")],
        Discriminator(_kind_of_query),
    ]
    mode: Literal["dense"] = "dense"
    limit: int = Field(10, ge=1, le=limits.SEARCH_LIMIT)
    offset: int = Field(0, ge=0)
    score_threshold: float | None = Field(None, ge=-1, le=1)
    group_by: Literal["document"] | None = "document"
    group_size: int = Field(3, ge=1, le=limits.GROUP_SIZE)
    instruction: NotBlank | None = None
    with_: WithBody = Field(default_factory=WithBody, alias="with")


class SearchQuery(QueryString):
    """What to look for, in a query string."""

    q: NotBlank = Field(description="What to look for.")
    limit: Whole = Field(10, ge=1, le=limits.SEARCH_LIMIT)
    offset: Whole = Field(0, ge=0, le=limits.SEARCH_DEPTH)
    mode: Literal["dense"] = "dense"


class FoundDocument(TypedDict):
    """The document of a result."""

    id: str
    title: str
    metadata: NotRequired[dict[str, Any]]
    tags: NotRequired[list[str]]


class FoundChunkAnswer(ChunkPlace):
    """A chunk that was found; higher is better."""

    score: float
    cosine: float
    text: NotRequired[str]
    vector: NotRequired[Numbers]


class ResultAnswer(TypedDict):
    """A document that was found, its best chunks first."""

    document: FoundDocument
    score: float
    chunks: list[FoundChunkAnswer]


class SearchPlan(TypedDict):
    """How it was searched."""

    dense: Literal["exact"]
    lexical: None


class SearchAnswer(TypedDict):
    """What was found, the best first."""

    results: list[ResultAnswer]
    score_type: Literal["cosine"]
    model: str
    plan: SearchPlan
    took_ms: float
    next_offset: int | None


async def search(request: web.Request) -> web.Response:
    """Find the documents whose chunks are nearest to a text or a vector."""
    return await _search(request, parse(SearchBody, await read_json(request)))


async def search_by_query_string(request: web.Request) -> web.Response:
    """Find the documents whose chunks are nearest to a text."""
    query = read_query(request, SearchQuery)
    fields = query.model_dump(exclude={"q"}) | {"query": query.q}
    return await _search(request, parse(SearchBody, fields))


async def _search(request: web.Request, body: SearchBody) -> web.Response:
    if body.offset + body.limit > limits.SEARCH_DEPTH:
        raise TooLargeError(f"offset + limit can be {limits.SEARCH_DEPTH} at most", "offset")
    if body.instruction and isinstance(body.query, VectorQuery):
        raise InvalidInputError("instruction goes with a query that is text", "instruction")
    collection = await find(request)
    query = Query(
        text=body.query if isinstance(body.query, str) else "",
        vector=_vector(collection, body.query) if isinstance(body.query, VectorQuery) else None,
        limit=body.limit,
        offset=body.offset,
        score_threshold=body.score_threshold,
        group_size=body.group_size if body.group_by else None,
        with_vectors=body.with_.vector,
        instruction=body.instruction,
    )
    results = await run_search(request.app[MEMORY], collection, query)
    return json_response(_answer(results, body.with_))


def _vector(collection: Collection, query: VectorQuery) -> Vector:
    vector = np.asarray(query.vector, dtype=np.float64)
    if len(vector) != collection.dimensions:
        raise InvalidInputError(
            f"query.vector has {len(vector)} numbers, the collection {collection.dimensions}",
            "query.vector",
        )
    if not np.isfinite(vector).all() or not vector.any():
        raise InvalidInputError("query.vector must be finite and not zero", "query.vector")
    # A cosine doesn't ask for the length, but a column of half precision has little range.
    vector /= np.abs(vector).max()
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def _answer(results: Results, wanted: WithBody) -> SearchAnswer:
    return {
        "results": [_result_answer(result, wanted) for result in results.results],
        "score_type": "cosine",
        "model": results.model,
        "plan": {"dense": "exact", "lexical": None},
        "took_ms": round(results.took_ms, 3),
        "next_offset": results.next_offset,
    }


def _result_answer(result: Result, wanted: WithBody) -> ResultAnswer:
    document: FoundDocument = {"id": result.document.id, "title": result.document.title}
    if wanted.metadata:
        document["metadata"] = result.document.metadata
        document["tags"] = result.document.tags
    return {
        "document": document,
        "score": result.score,
        "chunks": [_chunk_answer(found, wanted) for found in result.chunks],
    }


def _chunk_answer(found: FoundChunk, wanted: WithBody) -> FoundChunkAnswer:
    chunk: FoundChunkAnswer = {
        **place_of(found.chunk),  # type: ignore[typeddict-item] # it has no text and no vector
        "score": found.cosine,
        "cosine": found.cosine,
    }
    if wanted.text:
        chunk["text"] = found.chunk.text
    if wanted.vector:
        chunk["vector"] = found.vector
    return chunk
