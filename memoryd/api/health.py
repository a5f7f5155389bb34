"""Is it alive, is it ready, what are its limits."""

import asyncio
from typing import Literal

from aiohttp import web
from typing_extensions import TypedDict

from memoryd import __version__
from memoryd.api import limits
from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.documents import boosts, filters, indexed_fields
from memoryd.errors import UnavailableError
from memoryd.storage.idempotency import KEPT_FOR_H

# Whoever asks whether all is ready, a container's health check say, doesn't wait for long.
_PATIENCE_S = 2.0


class AliveAnswer(TypedDict):
    """It is there."""

    status: Literal["ok"]
    version: str


class Checks(TypedDict):
    """What each part says: "ok", or what is wrong with it."""

    database: str
    model: str


class ReadyAnswer(TypedDict):
    """Whether it serves."""

    status: Literal["ok", "unavailable"]
    checks: Checks


class LimitsAnswer(TypedDict):
    """How much requests may ask."""

    body_bytes: int
    line_bytes: int
    """Of NDJSON, whose body has no limit as a whole."""
    form_field_bytes: int
    """Of a form's field that is no file; each file has that of a body."""
    text_chars: int
    chunks: int
    """Of a document whose client makes them."""
    documents_per_batch: int
    embedding_inputs: int
    waiting_requests: int
    wait_s: int
    """How long a request can wait for its documents to be stored."""
    idempotency_key_chars: int
    idempotency_key_hours: int
    """How long an answer is kept for a request that is sent again."""
    id_chars: int
    title_chars: int
    mime_type_chars: int
    metadata_bytes: int
    metadata_depth: int
    json_values: int
    """Of any body: each number, text, list or object counts."""
    tags: int
    tag_chars: int
    page: int
    search_limit: int
    search_offset_plus_limit: int
    search_offset_plus_limit_of_several: int
    """Where several collections are searched."""
    search_queries: int
    """Of one search."""
    search_collections: int
    searches_per_batch: int
    search_context: int
    """Chunks before, and after, each one that is found."""
    search_candidates: int
    """That are reranked, or that MMR chooses from."""
    search_fusion_k: int
    search_fusion_weight: int
    search_ef_search: int
    search_boosts: int
    search_group_size: int
    vector_dimensions: int
    filter_depth: int
    filter_conditions: int
    filter_values: int
    """In a list."""
    index_fields: int
    """Whose comparisons have an index."""
    index_m: int
    index_ef_construction: int
    key_name_chars: int
    key_collections: int


async def root(_request: web.Request) -> web.Response:
    """Answer as Ollama does: its clients ask this to see whether the server is there."""
    return web.Response(text="Ollama is running")


async def alive(_request: web.Request) -> web.Response:
    """Answer without touching anything."""
    answer: AliveAnswer = {"status": "ok", "version": __version__}
    return json_response(answer)


async def ready(request: web.Request) -> web.Response:
    """Answer 200 when database and default model serve, else 503 naming what doesn't."""
    memory = request.app[MEMORY]
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await memory.database.ping()
    except (UnavailableError, TimeoutError) as error:
        return _not_ready(database=str(error) or "no answer in time", model="unknown")
    if not memory.engine.is_loaded(memory.engine.resolve(memory.settings.model)):
        return _not_ready(database="ok", model="loading")
    answer: ReadyAnswer = {"status": "ok", "checks": {"database": "ok", "model": "ok"}}
    return json_response(answer)


def _not_ready(database: str, model: str) -> web.Response:
    checks: Checks = {"database": database, "model": model}
    answer: ReadyAnswer = {"status": "unavailable", "checks": checks}
    return json_response(answer, status=503)


async def show_limits(request: web.Request) -> web.Response:
    """Answer the limits in force."""
    settings = request.app[MEMORY].settings
    answer: LimitsAnswer = {
        "body_bytes": settings.max_body_bytes,
        "line_bytes": limits.LINE_BYTES,
        "form_field_bytes": limits.FORM_FIELD_BYTES,
        "text_chars": settings.max_text_chars,
        "chunks": limits.CHUNKS,
        "documents_per_batch": settings.max_documents,
        "embedding_inputs": settings.max_inputs,
        "waiting_requests": settings.max_waiting_requests,
        "wait_s": limits.WAIT_S,
        "idempotency_key_chars": limits.IDEMPOTENCY_KEY_CHARS,
        "idempotency_key_hours": KEPT_FOR_H,
        "id_chars": limits.ID_CHARS,
        "title_chars": limits.TITLE_CHARS,
        "mime_type_chars": limits.MIME_TYPE_CHARS,
        "metadata_bytes": limits.METADATA_BYTES,
        "metadata_depth": limits.METADATA_DEPTH,
        "json_values": limits.JSON_VALUES,
        "tags": limits.TAGS,
        "tag_chars": limits.TAG_CHARS,
        "page": limits.PAGE,
        "search_limit": limits.SEARCH_LIMIT,
        "search_offset_plus_limit": limits.SEARCH_DEPTH,
        "search_offset_plus_limit_of_several": limits.SEVERAL_DEPTH,
        "search_queries": limits.QUERIES,
        "search_collections": limits.SEARCH_COLLECTIONS,
        "searches_per_batch": limits.SEARCHES,
        "search_context": limits.CONTEXT,
        "search_candidates": limits.CANDIDATES,
        "search_fusion_k": limits.FUSION_K,
        "search_fusion_weight": limits.FUSION_WEIGHT,
        "search_ef_search": limits.EF_SEARCH,
        "search_boosts": boosts.MAX_BOOSTS,
        "search_group_size": limits.GROUP_SIZE,
        "vector_dimensions": limits.VECTOR_DIMENSIONS,
        "filter_depth": filters.MAX_DEPTH,
        "filter_conditions": filters.MAX_CONDITIONS,
        "filter_values": filters.MAX_VALUES,
        "index_fields": indexed_fields.MAX_FIELDS,
        "index_m": limits.INDEX_M,
        "index_ef_construction": limits.INDEX_EF_CONSTRUCTION,
        "key_name_chars": limits.KEY_NAME_CHARS,
        "key_collections": limits.KEY_COLLECTIONS,
    }
    return json_response(answer)
