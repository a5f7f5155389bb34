"""What memoryd's own routes read beside bodies, as strictly: query strings, and If-Match."""

import re
from typing import Annotated, Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, BeforeValidator, ConfigDict

from memoryd.api.bodies import parse
from memoryd.api.route import route_of
from memoryd.errors import InvalidInputError, UnknownFieldError

# As many digits as an integer of Postgres has, and fewer than Python refuses to read.
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class Query(BaseModel):
    """Take parameters as the strings they are, and read numbers from them."""

    model_config = ConfigDict(extra="forbid")


class NoQuery(Query):
    """Take nothing in the query string."""


Q = TypeVar("Q", bound=BaseModel)


def is_whole(text: str) -> bool:
    """Say whether `text` is a whole number that Postgres takes."""
    return _WHOLE.fullmatch(text) is not None


def _check_whole(value: Any) -> Any:
    if isinstance(value, str) and not is_whole(value):
        raise ValueError(f"{value!r} is not a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_check_whole)]


def _check_flag(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError(f"{value!r} is neither true nor false")
        return value == "true"
    return value


def _check_seconds(value: Any) -> Any:
    if isinstance(value, str) and not _SECONDS.fullmatch(value):
        raise ValueError(f"{value!r} is not a number of seconds")
    return value


Flag = Annotated[bool, BeforeValidator(_check_flag)]
Seconds = Annotated[float, BeforeValidator(_check_seconds)]


def read_query(request: web.Request, kind: type[Q]) -> Q:
    """Return the query string as `kind`; raise InvalidInputError naming the wrong parameter."""
    unknown = [name for name in request.query if name not in kind.model_fields]
    if unknown:
        raise UnknownFieldError(f"{unknown[0]} is not a parameter of this request", unknown[0])
    return parse(kind, dict(request.query))


def read_version(request: web.Request) -> int | None:
    """Return the version that If-Match asks for, with or without quotes, or None."""
    text = request.headers.get("If-Match")
    if text is None:
        return None
    number = text.strip().strip('"')
    if not is_whole(number) or number.startswith("-"):
        raise InvalidInputError(f"If-Match: {text!r} is not a version", "If-Match")
    return int(number)


@web.middleware
async def check_query_string(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the query strings of memoryd's own routes, also where the handler reads none."""
    route = route_of(request)
    if route is not None and route.query is not None:
        read_query(request, route.query)
    return await handler(request)
