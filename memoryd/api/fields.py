"""The types of fields that memoryd's own requests and answers share, with their limits."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from memoryd.api import limits

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
NUMBERS = {"type": "array", "items": {"type": "number"}}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Unicode's category Cc."""
_NOT_BLANK = {"type": "string", "pattern": r"\S"}


def _check_id(value: str) -> str:
    if value in (".", ".."):
        raise ValueError("'.' and '..' can't be ids")
    if _CONTROL.search(value):
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
NotBlank = Annotated[str, AfterValidator(_check_not_blank), WithJsonSchema(_NOT_BLANK)]
Language = Annotated[str, Field(pattern=r"^[a-z_]{2,63}$")]


def _check_time(value: Any) -> datetime:
    """Read RFC 3339, which names a zone or Z: a time without one is a different one elsewhere."""
    if not isinstance(value, str):
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z")  # noqa: TRY004 - pydantic's
    try:
        time = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a time such as 2026-01-31T12:00:00Z") from error
    if time.tzinfo is None:
        raise ValueError(f"{value!r} names no zone: end it with Z or +01:00")
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value!r} is out of range") from error


ExpiryTime = Annotated[
    datetime,
    BeforeValidator(_check_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339, in UTC."""
Numbers = Annotated[Any, WithJsonSchema(NUMBERS)]
"""A vector, a numpy array until it is written."""
Rows = Annotated[Any, WithJsonSchema({"type": "array", "items": NUMBERS})]
"""Vectors, an array of numpy's with two axes until it is written."""
Cursor = Annotated[str | None, Field(description="What the next page begins with; null: no more.")]


def write_time(time: datetime) -> Time:
    """Return `time` as RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
