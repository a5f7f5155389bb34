"""Every route, on one page."""

from aiohttp import web
from aiohttp.typedefs import Middleware

from memoryd.api import access, collections, documents, errors, health, ollama, openai, search
from memoryd.api.state import MEMORY
from memoryd.memory.state import Memory

ROUTES = [
    web.get("/", health.root),
    web.get("/health", health.alive),
    web.get("/health/ready", health.ready),
    web.get("/v1/limits", health.limits),
    # Collections
    web.post("/v1/collections", collections.create),
    web.get("/v1/collections", collections.list_),
    web.get("/v1/collections/{collection}", collections.show),
    web.patch("/v1/collections/{collection}", collections.update),
    web.delete("/v1/collections/{collection}", collections.delete),
    web.post("/v1/collections/{collection}/aliases", collections.move_alias),
    # Documents
    web.post("/v1/collections/{collection}/documents", documents.store),
    web.get("/v1/collections/{collection}/documents", documents.list_),
    web.get("/v1/collections/{collection}/documents/{id}", documents.show),
    web.get("/v1/collections/{collection}/documents/{id}/chunks", documents.list_chunks),
    web.delete("/v1/collections/{collection}/documents/{id}", documents.delete),
    # Search
    web.post("/v1/collections/{collection}/search", search.search),
    web.get("/v1/collections/{collection}/search", search.search_by_query_string),
    # Dialects
    web.post("/api/embed", ollama.embed),
    web.post("/v1/embeddings", openai.embeddings),
]


def build_app(memory: Memory) -> web.Application:
    """Return the HTTP application over `memory`."""
    settings = memory.settings
    middlewares: list[Middleware] = [access.note_request, errors.answer_errors]
    if settings.api_key:
        middlewares.append(access.require_key(settings.api_key.get_secret_value()))
    app = web.Application(middlewares=middlewares, client_max_size=settings.max_body_bytes)
    app[MEMORY] = memory
    app.add_routes(ROUTES)
    return app
