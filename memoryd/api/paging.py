"""Lists come in pages: limits and cursors."""

import base64
import binascii
from collections.abc import Callable
from typing import TypeVar

from pydantic import Field

from memoryd.api.limits import PAGE
from memoryd.api.queries import Query, Whole, is_whole
from memoryd.errors import InvalidInputError

_DEFAULT_LIMIT = 100

E = TypeVar("E")


class PageQuery(Query):
    """Which part of a list is asked for."""

    cursor: str | None = Field(None, description="The next_cursor of the page before.")
    limit: Whole = Field(_DEFAULT_LIMIT, ge=1, le=PAGE, description="Most entries of the page.")

    def after_text(self, default: str) -> str:
        """Return what the cursor points after, else `default`."""
        if self.cursor is None:
            return default
        try:
            data = base64.b64decode(self.cursor.encode("ascii"), altchars=b"-_", validate=True)
            after = data.decode()
        except (binascii.Error, UnicodeError, ValueError) as error:
            raise _bad_cursor() from error
        if "\0" in after:
            raise _bad_cursor()
        return after

    def after_number(self, default: int) -> int:
        """Return the number that the cursor points after, else `default`."""
        text = self.after_text(str(default))
        if not is_whole(text):
            raise _bad_cursor()
        return int(text)

    @property
    def limit_and_one(self) -> int:
        """How many entries to read: the one beyond the page tells that another follows."""
        return self.limit + 1

    def cut(self, read: list[E], place: Callable[[E], str | int]) -> tuple[list[E], str | None]:
        """Return the page of up to `limit_and_one` entries, and the cursor of the next, if any.

        `place` tells of an entry what the next page comes after.
        """
        page = read[: self.limit]
        cursor = _write_cursor(place(page[-1])) if len(read) > self.limit else None
        return page, cursor


def _bad_cursor() -> InvalidInputError:
    return InvalidInputError("cursor: pass the next_cursor of the page before as it is", "cursor")


def _write_cursor(last: str | int) -> str:
    """Return the cursor that points after `last`."""
    return base64.urlsafe_b64encode(str(last).encode()).decode()
