"""What the use cases share."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from memoryd.config import Settings
from memoryd.embeddings.engine import Engine
from memoryd.errors import MemorydError, OverloadedError, StoppingError
from memoryd.memory.background import BackgroundTasks
from memoryd.memory.job_runner import JobRunner
from memoryd.memory.keys import Keyring
from memoryd.memory.model_jobs import ModelJobs
from memoryd.memory.models import ModelLoader
from memoryd.memory.query_vectors import QueryVectors
from memoryd.memory.statistics import TermStatistics
from memoryd.memory.worker import Worker
from memoryd.parsers.pool import ParserPool
from memoryd.storage.database import Database

# Bodies of documents that are held at once, as far as their length is known.
_HELD_BYTES = 1 << 30
_EXPORTS_AT_ONCE = 4

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass
class Memory:
    """Hold the resources that the use cases work with."""

    settings: Settings
    database: Database
    engine: Engine
    loader: ModelLoader
    parsers: ParserPool
    worker: Worker = field(init=False)
    runner: JobRunner = field(init=False)
    is_stopping: bool = False
    # Of its own, so that a short text to embed never waits for books to be chunked.
    chunking_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="chunking")
    )
    # Each export holds a snapshot and a connection of its own as long as its client takes.
    export_places: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_EXPORTS_AT_ONCE)
    )
    model_jobs: ModelJobs = field(default_factory=ModelJobs)
    keys: Keyring = field(init=False)
    query_vectors: QueryVectors = field(init=False)
    statistics: TermStatistics = field(init=False)
    _background: BackgroundTasks = field(default_factory=BackgroundTasks)
    _held_requests: int = 0
    _held_bytes: int = 0

    def __post_init__(self) -> None:
        self.keys = Keyring(self.settings, self.database)
        self.query_vectors = QueryVectors(self.settings.query_cache_bytes)
        self.statistics = TermStatistics(self.database)

    @contextmanager
    def holding(self, body_bytes: int) -> Iterator[None]:
        """Count a request that brings documents while it is under way.

        Raises OverloadedError where too many are, or their bodies are too large together.
        """
        if (
            self._held_requests >= self.settings.max_waiting_requests
            or self._held_bytes + body_bytes > max(_HELD_BYTES, self.settings.max_body_bytes)
        ):
            raise OverloadedError("too many documents wait to be stored: try again in a second")
        self._held_requests += 1
        self._held_bytes += body_bytes
        try:
            yield
        finally:
            self._held_requests -= 1
            self._held_bytes -= body_bytes

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin what nobody waits for; an error of memoryd's own in it is logged."""
        self._background.start(_logged(work))

    async def run_to_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; it goes on where the caller is canceled."""
        return await asyncio.shield(self._background.start(work))

    async def stop(self) -> None:
        """End what still runs: transactions that are open are rolled back.

        Afterwards no thread of ingest uses a model, so that models can be freed.
        """
        self.is_stopping = True
        await self._background.cancel()  # nothing more is accepted for the worker
        await asyncio.gather(self.worker.stop(), self.runner.stop())
        await asyncio.gather(self.model_jobs.stop(), self.keys.close(), self.statistics.stop())
        await asyncio.to_thread(self.chunking_threads.shutdown, cancel_futures=True)

    def check_going_on(self) -> None:
        """Raise StoppingError once memoryd is shutting down; for loops in threads."""
        if self.is_stopping:
            raise StoppingError("the document was not stored")


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except MemorydError as error:
        logger.warning("in the background: %s", error.message)
