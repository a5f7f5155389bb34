"""Is it alive, is it ready, what are its limits."""

import asyncio

from aiohttp import web

from memoryd import __version__
from memoryd.api import limits
from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.errors import UnavailableError

# Whoever asks whether all is ready, a container's health check say, doesn't wait for long.
_PATIENCE_S = 2.0


async def root(_request: web.Request) -> web.Response:
    """Answer as Ollama does: its clients ask this to see whether the server is there."""
    return web.Response(text="Ollama is running")


async def alive(_request: web.Request) -> web.Response:
    """Answer without touching anything."""
    return json_response({"status": "ok", "version": __version__})


async def ready(request: web.Request) -> web.Response:
    """Answer 200 when database and default model serve, else 503 naming what doesn't."""
    memory = request.app[MEMORY]
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await memory.database.ping()
    except (UnavailableError, TimeoutError) as error:
        checks = {"database": str(error) or "no answer in time", "model": "unknown"}
        return json_response({"status": "unavailable", "checks": checks}, status=503)
    if not memory.engine.is_loaded(memory.engine.resolve(memory.settings.model)):
        checks = {"database": "ok", "model": "loading"}
        return json_response({"status": "unavailable", "checks": checks}, status=503)
    return json_response({"status": "ok", "checks": {"database": "ok", "model": "ok"}})


async def show_limits(request: web.Request) -> web.Response:
    """Answer the limits in force."""
    settings = request.app[MEMORY].settings
    return json_response(
        {
            "body_bytes": settings.max_body_bytes,
            "text_chars": settings.max_text_chars,
            "documents_per_batch": settings.max_documents,
            "embedding_inputs": settings.max_inputs,
            "waiting_requests": settings.max_waiting_requests,
            "id_chars": limits.ID_CHARS,
            "title_chars": limits.TITLE_CHARS,
            "mime_type_chars": limits.MIME_TYPE_CHARS,
            "metadata_bytes": limits.METADATA_BYTES,
            "metadata_depth": limits.METADATA_DEPTH,
            "tags": limits.TAGS,
            "tag_chars": limits.TAG_CHARS,
            "page": limits.PAGE,
            "search_limit": limits.SEARCH_LIMIT,
            "search_offset_plus_limit": limits.SEARCH_DEPTH,
            "search_group_size": limits.GROUP_SIZE,
            "vector_dimensions": limits.VECTOR_DIMENSIONS,
        }
    )
