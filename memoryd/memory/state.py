"""What the use cases share."""

import asyncio
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from memoryd.config import Settings
from memoryd.documents.types import Collection
from memoryd.embeddings.engine import Engine
from memoryd.storage.database import Database

# Enough documents under way to keep the engine busy while others are written.
_DOCUMENTS_UNDER_WAY = 48


@dataclass
class Memory:
    """Hold the resources that the use cases work with."""

    settings: Settings
    database: Database
    engine: Engine
    is_stopping: bool = False
    ingest_slots: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_DOCUMENTS_UNDER_WAY)
    )
    _locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = field(
        default_factory=WeakValueDictionary
    )

    def document_lock(self, collection: Collection, external_id: str) -> asyncio.Lock:
        """Return the lock under which writes to one document happen in order of acceptance."""
        key = (collection.number, external_id)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock
