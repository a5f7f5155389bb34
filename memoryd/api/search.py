"""Routes of search."""

from typing import Any

import numpy as np
from aiohttp import web
from pydantic import BaseModel, Field

from memoryd.api import limits
from memoryd.api.bodies import SearchBody, VectorQuery, WithBody, parse, read_json
from memoryd.api.collections import find
from memoryd.api.documents import chunk_as_json
from memoryd.api.errors import json_response
from memoryd.api.paging import read_integer
from memoryd.api.state import MEMORY
from memoryd.documents.types import Collection
from memoryd.errors import InvalidInputError, TooLargeError
from memoryd.memory.search import FoundChunk, Query, Result, Results
from memoryd.memory.search import search as run_search
from memoryd.vectors.types import Vector


class SearchQuery(BaseModel):
    """What to look for, in a query string."""

    q: str = ""
    limit: int = Field(10, ge=1, le=limits.SEARCH_LIMIT)
    offset: int = Field(0, ge=0, le=limits.SEARCH_DEPTH)
    mode: str = "dense"


async def search(request: web.Request) -> web.Response:
    """POST /v1/collections/{collection}/search."""
    return await _search(request, parse(SearchBody, await read_json(request)))


async def search_by_query_string(request: web.Request) -> web.Response:
    """GET /v1/collections/{collection}/search?q=…."""
    fields: dict[str, Any] = {
        "query": request.query.get("q", ""),
        "limit": read_integer(request, "limit", 10, low=1, high=limits.SEARCH_LIMIT),
        "offset": read_integer(request, "offset", 0, low=0, high=limits.SEARCH_DEPTH),
        "mode": request.query.get("mode", "dense"),
    }
    return await _search(request, parse(SearchBody, fields))


async def _search(request: web.Request, body: SearchBody) -> web.Response:
    if body.mode != "dense":
        raise InvalidInputError(f"mode: {body.mode!r} is not served yet, 'dense' is", "mode")
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
    return json_response(_as_json(collection, results, body.with_))


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


def _as_json(collection: Collection, results: Results, wanted: WithBody) -> dict[str, Any]:
    return {
        "results": [_result_as_json(result, wanted) for result in results.results],
        "score_type": "cosine",
        "model": collection.model,
        "plan": {"dense": "exact", "lexical": None},
        "took_ms": round(results.took_ms, 3),
        "next_offset": results.next_offset,
    }


def _result_as_json(result: Result, wanted: WithBody) -> dict[str, Any]:
    document: dict[str, Any] = {"id": result.document.id, "title": result.document.title}
    if wanted.metadata:
        document |= {"metadata": result.document.metadata, "tags": result.document.tags}
    return {
        "document": document,
        "score": result.score,
        "chunks": [_chunk_as_json(found, wanted) for found in result.chunks],
    }


def _chunk_as_json(found: FoundChunk, wanted: WithBody) -> dict[str, Any]:
    chunk = chunk_as_json(found.chunk) | {"score": found.cosine, "cosine": found.cosine}
    if wanted.text:
        chunk["text"] = found.chunk.text
    if wanted.vector:
        chunk["vector"] = found.vector
    return chunk
