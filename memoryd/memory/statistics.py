"""Count in the background how many chunks have each term, after those who write."""

import asyncio
import logging
import time

from memoryd.errors import DatabaseUnavailableError, MemorydError, UnavailableError
from memoryd.memory.background import BackgroundTasks
from memoryd.storage import lexical_statistics
from memoryd.storage.database import Database

logger = logging.getLogger(__name__)

# The more are counted at once, the fewer rows of common terms are written.
_PAUSE_S = 1.0
_MAX_SHARE = 0.25  # of the time: those who write and search need the processor too


class TermStatistics:
    """Fold what was written into the statistics of search by words, soon and not often.

    Any number of processes can do so together. What a process leaves behind that ends is counted
    when the next search sees it.
    """

    def __init__(self, database: Database, pause_s: float = _PAUSE_S) -> None:
        """Begin nothing yet; `start` does. Between two rounds are `pause_s`."""
        self._database = database
        self._pause_s = pause_s
        self._tasks = BackgroundTasks()
        self._changed: set[int] = set()
        self._news = asyncio.Event()

    def start(self) -> None:
        """Begin to count what is noted."""
        self._tasks.repeat(self._fold_changed, self._pause_s)

    async def stop(self) -> None:
        """End what is under way."""
        await self._tasks.cancel()

    def note(self, collection_number: int) -> None:
        """Say that chunks of a collection were written or deleted, or seen not to be counted."""
        self._changed.add(collection_number)
        self._news.set()

    async def _fold_changed(self) -> None:
        await self._news.wait()
        self._news.clear()
        began = time.monotonic()
        for number in list(self._changed):
            self._changed.discard(number)
            await self._fold(number)
        await asyncio.sleep((time.monotonic() - began) * (1 / _MAX_SHARE - 1) - self._pause_s)

    async def _fold(self, number: int) -> None:
        try:
            has_more = await lexical_statistics.fold(self._database, number)
        except DatabaseUnavailableError:
            self.note(number)
            raise
        except UnavailableError:  # it was too busy with others
            self.note(number)
        except MemorydError as error:
            logger.warning("cannot count the terms of collection %d: %s", number, error.message)
        else:
            if has_more:
                self.note(number)
