"""Every route, on one page."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from memoryd.api import access, collections, documents, errors, health, ollama, openai, search
from memoryd.api.state import MEMORY
from memoryd.errors import UnknownFieldError
from memoryd.memory.state import Memory

ROUTES = [
    web.get("/", health.root),
    web.get("/health", health.alive),
    web.get("/health/ready", health.ready),
    web.get("/v1/limits", health.show_limits),
    # Collections
    web.post("/v1/collections", collections.create),
    web.get("/v1/collections", collections.list_),
    web.get("/v1/collections/{collection:[^/]+}", collections.show),
    web.patch("/v1/collections/{collection:[^/]+}", collections.update),
    web.delete("/v1/collections/{collection:[^/]+}", collections.delete),
    web.post("/v1/collections/{collection:[^/]+}/aliases", collections.move_alias),
    # Documents
    web.post("/v1/collections/{collection:[^/]+}/documents", documents.store),
    web.get("/v1/collections/{collection:[^/]+}/documents", documents.list_),
    web.get("/v1/collections/{collection:[^/]+}/documents/{id:[^/]+}", documents.show),
    web.get(
        "/v1/collections/{collection:[^/]+}/documents/{id:[^/]+}/chunks", documents.list_chunks
    ),
    web.delete("/v1/collections/{collection:[^/]+}/documents/{id:[^/]+}", documents.delete),
    # Search
    web.post("/v1/collections/{collection:[^/]+}/search", search.search),
    web.get("/v1/collections/{collection:[^/]+}/search", search.search_by_query_string),
    # Dialects
    web.post("/api/embed", ollama.embed),
    web.post("/v1/embeddings", openai.embeddings),
]


# What memoryd's own routes take in the query string; all else there is refused by name. The
# dialects' routes ignore it, as the peers do.
_PAGE = frozenset({"cursor", "limit"})
QUERY_STRINGS: dict[Handler, frozenset[str]] = {
    health.show_limits: frozenset(),
    collections.create: frozenset(),
    collections.list_: _PAGE,
    collections.show: frozenset(),
    collections.update: frozenset(),
    collections.delete: frozenset(),
    collections.move_alias: frozenset(),
    documents.store: frozenset({"wait"}),
    documents.list_: _PAGE,
    documents.show: frozenset(),
    documents.list_chunks: _PAGE,
    documents.delete: frozenset(),
    search.search: frozenset(),
    search.search_by_query_string: frozenset({"q", "limit", "offset", "mode"}),
}


@web.middleware
async def check_query_string(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse parameters that a route of memoryd's own doesn't have."""
    known = QUERY_STRINGS.get(request.match_info.handler)
    unknown = [] if known is None else [name for name in request.query if name not in known]
    if unknown:
        raise UnknownFieldError(f"{unknown[0]} is not a parameter of this request", unknown[0])
    return await handler(request)


def build_app(memory: Memory) -> web.Application:
    """Return the HTTP application over `memory`."""
    settings = memory.settings
    middlewares: list[Middleware] = [access.note_request, errors.answer_errors]
    if settings.api_key:
        middlewares.append(access.require_key(settings.api_key.get_secret_value()))
    else:
        middlewares.append(access.refuse_foreign_pages)
    middlewares.append(check_query_string)
    app = web.Application(middlewares=middlewares, client_max_size=settings.max_body_bytes)
    app[MEMORY] = memory
    app.add_routes(ROUTES)
    return app
