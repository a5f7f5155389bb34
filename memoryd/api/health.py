"""Is it alive, is it ready, what are its limits."""

from aiohttp import web

from memoryd import __version__
from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.errors import UnavailableError
from memoryd.storage.database import Database


async def root(_request: web.Request) -> web.Response:
    """Answer as Ollama does: its clients ask this to see whether the server is there."""
    return web.Response(text="Ollama is running")


async def alive(_request: web.Request) -> web.Response:
    """Answer without touching anything."""
    return json_response({"status": "ok", "version": __version__})


async def ready(request: web.Request) -> web.Response:
    """Answer 200 when database and default model serve, else 503 naming what doesn't."""
    memory = request.app[MEMORY]
    database: Database = memory.database
    try:
        await database.ping()
    except UnavailableError as error:
        checks = {"database": error.message, "model": "unknown"}
        return json_response({"status": "unavailable", "checks": checks}, status=503)
    if not memory.engine.is_loaded(memory.engine.resolve(memory.settings.model)):
        checks = {"database": "ok", "model": "loading"}
        return json_response({"status": "unavailable", "checks": checks}, status=503)
    return json_response({"status": "ok", "checks": {"database": "ok", "model": "ok"}})


async def limits(request: web.Request) -> web.Response:
    """Answer the limits in force."""
    settings = request.app[MEMORY].settings
    return json_response(
        {
            "body_bytes": settings.max_body_bytes,
            "text_chars": settings.max_text_chars,
            "documents_per_batch": settings.max_documents,
            "embedding_inputs": settings.max_inputs,
            "waiting_requests": settings.max_waiting_requests,
            "id_chars": 512,
            "metadata_bytes": 65_536,
            "metadata_depth": 16,
            "tags": 64,
            "tag_chars": 128,
            "search_limit": 1_000,
            "search_offset_plus_limit": 10_000,
        }
    )
