"""Tasks that nobody waits for, and that end with what started them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from memoryd.errors import DatabaseUnavailableError, MemorydError

T = TypeVar("T")

logger = logging.getLogger(__name__)

_DATABASE_PAUSE_S = 0.25
_FAULT_PAUSE_S = 2.0


class BackgroundTasks:
    """Hold tasks until they are done: the event loop itself keeps none (docs of create_task)."""

    def __init__(self) -> None:
        """Start with none."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin `work`, which nobody need wait for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def repeat(self, work: Callable[[], Awaitable[None]], pause_s: float = 0) -> None:
        """Do `work` again and again, `pause_s` after each round, whatever one of them raises.

        Without a pause, `work` waits by itself, but for a while after a fault.
        """
        self.start(_repeat(work, pause_s))

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error and not isinstance(error, MemorydError):  # told to whoever waits for the task
            logger.error("in the background: %s", error, exc_info=error)

    async def cancel(self, patience_s: float | None = None) -> None:
        """Cancel all that run and wait for their end, `patience_s` at most."""
        for task in self._tasks:
            task.cancel()
        ended = asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.wait({ended}, timeout=patience_s)


async def _repeat(work: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        fault_pause_s = 0.0
        try:
            await work()
        except DatabaseUnavailableError:
            fault_pause_s = _DATABASE_PAUSE_S
        except Exception:  # a fault in one round never ends what is repeated
            logger.exception("in the background, what is tried again")
            fault_pause_s = _FAULT_PAUSE_S
        if pause := pause_s or fault_pause_s:
            await asyncio.sleep(pause)
