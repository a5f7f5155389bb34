"""Take documents on as they arrive: any number of them, as one job, in flat memory."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from memoryd.documents.types import Collection, Draft, Outcome
from memoryd.errors import MemorydError
from memoryd.memory.collections import with_current
from memoryd.memory.ingest import Ingested, count_settled
from memoryd.memory.state import Memory
from memoryd.storage import acceptance, ingest_jobs, jobs
from memoryd.storage.acceptance import Accepted, Terms
from memoryd.storage.database import Connection
from memoryd.storage.jobs import Job

_END_POLL_S = 0.1


@dataclass(frozen=True)
class Refused:
    """Be what was sent in a document's place, and why it is none."""

    id: str | None
    error: MemorydError

    @property
    def outcome(self) -> Outcome:
        """What became of it."""
        return Outcome(self.id, "failed", error=self.error)


class Stream:
    """Take on what one request brings, batch by batch, each in a transaction.

    A lease says that more is on its way: the job of a process that dies ends with what it has.
    """

    def __init__(self, memory: Memory, collection: Collection, wait_s: float) -> None:
        """Begin nothing yet; the first batch makes the job."""
        self._memory = memory
        self._collection = collection
        self._wait_s = wait_s
        self._most = memory.settings.max_documents
        self._job_number: int | None = None
        self._count = 0
        self._told: list[Outcome] = []
        self._waiting: dict[int, int] = {}
        """Places in `_told` of those that wait, by their draft."""

    @property
    def _tells_all(self) -> bool:
        return self._count <= self._most

    async def add(self, submitted: Sequence[Draft | Refused]) -> list[Outcome]:
        """Accept documents: from then on they will be stored, whatever happens.

        Return what became of each so far. Raises ConflictError where the job was canceled
        meanwhile.
        """
        accept = partial(self._accept, submitted)
        accepted = await self._memory.run_to_end(
            with_current(self._memory, self._collection, accept)
        )
        for each in accepted:
            self._note(each)
        return [each.outcome for each in accepted]

    async def _accept(
        self, submitted: Sequence[Draft | Refused], collection: Collection
    ) -> list[Accepted]:
        async with self._memory.database.transaction() as connection:
            number = await self._take_job(connection)
            drafts = [each for each in submitted if isinstance(each, Draft)]
            judged, _ = await acceptance.accept(connection, collection, drafts, Terms(), number)
            in_turn = iter(judged)
            accepted = [
                next(in_turn) if isinstance(each, Draft) else Accepted(each.outcome)
                for each in submitted
            ]
            settled = [each.outcome for each in accepted if each.draft_number is None]
            await ingest_jobs.add_settled(connection, self._collection, number, settled)
        self._job_number = number
        count_settled(self._memory, accepted)
        return accepted

    async def _take_job(self, connection: Connection) -> int:
        """Return the job, locked; the first time it is made."""
        if self._job_number is not None:
            await ingest_jobs.lock_unfinished(connection, self._job_number)
            return self._job_number
        lease_s = self._memory.settings.lease_s
        return await jobs.create_job(
            connection,
            self._collection.number,
            type="ingest",
            unit="documents",
            open_s=lease_s,
            wait_s=lease_s if self._wait_s else 0,
        )

    def _note(self, accepted: Accepted) -> None:
        """List an outcome: of the first documents each, of further ones those that failed."""
        self._count += 1
        is_failure = accepted.outcome.status == "failed" and len(self._told) < 2 * self._most
        if not self._tells_all and not is_failure:
            return
        if accepted.draft_number is not None:
            self._waiting[accepted.draft_number] = len(self._told)
        self._told.append(accepted.outcome)

    async def renew_forever(self) -> None:
        """Say again and again that more documents are on their way."""
        lease_s = self._memory.settings.lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            if self._job_number is not None:
                await self._keep_open(lease_s, lease_s)

    async def close(self) -> None:
        """Say that no more documents come."""
        if self._job_number is not None:
            await self._keep_open(0, self._wait_s + self._memory.settings.lease_s)

    async def _keep_open(self, open_s: float, wait_s: float) -> None:
        """Renew both leases; the outcomes are kept for a client that waits for each."""
        assert self._job_number is not None  # noqa: S101 - the callers have looked
        kept_s = wait_s if self._wait_s and self._tells_all else 0
        with suppress(MemorydError):  # the next time; at the end the lease ends by itself
            await jobs.keep_open(
                self._memory.database, self._job_number, open_s=open_s, wait_s=kept_s
            )

    async def finish(self) -> Ingested:
        """Return what became of the documents, `wait_s` after the stream was closed at most.

        One outcome for each of the first `max_documents`; beyond, as many of those that failed at
        once. The job is None where all are told and nothing waits.
        """
        if self._job_number is None:
            return Ingested([])
        if not self._tells_all:
            return Ingested(self._told, await self._wait_for_end(self._job_number))
        if self._wait_s:
            await self._wait_for_each()
        if not self._waiting:
            await ingest_jobs.forget_job(
                self._memory.database, self._collection.number, self._job_number
            )
            return Ingested(self._told)
        await jobs.stop_waiting(self._memory.database, self._job_number)
        return Ingested(self._told, await jobs.find_job(self._memory.database, self._job_number))

    async def _wait_for_each(self) -> None:
        settled = await self._memory.worker.wait_for(
            self._collection, list(self._waiting), self._wait_s
        )
        for number, outcome in settled.items():
            self._told[self._waiting.pop(number)] = outcome

    async def _wait_for_end(self, job_number: int) -> Job:
        deadline = time.monotonic() + self._wait_s
        while True:
            job = await jobs.find_job(self._memory.database, job_number)
            left_s = deadline - time.monotonic()
            if job.finished_at is not None or left_s <= 0 or self._memory.is_stopping:
                return job
            await asyncio.sleep(min(_END_POLL_S, left_s))


@asynccontextmanager
async def open_stream(
    memory: Memory, collection: Collection, *, wait_s: float
) -> AsyncIterator[Stream]:
    """Take documents on during the block; what was accepted stays, however it ends."""
    stream = Stream(memory, collection, wait_s)
    renewal = asyncio.create_task(stream.renew_forever())
    try:
        yield stream
    finally:
        renewal.cancel()
        await memory.run_to_end(stream.close())
