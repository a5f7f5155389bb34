"""Cursors and limits of lists, and times as answers tell them."""

import base64
import binascii
from datetime import UTC, datetime

from aiohttp import web

from memoryd.errors import InvalidInputError

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1_000


def read_limit(request: web.Request) -> int:
    """Return ?limit=, 100 if there is none."""
    return read_integer(request, "limit", _DEFAULT_LIMIT, low=1, high=_MAX_LIMIT)


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
    if not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise _bad_cursor()
    return int(text)


def _bad_cursor() -> InvalidInputError:
    return InvalidInputError("cursor: pass the next_cursor of the page before as it is", "cursor")


def write_cursor(last: str | int) -> str:
    """Return the cursor that points after `last`."""
    return base64.urlsafe_b64encode(str(last).encode()).decode()


def write_time(time: datetime) -> str:
    """Return `time` as RFC 3339 in UTC."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
