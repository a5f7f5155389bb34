"""One task for all who want the same thing at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from memoryd.models.downloads import Progress

Result = TypeVar("Result")
Start = Callable[[Progress], Coroutine[Any, Any, Result]]


class SingleFlight(Generic[Result]):
    """Share running tasks by key, each until it is done or nobody waits for it any more."""

    def __init__(self) -> None:
        """Begin with nothing running."""
        self._flights: dict[Hashable, _Flight[Result]] = {}

    async def run(self, key: Hashable, start: Start[Result], progress: Progress | None) -> Result:
        """Return what the task of `key` returns, which the first caller starts.

        All callers are told the progress. One that is canceled leaves the task to the others; the
        last one cancels it, and waits for its end.
        """
        # A task belongs to its event loop, and so do those who share it.
        place = (asyncio.get_running_loop(), key)
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = _Flight(start)
            flight.task.add_done_callback(lambda _: self._forget(place, flight))
        try:
            return await flight.join(progress)
        except asyncio.CancelledError:
            if flight.is_abandoned:
                self._forget(place, flight)  # who comes now isn't canceled with those who left
                await flight.cancel()
            raise

    def _forget(self, place: Hashable, flight: "_Flight[Result]") -> None:
        if self._flights.get(place) is flight:
            del self._flights[place]


class _Flight(Generic[Result]):
    def __init__(self, start: Start[Result]) -> None:
        self._listeners: list[Progress] = []
        self._waiting = 0
        self.task = asyncio.create_task(start(self._tell))

    async def join(self, progress: Progress | None) -> Result:
        self._waiting += 1
        if progress:
            self._listeners.append(progress)
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if progress:
                self._listeners.remove(progress)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for what isn't done."""
        return not self._waiting and not self.task.done()

    async def cancel(self) -> None:
        """Cancel the task, and wait for its end."""
        self.task.cancel()
        await asyncio.wait([self.task])

    def _tell(self, text: str, done_bytes: int, total_bytes: int | None) -> None:
        for progress in list(self._listeners):
            progress(text, done_bytes, total_bytes)
