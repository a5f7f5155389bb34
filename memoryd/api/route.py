"""What a route is: where it is, who serves it, whose shape its errors have, who may call it."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from memoryd.storage.keys import Scope


class Dialect(Enum):
    """Whose shape of errors a route answers with."""

    OPENAI = "openai"
    """And memoryd's own, and all others that have no shape of their own here."""
    OLLAMA = "ollama"
    TEI = "tei"


# What aiohttp matches a variable of the path with: {id:[^/]+}.
_EXPRESSION = re.compile(r":[^{}]+\}")


@dataclass(frozen=True)
class Route:
    """Describe one route; the OpenAPI document is made of these."""

    method: str
    path: str
    handler: Handler
    dialect: Dialect = Dialect.OPENAI
    scope: Scope | None = "read"
    """What an API key must allow; None: it wants no key."""
    query: type[BaseModel] | None = None
    """What validates the query string; None: it is ignored, as peers do."""
    body: Any = None
    """The type that validates the body."""
    other_bodies: tuple[tuple[str, Any], ...] = ()
    """Content types of bodies that are no JSON value, and the types that describe them."""
    answer: Any = None
    """The type of what is answered as JSON."""
    status: int = 200
    """Of an answer that is no error, or of all answers where they are errors."""
    content_type: str = "application/json"
    """Of the answer."""
    other_content_types: tuple[str, ...] = ()
    """In which the same is answered, where the body asks for it."""
    other_answers: tuple[tuple[int, Any], ...] = ()
    """Statuses of answers that are neither that nor an error of the dialect, and their types."""
    request_headers: tuple[str, ...] = ()
    """Headers that it reads beside those that all routes read."""
    errors: tuple[int, ...] = ()
    """Statuses of its errors beside those that a route of its kind has anyway."""
    other_dialect: Dialect | None = None
    """Whose shape its errors have where the body is that dialect's."""
    uses_model: bool = False
    """Whether a model makes the answer: then it says how many inputs were cut, and is sent as it
    is, since vectors hardly become smaller by compression."""

    @cached_property
    def pattern(self) -> str:
        """The path with the bare names of its variables, as OpenAPI has it."""
        return _EXPRESSION.sub("}", self.path)


DIALECT = web.RequestKey("dialect", Dialect)
"""Set where a path belongs to several dialects, once the body has told which."""

_ROUTES = web.AppKey("routes", dict[web.AbstractRoute, Route])


def add_routes(app: web.Application, routes: list[Route]) -> None:
    """Let `app` serve `routes`; those of GET answer HEAD too."""
    app[_ROUTES] = {}
    for route in routes:
        methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
        for method in methods:
            app[_ROUTES][app.router.add_route(method, route.path, route.handler)] = route


def route_of(request: web.Request) -> Route | None:
    """Return the route that serves `request`, None where there is none."""
    return request.app[_ROUTES].get(request.match_info.route)


def dialect_of(request: web.Request) -> Dialect:
    """Return the dialect that the request speaks: by its body, its route, else its path."""
    if DIALECT in request:
        return request[DIALECT]
    if route := route_of(request):
        return route.dialect
    return Dialect.OLLAMA if request.path.startswith("/api/") else Dialect.OPENAI
