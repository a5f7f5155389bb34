"""Request bodies: read, parsed, and checked field by field."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from memoryd.api import limits
from memoryd.errors import (
    InvalidInputError,
    MemorydError,
    MissingFieldError,
    NotTextError,
    TooLargeError,
    UnknownFieldError,
)

# Kinds of pydantic's faults that are a limit passed.
_OVER_LIMIT = frozenset({"too_large", "too_long", "string_too_long"})

ALTERNATIVE = "~"
"""How tags begin that tell alternatives of a field apart; no client sees them in a path."""

# Smaller bodies are read before a thread would have started.
_LARGE_BYTES = 1 << 18
_SCANNED_BYTES = 1 << 20

# What llama.cpp's clients send images in.
_IMAGES = "multimodal_data"

Location: TypeAlias = tuple[int | str, ...]
"""Where a value stands in a body: keys and indexes from the outermost on."""

M = TypeVar("M", bound=BaseModel)
P = ParamSpec("P")
T = TypeVar("T")

_VALUE: web.RequestKey[Any] = web.RequestKey("value", object)


async def apart(
    request: web.Request, work: Callable[P, T], *args: P.args, **options: P.kwargs
) -> T:
    """Return what `work` makes of the body: in a thread where that is large, as it takes long."""
    if len(await read_bytes(request)) < _LARGE_BYTES:
        return work(*args, **options)
    return await asyncio.to_thread(work, *args, **options)


async def read_json(request: web.Request) -> Any:
    """Return the JSON value of the body, whatever its Content-Type says.

    Raises InvalidInputError for what is not JSON (in UTF-8, without lone surrogates or NUL), and
    TooLargeError for too many values.
    """
    return await apart(request, decode, await read_bytes(request))


def decode(data: bytes, name: str = "the body") -> Any:
    """Return the JSON value of `data`, which errors call `name`; raise as `read_json` does."""
    if not data.strip():
        raise InvalidInputError("the request has no body: send a JSON object")
    _check_value_count(data)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"{name} is not JSON: {error}") from error
    if b"\\u0000" in data and (location := _find_nul(value)) is not None:
        path = _path("", location)
        raise InvalidInputError(f"{path or name} has a NUL character", path or None)
    return value


async def read_lenient_json(request: web.Request) -> Any:
    """Return the first JSON value of the body as Go's decoder would: what peers' clients rely on.

    Bytes after the value are ignored; bytes that are not UTF-8 and lone surrogates become U+FFFD.
    It is decoded once, however often it is read. Raises InvalidInputError for what is not JSON,
    TooLargeError for too many values, and NotTextError for images beside the texts, which no model
    here would see.
    """
    if _VALUE not in request:
        request[_VALUE] = await apart(request, _decode_leniently, await read_bytes(request))
    value = request[_VALUE]
    if isinstance(value, dict) and value.get(_IMAGES) is not None:
        raise NotTextError(_IMAGES)
    return value


def _decode_leniently(data: bytes) -> Any:
    if not data.strip():
        raise InvalidInputError("missing request body")
    _check_value_count(data)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _decode_as_go(data.decode("utf-8", "replace"))


def _decode_as_go(text: str) -> Any:
    try:
        value, _ = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text.lstrip())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error
    clean = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
    return json.loads(clean.decode("utf-16", "replace"))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON value")


def _check_value_count(data: bytes) -> None:
    most = limits.JSON_VALUES
    if len(data) > most and _count_values(data) > most:
        raise TooLargeError(f"the body has more than {most} values: send less at once")


def _count_values(data: bytes) -> int:
    """Return how many values JSON has at most: what a comma or a bracket comes before, and one.

    Parsing keeps other threads waiting, so what would take seconds must be known before.
    """
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # now quotes are strings' ends alone
    characters = np.frombuffer(data, dtype=np.uint8)
    count, is_inside = 1, np.False_
    for start in range(0, len(characters), _SCANNED_BYTES):
        part = characters[start : start + _SCANNED_BYTES]
        quotes = part == ord('"')
        quotes[0] ^= is_inside
        inside = np.logical_xor.accumulate(quotes)
        is_inside = inside[-1]
        begins = (part == ord(",")) | (part == ord("[")) | (part == ord("{"))
        count += int(np.count_nonzero(begins & ~inside))
    return count


async def read_bytes(request: web.Request) -> bytes:
    """Return the body, or raise TooLargeError."""
    try:
        with readable():
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        limit = request.client_max_size
        raise TooLargeError(f"the body has more than max_body_bytes = {limit} bytes") from error


@contextmanager
def readable() -> Iterator[None]:
    """Raise InvalidInputError where a body breaks off, or isn't encoded as its headers say."""
    try:
        yield
    except (HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
        raise InvalidInputError(f"the body can't be read: {error}") from error


def _find_nul(value: Any) -> Location | None:
    """Return where a string, or the key of an object, has a NUL in it."""
    if isinstance(value, str) and "\0" in value:
        return ()
    # No recursion, as JSON may be nested deeper than Python's stack; and no path for each value, as
    # millions may lie a thousand deep.
    location: list[int | str] = []
    opened = [_parts(value)]
    while opened:
        key, part = next(opened[-1], (None, None))
        if key is None:
            opened.pop()
            del location[-1:]
        elif isinstance(key, str) and "\0" in key:
            return tuple(location)
        elif isinstance(part, str) and "\0" in part:
            return (*location, key)
        elif isinstance(part, dict | list):
            location.append(key)
            opened.append(_parts(part))
    return None


def _parts(value: Any) -> Iterator[tuple[int | str | None, Any]]:
    if isinstance(value, dict):
        return iter(value.items())
    return enumerate(value if isinstance(value, list) else ())


async def read_peer_body(request: web.Request, kind: type[M]) -> M:
    """Return the body that a peer's client sends, checked; raise the first fault."""
    return await apart(request, parse, kind, await read_lenient_json(request))


def parse(kind: type[M], value: Any, at: str = "") -> M:
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


def _path(at: str, location: Location) -> str:
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

    @model_validator(mode="before")
    @classmethod
    def _keep_one_unknown(cls, value: Any) -> Any:
        """Leave one unknown field: one is told, and a million faults take seconds and 1 GB."""
        if not isinstance(value, dict) or len(value) <= len(cls.model_fields):
            return value
        known = {field.alias or name for name, field in cls.model_fields.items()}
        unknown = next(key for key in value if key not in known)
        return {key: part for key, part in value.items() if key in known or key == unknown}


class PeerBody(BaseModel):
    """Ignore unknown fields, as the peers do, and refuse values of another type; null is absent."""

    model_config = ConfigDict(extra="ignore", strict=True)
