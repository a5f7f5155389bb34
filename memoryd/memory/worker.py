"""The worker: claims what waits, in turn among jobs, and stores it."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal
from uuid import uuid4
from weakref import WeakValueDictionary

from memoryd.documents.types import Collection, Outcome
from memoryd.errors import (
    DatabaseUnavailableError,
    MemorydError,
    ModelFetchError,
    NotFoundError,
    OverloadedError,
    StoppingError,
    StorageFullError,
    UnavailableError,
)
from memoryd.memory.background import BackgroundTasks
from memoryd.storage import collections, drafts, ingest_jobs, jobs
from memoryd.storage.database import Database
from memoryd.storage.drafts import Claim, Claimant, LostClaimError

logger = logging.getLogger(__name__)

# Enough documents under way to keep the engine busy while others are written.
_SLOTS = 96
# A part of them, so that a large batch leaves some to others.
_SLOTS_OF_A_JOB = 48
# Of one job at a time, so that others get their turn.
_CLAIMED_AT_ONCE = 16
_JOBS_LOOKED_AT = 100
# Notifications wake the worker; this is for those that were lost, and for expired leases.
_POLL_S = 2.0
_COUNT_EVERY_S = 0.5
_FIRST_OUTCOME_POLL_S = 0.05
_LAST_OUTCOME_POLL_S = 0.5
_DATABASE_POLL_S = 0.25
_MAX_ATTEMPTS = 5
# A process that ends takes along what only waited its turn: those are not at fault so soon.
_MAX_CLAIMS = 10
_LONGEST_BACKOFF_S = 60.0
# No fault of the document's, and it may last: it waits as long as that takes.
_CAUSES_OUTSIDE = (StorageFullError, OverloadedError, ModelFetchError)
_OUTSIDE_POLL_S = 10.0
# Of clients that left, or wait for less long than it takes: others' drafts stay in the database.
_MOST_HELD = 2_000

Stage = Literal["parsing", "chunking", "embedding", "storing"]

_Future = asyncio.Future[Outcome | None]
"""None: other workers see to it."""


class Worker:
    """Store what was accepted: what clients of this process wait for, and what any one enqueued."""

    def __init__(
        self,
        database: Database,
        store: Callable[[Claim], Awaitable[Outcome]],
        *,
        lease_s: float,
        count: Callable[[str], None],
    ) -> None:
        """Begin nothing yet; `start` does. `store` stores a draft and says what became of it.

        `count` is called with the status of each document that it settles. What it has claimed is
        others' when it has said nothing for `lease_s`.
        """
        self.claimant = Claimant(uuid4(), lease_s)
        self._database = database
        self._store = store
        self._count = count
        self._tasks = BackgroundTasks()
        self._slots = asyncio.Semaphore(_SLOTS)
        self._news = asyncio.Event()
        self._is_claiming = True
        self._held: dict[tuple[int, int], Claim] = {}
        """By collection and draft."""
        self._running: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._fetched: set[tuple[int, int]] = set()
        """Those that no client of this process waits for: only they take up room for others."""
        self._freed = asyncio.Event()
        self._left: list[Claim] = []
        """What could not be stored since memoryd stops: it is given back at the end."""
        self._waited: dict[tuple[int, int], _Future] = {}
        self._to_count: dict[int, int] = {}
        """Jobs of which something was settled, and their collections."""
        self._stages: dict[tuple[int, int], Stage] = {}
        """What is being done with drafts that are held, and have begun."""
        self._told_stages: dict[int, Stage] = {}
        """By job, as it was written last."""
        self._turns: WeakValueDictionary[tuple[int, int], asyncio.Lock] = WeakValueDictionary()
        """By collection and document: what is held of one is stored in the order of acceptance."""
        self._shares: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    # --- Life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to claim what waits."""
        for work in (self._claim, self._listen, self._renew, self._count_settled):
            self._tasks.repeat(work)

    async def stop(self) -> None:
        """End what is under way and give it back, for any worker to go on with."""
        self._left += self._held.values()  # each is let go when its task is cancelled
        await self._tasks.cancel()
        self.stop_waiting()
        with suppress(MemorydError):  # leases end
            for collection_number, numbers in _by_collection(
                (claim.collection.number, claim.number) for claim in self._left
            ).items():
                await drafts.give_back(self._database, collection_number, self.claimant.id, numbers)
            await jobs.offer(self._database, {claim.job_number for claim in self._left})

    def stop_claiming(self) -> None:
        """Claim nothing more: the process is about to end."""
        self._is_claiming = False

    def stop_waiting(self) -> None:
        """Let `wait_for` return at once with what is settled: the process is about to end."""
        for future in self._waited.values():
            future.cancel()

    def drop_job(self, job_number: int) -> None:
        """Work no longer for a job that has been cancelled."""
        for key, claim in self._held.items():
            if claim.job_number == job_number:
                self._running[key].cancel()

    def wake(self) -> None:
        """Look for something to claim now."""
        self._news.set()

    # --- What clients of this process wait for ----------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether drafts may be claimed for this worker as they are accepted."""
        return self._is_claiming and len(self._held) < _MOST_HELD

    def take(self, claims: Sequence[Claim]) -> None:
        """Store what was claimed for this worker when it was accepted."""
        for claim in claims:
            self._begin(claim)

    async def wait_for(
        self, collection: Collection, numbers: Sequence[int], wait_s: float
    ) -> dict[int, Outcome]:
        """Return the outcomes of drafts by number, those that are there after `wait_s` at most."""
        deadline = time.monotonic() + wait_s
        poll_s = _FIRST_OUTCOME_POLL_S
        settled: dict[int, Outcome] = {}
        waiting = {number: self._future(collection, number) for number in numbers}
        try:
            while waiting and (left := deadline - time.monotonic()) > 0:
                await self._wait_for_some(collection, waiting, left, poll_s)
                poll_s = min(poll_s * 1.5, _LAST_OUTCOME_POLL_S)
                if any(future.cancelled() for future in waiting.values()):
                    break
                for number in [number for number, future in waiting.items() if future.done()]:
                    outcome = waiting.pop(number).result()
                    if outcome is None:
                        waiting[number] = self._future(collection, number)
                    else:
                        settled[number] = outcome
        finally:
            for number in numbers:
                self._waited.pop((collection.number, number), None)
        return settled

    async def _wait_for_some(
        self,
        collection: Collection,
        waiting: dict[int, _Future],
        wait_s: float,
        poll_s: float,
    ) -> None:
        """Wait until one is done at least; what other workers do is seen in the database."""
        elsewhere = [number for number in waiting if (collection.number, number) not in self._held]
        pause_s = min(wait_s, poll_s) if elsewhere else wait_s
        done, _ = await asyncio.wait(
            waiting.values(), timeout=pause_s, return_when=asyncio.FIRST_COMPLETED
        )
        if done or not elsewhere:
            return
        self.wake()  # what stood before these may be done
        with suppress(UnavailableError):
            found = await drafts.find_outcomes(self._database, collection.number, elsewhere)
            for number, outcome in found.items():
                if outcome is None:  # its job was cancelled: nobody will tell more
                    waiting[number].cancel()
                elif not waiting[number].done():
                    waiting[number].set_result(outcome)

    def _future(self, collection: Collection, number: int) -> _Future:
        future: _Future = asyncio.get_running_loop().create_future()
        self._waited[collection.number, number] = future
        return future

    # --- Storing -----------------------------------------------------------------------------

    def note_stage(self, claim: Claim, stage: Stage) -> None:
        """Note what is being done with a draft that this worker holds; its job tells it."""
        key = (claim.collection.number, claim.number)
        if key in self._held:
            self._stages[key] = stage

    def _begin(self, claim: Claim) -> None:
        key = (claim.collection.number, claim.number)
        self._held[key] = claim
        self._running[key] = self._tasks.start(self._run(claim))

    async def _run(self, claim: Claim) -> None:
        """Store one draft, and let it go whatever happens."""
        outcome = None
        try:
            async with self._turn(claim), self._share(claim), self._slots:
                outcome = await self._settle(claim)
        finally:
            self._let_go(claim, outcome)
        if outcome is not None:
            self._count(outcome.status)
            self._to_count[claim.job_number] = claim.collection.number

    def _let_go(self, claim: Claim, outcome: Outcome | None) -> None:
        """Forget a draft, and tell who waits for it what became of it."""
        key = (claim.collection.number, claim.number)
        del self._held[key], self._running[key]
        self._stages.pop(key, None)
        if key in self._fetched:
            self._fetched.remove(key)
            self.wake()  # the next draft of the same document may have waited for this one
        self._freed.set()
        future = self._waited.get(key)
        if future is not None and not future.done():
            future.set_result(outcome)

    def _turn(self, claim: Claim) -> asyncio.Lock:
        key = (claim.collection.number, claim.document_number)
        lock = self._turns.get(key)
        if lock is None:
            lock = self._turns[key] = asyncio.Lock()
        return lock

    def _share(self, claim: Claim) -> asyncio.Semaphore:
        share = self._shares.get(claim.job_number)
        if share is None:
            share = self._shares[claim.job_number] = asyncio.Semaphore(_SLOTS_OF_A_JOB)
        return share

    async def _settle(self, claim: Claim) -> Outcome | None:
        """Return what became of a draft, None where others will see to it."""
        while True:
            try:
                return await self._attempt(claim)
            except DatabaseUnavailableError:
                await self._wait_for_database()
            except LostClaimError:
                return None
            except StoppingError:
                self._left.append(claim)
                return None

    async def _attempt(self, claim: Claim) -> Outcome | None:
        try:
            if claim.attempt > _MAX_CLAIMS:
                raise MemorydError(  # noqa: TRY301 - told as any other failure
                    f"memoryd ended {_MAX_CLAIMS} times while it held this document"
                )
            return await self._store(claim)
        except (LostClaimError, StoppingError, DatabaseUnavailableError):
            raise
        except Exception as error:  # whatever one document does, the others are stored
            return await self._refuse(claim, error)

    async def _refuse(self, claim: Claim, error: Exception) -> Outcome | None:
        """Give a draft back where another attempt may help, else write why it fails."""
        if not isinstance(error, MemorydError):
            logger.exception("a document of %r could not be stored", claim.collection.name)
            error = MemorydError("memoryd failed at this document: see its log")
        if isinstance(error, _CAUSES_OUTSIDE):
            logger.warning("documents wait: %s", error.message)
            await drafts.postpone(self._database, claim, _OUTSIDE_POLL_S)
            return None
        is_passing = isinstance(error, UnavailableError) or type(error) is MemorydError
        if is_passing and claim.attempt < _MAX_ATTEMPTS:
            backoff_s = min(2.0**claim.attempt / 2, _LONGEST_BACKOFF_S)
            await drafts.release_claim(self._database, claim, backoff_s)
            return None
        with suppress(NotFoundError):  # the collection was deleted, and the draft with it
            await drafts.settle_failure(self._database, claim, error)
        return Outcome(claim.external_id, "failed", error=error)

    async def _wait_for_database(self) -> None:
        while True:
            await asyncio.sleep(_DATABASE_POLL_S)
            with suppress(UnavailableError):
                return await self._database.ping()

    # --- Claiming ----------------------------------------------------------------------------

    async def _claim(self) -> None:
        """Claim what there is, then wait for news."""
        self._news.clear()
        if self._is_claiming and await self._claim_round():
            return
        with suppress(TimeoutError):  # not wait_for: that may swallow a cancellation before 3.12
            async with asyncio.timeout(_POLL_S):
                await self._news.wait()

    async def _claim_round(self) -> int:
        """Claim of each job that has something, once; return how many drafts."""
        claimed = 0
        for job_number, collection_number in await jobs.list_unserved(
            self._database, _JOBS_LOOKED_AT
        ):
            room = await self._room()
            claims = await self._claim_of(job_number, collection_number, room)
            for claim in claims:
                self._fetched.add((collection_number, claim.number))
                self._begin(claim)
            if not claims:
                self._to_count[job_number] = collection_number
            claimed += len(claims)
        return claimed

    async def _room(self) -> int:
        """Return how many more may be claimed, once that is more than none."""
        while len(self._fetched) >= _SLOTS:
            self._freed.clear()
            await self._freed.wait()
        return _SLOTS - len(self._fetched)

    async def _claim_of(self, job_number: int, collection_number: int, room: int) -> list[Claim]:
        database = self._database
        held = [number for collection, number in self._held if collection == collection_number]
        try:
            collection = await collections.find_collection_by_number(database, collection_number)
            claiming = drafts.claim_drafts(
                database,
                collection,
                job_number,
                self.claimant,
                held=held,
                limit=min(room, _CLAIMED_AT_ONCE),
            )
            return await self._finish_claiming(asyncio.ensure_future(claiming))
        except NotFoundError:  # it is being deleted, and its jobs with it
            return []
        except DatabaseUnavailableError:
            raise
        except MemorydError as error:  # one job's trouble keeps no other from its turn
            logger.warning("cannot claim documents of job j%d: %s", job_number, error.message)
            await jobs.pass_over(database, job_number)
            return []

    async def _finish_claiming(self, claiming: asyncio.Future[list[Claim]]) -> list[Claim]:
        """Return what is claimed; at the end of memoryd, see to it that it is given back."""
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(MemorydError):  # then there is nothing to give back
                self._left += await claiming
            raise

    # --- Leases, counts, notifications -------------------------------------------------------

    async def _renew(self) -> None:
        """Renew what is held; what is others' by now, or nobody's, is no longer worked on."""
        await asyncio.sleep(self.claimant.lease_s / 3)
        for collection_number, numbers in _by_collection(self._held).items():
            try:
                lost = await drafts.renew_claims(
                    self._database, collection_number, self.claimant, numbers
                )
            except NotFoundError:  # the collection was deleted
                lost = set(numbers)
            for number in lost:
                if task := self._running.get((collection_number, number)):
                    task.cancel()

    async def _count_settled(self) -> None:
        await asyncio.sleep(_COUNT_EVERY_S)
        pending, self._to_count = self._to_count, {}
        for job_number, collection_number in pending.items():
            with suppress(MemorydError):  # the next worker that looks at the job counts
                await ingest_jobs.count_settled(self._database, collection_number, job_number)
        await self._tell_stages()

    async def _tell_stages(self) -> None:
        """Write of each job the stage that most of its drafts are in, where it is another one."""
        stages: dict[int, Counter[Stage]] = {}
        for key, stage in self._stages.items():
            stages.setdefault(self._held[key].job_number, Counter())[stage] += 1
        most = {job_number: counted.most_common(1)[0][0] for job_number, counted in stages.items()}
        told, self._told_stages = self._told_stages, most
        for job_number, stage in most.items():
            if told.get(job_number) != stage:
                with suppress(MemorydError):  # it tells a later one
                    await jobs.set_stage(self._database, job_number, stage)

    async def _listen(self) -> None:
        self.wake()
        await self._database.listen(jobs.CHANNEL, self.wake)


def _by_collection(keys: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    numbers: dict[int, list[int]] = {}
    for collection_number, number in keys:
        numbers.setdefault(collection_number, []).append(number)
    return numbers
