"""Tasks that nobody waits for, and that end with what started them."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from memoryd.errors import MemorydError

T = TypeVar("T")

logger = logging.getLogger(__name__)


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
