"""Every route, on one page."""

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel

from memoryd.api import access, collections, documents, errors, health, ollama, openai, search
from memoryd.api.bodies import (
    AliasBody,
    CollectionBody,
    CollectionPatchBody,
    DocumentBody,
    SearchBody,
)
from memoryd.api.documents import StoreQuery
from memoryd.api.paging import PageQuery
from memoryd.api.route import Dialect, Route, Scope, add_routes, route_of
from memoryd.api.search import SearchQuery
from memoryd.api.state import MEMORY
from memoryd.errors import UnknownFieldError
from memoryd.memory.state import Memory


class NoQuery(BaseModel):
    """Take nothing in the query string."""


_COLLECTION = "/v1/collections/{collection:[^/]+}"
_DOCUMENT = _COLLECTION + "/documents/{id:[^/]+}"

ROUTES = [
    Route("GET", "/", health.root, scope=None),
    Route("GET", "/health", health.alive, scope=None),
    Route("GET", "/health/ready", health.ready, scope=None),
    Route("GET", "/v1/limits", health.show_limits, query=NoQuery),
    # Collections
    Route(
        "POST",
        "/v1/collections",
        collections.create,
        scope=Scope.WRITE,
        query=NoQuery,
        body=CollectionBody,
        status=201,
    ),
    Route("GET", "/v1/collections", collections.list_, query=PageQuery),
    Route("GET", _COLLECTION, collections.show, query=NoQuery),
    Route(
        "PATCH",
        _COLLECTION,
        collections.update,
        scope=Scope.WRITE,
        query=NoQuery,
        body=CollectionPatchBody,
    ),
    Route("DELETE", _COLLECTION, collections.delete, scope=Scope.WRITE, query=NoQuery),
    Route(
        "POST",
        _COLLECTION + "/aliases",
        collections.move_alias,
        scope=Scope.WRITE,
        query=NoQuery,
        body=AliasBody,
    ),
    # Documents
    Route(
        "POST",
        _COLLECTION + "/documents",
        documents.store,
        scope=Scope.WRITE,
        query=StoreQuery,
        body=DocumentBody,
    ),
    Route("GET", _COLLECTION + "/documents", documents.list_, query=PageQuery),
    Route("GET", _DOCUMENT, documents.show, query=NoQuery),
    Route("GET", _DOCUMENT + "/chunks", documents.list_chunks, query=PageQuery),
    Route("DELETE", _DOCUMENT, documents.delete, scope=Scope.WRITE, query=NoQuery),
    # Search
    Route("POST", _COLLECTION + "/search", search.search, query=NoQuery, body=SearchBody),
    Route("GET", _COLLECTION + "/search", search.search_by_query_string, query=SearchQuery),
    # Ollama
    Route("POST", "/api/embed", ollama.embed, Dialect.OLLAMA, body=ollama.EmbedBody),
    # OpenAI
    Route("POST", "/v1/embeddings", openai.embeddings, body=openai.EmbeddingsBody),
]


@web.middleware
async def check_query_string(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse parameters that a route of memoryd's own doesn't have."""
    route = route_of(request)
    if route is None or route.query is None:
        return await handler(request)
    unknown = [name for name in request.query if name not in route.query.model_fields]
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
    add_routes(app, ROUTES)
    return app
