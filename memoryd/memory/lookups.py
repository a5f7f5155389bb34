"""What every request asks of the database, remembered for seconds, and longer while it is away."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from memoryd.errors import DatabaseUnavailableError, StoppingError, UnavailableError
from memoryd.memory.background import BackgroundTasks

# For so long what another memoryd has changed in this database still holds here.
_FRESH_S = 2.0
# Then the database counts as away.
_PATIENCE_S = 1.0
_CLOSE_PATIENCE_S = 0.2
_MOST_ANSWERS = 1_024

T = TypeVar("T")


@dataclass
class _Answer(Generic[T]):
    value: T
    read_at: float
    tried_at: float


class Lookups(Generic[T]):
    """Answer by number what the database says.

    Those who ask the same at once share one query. It is not canceled before the end, since a
    connection whose query is canceled waits for a database that hangs.
    """

    def __init__(self, read: Callable[[int], Coroutine[Any, Any, T]], lasting_s: float) -> None:
        """Take what asks the database, and for how long an answer may stand in for it."""
        self._read = read
        self._lasting_s = lasting_s
        self._answers: dict[int, _Answer[T]] = {}
        self._queries: dict[int, asyncio.Task[T]] = {}  # that others may join
        self._background = BackgroundTasks()

    async def get(self, number: int) -> T:
        """Return the answer; raise DatabaseUnavailableError where none is to be had.

        At the end of memoryd: StoppingError.
        """
        known = self._answers.get(number)
        if known and time.monotonic() - known.tried_at < _FRESH_S:
            return known.value
        query = self._queries.get(number) or self._begin(number)
        await asyncio.wait({query}, timeout=_PATIENCE_S)
        if query.cancelled():
            raise StoppingError()
        error = query.exception() if query.done() else DatabaseUnavailableError("no answer in time")
        if error is None:
            return query.result()
        if not isinstance(error, UnavailableError):
            raise error
        return self._stand_in(number, error)

    def _begin(self, number: int) -> asyncio.Task[T]:
        query = self._queries[number] = self._background.start(self._read(number))
        query.add_done_callback(partial(self._end, number, time.monotonic()))
        return query

    def _end(self, number: int, began: float, query: asyncio.Task[T]) -> None:
        has_failed = query.cancelled() or query.exception() is not None
        if self._queries.get(number) is not query:  # it was forgotten meanwhile
            return
        del self._queries[number]
        if has_failed:
            return
        self._answers.pop(number, None)
        if len(self._answers) >= _MOST_ANSWERS:
            self._answers.pop(next(iter(self._answers)))  # the one that was read first
        self._answers[number] = _Answer(query.result(), began, began)

    def _stand_in(self, number: int, error: BaseException) -> T:
        known, now = self._answers.get(number), time.monotonic()
        if known is None or now - known.read_at > self._lasting_s:
            raise DatabaseUnavailableError(
                "the database, which has the API keys, is not available: try again"
            ) from error
        known.tried_at = now
        return known.value

    def change(self, number: int, value: T) -> None:
        """Put another value in the place of what is remembered, for no longer than that."""
        if number in self._answers:
            self._answers[number].value = value

    def forget(self) -> None:
        """Ask the database anew from now on."""
        self._answers.clear()
        self._queries.clear()

    async def close(self) -> None:
        """End what still asks, also what was forgotten meanwhile; the database closes next."""
        await self._background.cancel(_CLOSE_PATIENCE_S)
