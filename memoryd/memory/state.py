"""What the use cases share."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from memoryd.config import Settings
from memoryd.documents.types import Collection
from memoryd.embeddings.engine import Engine
from memoryd.errors import OverloadedError, StoppingError
from memoryd.memory.background import BackgroundTasks
from memoryd.memory.keys import Keyring
from memoryd.memory.model_jobs import ModelJobs
from memoryd.memory.models import ModelLoader
from memoryd.storage.database import Database

# Enough documents under way to keep the engine busy while others are written.
_DOCUMENTS_UNDER_WAY = 96
# Bodies of documents that are held at once, as far as their length is known.
_HELD_BYTES = 1 << 30

T = TypeVar("T")


@dataclass
class Memory:
    """Hold the resources that the use cases work with."""

    settings: Settings
    database: Database
    engine: Engine
    loader: ModelLoader
    is_stopping: bool = False
    ingest_slots: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_DOCUMENTS_UNDER_WAY)
    )
    # Of its own, so that a short text to embed never waits for books to be chunked.
    chunking_threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="chunking")
    )
    _locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = field(
        default_factory=WeakValueDictionary
    )
    model_jobs: ModelJobs = field(default_factory=ModelJobs)
    keys: Keyring = field(init=False)
    _background: BackgroundTasks = field(default_factory=BackgroundTasks)
    _held_requests: int = 0
    _held_bytes: int = 0

    def __post_init__(self) -> None:
        self.keys = Keyring(self.settings, self.database)

    def document_lock(self, collection: Collection, external_id: str) -> asyncio.Lock:
        """Return the lock under which writes to one document happen in order of acceptance."""
        key = (collection.number, external_id)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

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

    async def run_to_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; it goes on where the caller is canceled."""
        return await asyncio.shield(self._background.start(work))

    async def stop(self) -> None:
        """End what still runs: transactions that are open are rolled back.

        Afterwards no thread of ingest uses a model, so that models can be freed.
        """
        self.is_stopping = True
        await asyncio.gather(self._background.cancel(), self.model_jobs.stop(), self.keys.close())
        await asyncio.to_thread(self.chunking_threads.shutdown, cancel_futures=True)

    def check_going_on(self) -> None:
        """Raise StoppingError once memoryd is shutting down; for loops in threads."""
        if self.is_stopping:
            raise StoppingError("the document was not stored")
