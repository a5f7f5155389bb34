"""Request bodies: read, parsed, and checked field by field."""

import asyncio
import json
import unicodedata
from typing import Annotated, Any, Literal, TypeVar

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, ValidationError
from pydantic import Tag as PydanticTag
from pydantic_core import PydanticCustomError

from memoryd.api import limits
from memoryd.errors import (
    InvalidInputError,
    MemorydError,
    MissingFieldError,
    TooLargeError,
    UnknownFieldError,
)

# Kinds of pydantic's faults that are a limit passed.
_OVER_LIMIT = frozenset({"too_large", "too_long", "string_too_long"})

# Tags that tell alternatives of a field apart begin so; no client sees them in a path.
_ALTERNATIVE = "~"

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
        elif not part.startswith(_ALTERNATIVE):
            path += f".{part}" if path else part
    return path


class Body(BaseModel):
    """Refuse unknown fields and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PeerBody(BaseModel):
    """Ignore unknown fields, as the peers do, and refuse values of another type; null is absent."""

    model_config = ConfigDict(extra="ignore", strict=True)


def _check_id(value: str) -> str:
    if value in (".", ".."):
        raise ValueError("'.' and '..' can't be ids")
    if any(unicodedata.category(char) == "Cc" for char in value):
        raise ValueError("an id can't have control characters")
    return value


def _check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if _is_deeper(value, limits.METADATA_DEPTH):
        raise _too_large(f"can be nested {limits.METADATA_DEPTH} deep at most")
    if len(orjson.dumps(value)) > limits.METADATA_BYTES:
        raise _too_large(f"can have {limits.METADATA_BYTES} bytes at most")
    return value


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(part, depth - 1) for part in parts)


def _too_large(message: str) -> PydanticCustomError:
    return PydanticCustomError("too_large", "{message}", {"message": message})


def _check_not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
DocumentId = Annotated[
    str, Field(min_length=1, max_length=limits.ID_CHARS), AfterValidator(_check_id)
]
Metadata = Annotated[dict[str, Any], AfterValidator(_check_metadata)]
Tag = Annotated[str, Field(min_length=1, max_length=limits.TAG_CHARS)]
NotBlank = Annotated[str, AfterValidator(_check_not_blank)]
Language = Annotated[str, Field(pattern=r"^[a-z_]{2,63}$")]


class ChunkingBody(Body):
    """How documents are cut."""

    max_tokens: int = Field(256, ge=32)
    overlap_tokens: int = Field(32, ge=0)
    format: Literal["auto"] = "auto"


class CollectionBody(Body):
    """A collection to make."""

    name: CollectionName
    model: str | None = None
    dimensions: int | None = Field(None, gt=0)
    precision: Literal["half", "full"] = "half"
    chunking: ChunkingBody | None = None
    language: Language = "english"
    metadata: Metadata = Field(default_factory=dict)


class CollectionPatchBody(Body):
    """What can be changed of a collection."""

    name: CollectionName | None = None
    language: Language | None = None
    metadata: Metadata | None = None


class AliasBody(Body):
    """Another name for a collection."""

    alias: CollectionName


class DocumentBody(Body):
    """A document to store."""

    id: DocumentId | None = None
    title: str = Field("", max_length=limits.TITLE_CHARS)
    text: NotBlank
    mime_type: str | None = Field(None, max_length=limits.MIME_TYPE_CHARS)
    language: Language | None = None
    metadata: Metadata = Field(default_factory=dict)
    tags: list[Tag] = Field(default_factory=list, max_length=limits.TAGS)
    expires_at: None = None
    on_conflict: Literal["replace", "skip", "error"] = "replace"


class VectorQuery(Body):
    """A vector to search with."""

    vector: list[float] = Field(min_length=1, max_length=limits.VECTOR_DIMENSIONS)


class WithBody(Body):
    """What results carry beside ids and scores."""

    text: bool = True
    metadata: bool = True
    vector: bool = False


def _kind_of_query(value: Any) -> str:
    return f"{_ALTERNATIVE}vector" if isinstance(value, dict) else f"{_ALTERNATIVE}text"


class SearchBody(Body):
    """What to look for."""

    query: Annotated[
        Annotated[NotBlank, PydanticTag(f"{_ALTERNATIVE}text")]
        | Annotated[VectorQuery, PydanticTag(f"{_ALTERNATIVE}vector")],
        Discriminator(_kind_of_query),
    ]
    mode: Literal["hybrid", "dense", "lexical"] = "dense"
    limit: int = Field(10, ge=1, le=limits.SEARCH_LIMIT)
    offset: int = Field(0, ge=0)
    score_threshold: float | None = Field(None, ge=-1, le=1)
    group_by: Literal["document"] | None = "document"
    group_size: int = Field(3, ge=1, le=limits.GROUP_SIZE)
    instruction: NotBlank | None = None
    with_: WithBody = Field(default_factory=WithBody, alias="with")
