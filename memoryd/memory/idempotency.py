"""Answer a request that is sent again as the first time, without doing it again."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from memoryd.documents.types import Collection
from memoryd.errors import MemorydError, RepeatedTooEarlyError
from memoryd.memory.state import Memory
from memoryd.storage import idempotency as storage
from memoryd.storage.idempotency import KeptAnswer, Key


@dataclass
class Claim:
    """Be the right to answer to a key, or what was answered to it."""

    kept: KeptAnswer | None
    _memory: Memory
    _key: Key
    _claimant: UUID = field(default_factory=uuid4)
    _is_answered: bool = False

    async def keep(self, answer: KeptAnswer) -> None:
        """Let `answer` be what is told whenever the request is sent again."""
        await storage.keep_answer(self._memory.database, self._key, self._claimant, answer)
        self._is_answered = True

    async def renew_forever(self) -> None:
        """Say again and again that somebody works for the key."""
        lease_s = self._memory.settings.lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            with suppress(MemorydError):  # the next time
                await storage.renew_claim(self._memory.database, self._key, self._claimant, lease_s)

    async def release(self) -> None:
        """Let the request be done again, where nothing was answered."""
        if self._is_answered:
            return
        with suppress(MemorydError):  # the claim ends by itself
            await storage.release_key(self._memory.database, self._key, self._claimant)


@asynccontextmanager
async def claiming(memory: Memory, collection: Collection, key: str) -> AsyncIterator[Claim]:
    """Claim a key for the block, at whose end it is free again unless an answer was kept.

    Raises RepeatedTooEarlyError while another request of that key is under way.
    """
    claimant = uuid4()
    place = Key(collection.number, key)
    found = await storage.claim_key(memory.database, place, claimant, memory.settings.lease_s)
    if isinstance(found, float):
        raise RepeatedTooEarlyError(retry_after_s=max(1, math.ceil(min(found, 5))))
    if found is not None:
        yield Claim(found, memory, place)
        return
    claim = Claim(None, memory, place, claimant)
    renewal = asyncio.create_task(claim.renew_forever())
    try:
        yield claim
    finally:
        renewal.cancel()
        await memory.run_to_end(claim.release())
