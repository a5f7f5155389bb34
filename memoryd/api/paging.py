"""What requests say beside their bodies: limits, cursors, versions. And times of answers."""

import base64
import binascii
import re
from datetime import UTC, datetime

from aiohttp import web
from pydantic import BaseModel, Field

from memoryd.api.limits import PAGE
from memoryd.errors import InvalidInputError

_DEFAULT_LIMIT = 100


class PageQuery(BaseModel):
    """Which part of a list is asked for."""

    cursor: str | None = None
    limit: int = Field(_DEFAULT_LIMIT, ge=1, le=PAGE)


def read_limit(request: web.Request) -> int:
    """Return ?limit=, 100 if there is none."""
    return read_integer(request, "limit", _DEFAULT_LIMIT, low=1, high=PAGE)


def read_integer(request: web.Request, name: str, default: int, *, low: int, high: int) -> int:
    """Return an integer of the query string between `low` and `high`."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {text!r} is not a whole number", name) from error
    if not low <= value <= high:
        raise InvalidInputError(f"{name} must be from {low} to {high}", name)
    return value


def read_cursor(request: web.Request, default: str) -> str:
    """Return what ?cursor= points after, else `default`."""
    cursor = request.query.get("cursor")
    if cursor is None:
        return default
    try:
        after = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise _bad_cursor() from error
    if "\0" in after:
        raise _bad_cursor()
    return after


def read_number_cursor(request: web.Request, default: int) -> int:
    """Return the number that ?cursor= points after, else `default`."""
    text = read_cursor(request, str(default))
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise _bad_cursor()
    return int(text)


def read_version(request: web.Request) -> int | None:
    """Return the version that If-Match asks for, with or without quotes, or None."""
    text = request.headers.get("If-Match")
    if text is None:
        return None
    number = text.strip().strip('"')
    if not (number.isascii() and number.isdecimal()) or len(number) > 18:
        raise InvalidInputError(f"If-Match: {text!r} is not a version", "If-Match")
    return int(number)


def _bad_cursor() -> InvalidInputError:
    return InvalidInputError("cursor: pass the next_cursor of the page before as it is", "cursor")


def write_cursor(last: str | int) -> str:
    """Return the cursor that points after `last`."""
    return base64.urlsafe_b64encode(str(last).encode()).decode()


def write_time(time: datetime) -> str:
    """Return `time` as RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
