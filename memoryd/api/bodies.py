"""Request bodies: read, parsed, and checked field by field."""

import asyncio
import json
from typing import Any, TypeVar

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ConfigDict, ValidationError

from memoryd.errors import (
    InvalidInputError,
    MemorydError,
    MissingFieldError,
    TooLargeError,
    UnknownFieldError,
)

# Kinds of pydantic's faults that are a limit passed.
_OVER_LIMIT = frozenset({"too_large", "too_long", "string_too_long"})

ALTERNATIVE = "~"
"""How tags begin that tell alternatives of a field apart; no client sees them in a path."""

T = TypeVar("T", bound=BaseModel)

_VALUE: web.RequestKey[Any] = web.RequestKey("value", object)


async def read_json(request: web.Request) -> Any:
    """Return the JSON value of the body, whatever its Content-Type says.

    Raises InvalidInputError for what is not JSON (in UTF-8, without lone surrogates or NUL).
    """
    data = await read_bytes(request)
    if not data.strip():
        raise InvalidInputError("the request has no body: send a JSON object")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error
    if b"\\u0000" in data and (path := _find_nul(value)) is not None:
        raise InvalidInputError(f"{path or 'the body'} has a NUL character", path or None)
    return value


async def read_lenient_json(request: web.Request) -> Any:
    """Return the first JSON value of the body as Go's decoder would: what peers' clients rely on.

    Bytes after the value are ignored; bytes that are not UTF-8 and lone surrogates become U+FFFD.
    It is decoded once, however often it is read. Raises InvalidInputError for what is not JSON.
    """
    if _VALUE not in request:
        request[_VALUE] = await _read_leniently(request)
    return request[_VALUE]


async def _read_leniently(request: web.Request) -> Any:
    data = await read_bytes(request)
    if not data.strip():
        raise InvalidInputError("missing request body")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return await asyncio.to_thread(_decode_leniently, data.decode("utf-8", "replace"))


def _decode_leniently(text: str) -> Any:
    try:
        value, _ = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text.lstrip())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error
    clean = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(clean.decode("utf-16", "replace"))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


async def read_bytes(request: web.Request) -> bytes:
    """Return the body, or raise TooLargeError."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        limit = request.client_max_size
        raise TooLargeError(f"the body has more than max_body_bytes = {limit} bytes") from error
    except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
        raise InvalidInputError(f"the body can't be read: {error}") from error


def _find_nul(value: Any) -> str | None:
    """Return the path of a string with a NUL in it, "" for the value itself, None for none."""
    waiting = [("", value)]
    while waiting:  # no recursion: JSON may be nested deeper than Python's stack
        path, item = waiting.pop()
        if isinstance(item, str) and "\0" in item:
            return path
        if isinstance(item, dict):
            if any("\0" in key for key in item):
                return path
            waiting += [(f"{path}.{key}" if path else key, item[key]) for key in item]
        if isinstance(item, list):
            waiting += [(f"{path}[{index}]", part) for index, part in enumerate(item)]
    return None


def parse(kind: type[T], value: Any, at: str = "") -> T:
    """Check `value` against `kind`; raise the first fault, its path beginning with `at`."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _translate(error, at) from error


def _translate(error: ValidationError, at: str) -> MemorydError:
    fault = error.errors(include_url=False)[0]
    path = _path(at, fault["loc"])
    if fault["type"] == "missing":
        return MissingFieldError(f"{path} is required", path)
    if fault["type"] == "extra_forbidden":
        return UnknownFieldError(f"{path} is not a field of this request", path)
    if fault["type"] in _OVER_LIMIT:
        return TooLargeError(f"{path}: {fault['msg']}", path)
    message = fault["msg"].removeprefix("Value error, ")
    return InvalidInputError(f"{path or 'the body'}: {message}", path or None)


def _path(at: str, location: tuple[int | str, ...]) -> str:
    path = at
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(ALTERNATIVE):
            path += f".{part}" if path else part
    return path


class Body(BaseModel):
    """Refuse unknown fields and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PeerBody(BaseModel):
    """Ignore unknown fields, as the peers do, and refuse values of another type; null is absent."""

    model_config = ConfigDict(extra="ignore", strict=True)
