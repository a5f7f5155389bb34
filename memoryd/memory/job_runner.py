"""The runner of jobs that one worker runs as a whole.

Each type of job is a `JobKind`. A job is claimed for a time, and the claim renewed while it runs;
when this process dies, another one goes on from what was saved last.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from memoryd.errors import (
    DatabaseUnavailableError,
    MemorydError,
    StoppingError,
    UnavailableError,
)
from memoryd.memory.background import BackgroundTasks
from memoryd.storage import job_claims, jobs
from memoryd.storage.database import Connection, Database
from memoryd.storage.job_claims import JobClaim, LostJobError
from memoryd.storage.jobs import Job

logger = logging.getLogger(__name__)

_SLOTS = 4
# `wake` is for jobs that this process has made; others' are found by looking.
_POLL_S = 1.0
_MAX_FRUITLESS_ATTEMPTS = 10
_LONGEST_BACKOFF_S = 60.0

Write = Callable[[Connection], Awaitable[None]]


@dataclass(frozen=True)
class JobKind:
    """Say how jobs of one type are run, ended before they are done, and begun anew."""

    run: Callable[[JobClaim], Awaitable[None]]
    """Goes on from the claim's checkpoint; its last transaction calls `complete_job`."""
    abandon: Callable[[Job, Write], Awaitable[None]]
    """Removes what was built, in one transaction with what the second argument writes."""
    restart: Callable[[Job, Write], Awaitable[None]]
    """Makes what `run` needs, in one transaction with what the second argument writes."""


@dataclass
class JobRunner:
    """Run the jobs of some types, a few at once."""

    database: Database
    kinds: Mapping[str, JobKind]
    lease_s: float
    """What it has claimed is others' when it has said nothing for so long."""

    def __post_init__(self) -> None:
        self._id = uuid4()
        self._tasks = BackgroundTasks()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._news = asyncio.Event()

    # --- Life ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to claim jobs."""
        self._tasks.repeat(self._claim)

    async def stop(self) -> None:
        """Stop what runs, and give it back for any worker to go on with."""
        await self._tasks.cancel()

    def wake(self) -> None:
        """Look for jobs now."""
        self._news.set()

    # --- What clients ask for --------------------------------------------------------------

    async def cancel(self, job: Job) -> None:
        """End a job and remove what it has built; raise ConflictError where it has ended."""

        async def write(connection: Connection) -> None:
            await jobs.cancel_job(connection, job.number)

        await self.kinds[job.type].abandon(job, write)
        if task := self._running.get(job.number):
            task.cancel()

    async def retry(self, job: Job) -> None:
        """Let a failed job begin anew; raise ConflictError for one that hasn't failed."""

        async def write(connection: Connection) -> None:
            await jobs.retry_job(connection, job.number)

        await self.kinds[job.type].restart(job, write)
        self.wake()

    # --- Running ---------------------------------------------------------------------------

    async def _claim(self) -> None:
        """Begin a job that there is, or wait for news."""
        self._news.clear()
        if len(self._running) < _SLOTS:
            claim = await job_claims.claim_job(self.database, self._id, self.kinds, self.lease_s)
            if claim:
                self._begin(claim)
                return
        with suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await self._news.wait()

    def _begin(self, claim: JobClaim) -> None:
        task = self._running[claim.number] = self._tasks.start(self._hold(claim))
        task.add_done_callback(lambda _task: self._end(claim.number))

    def _end(self, number: int) -> None:
        del self._running[number]
        self.wake()

    async def _hold(self, claim: JobClaim) -> None:
        """Run a job while its claim is renewed; give it back where it can't go on now."""
        running = asyncio.create_task(self._run(claim))
        renewing = asyncio.create_task(self._renew(claim))
        try:
            await asyncio.wait({running, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (running, renewing):
                task.cancel()
            await asyncio.gather(running, renewing, return_exceptions=True)
            if running.cancelled():
                with suppress(MemorydError):  # else it is others' when the lease has ended
                    await job_claims.release_job(self.database, claim, 0)

    async def _renew(self, claim: JobClaim) -> None:
        """Return when the job is no longer this worker's."""
        while True:
            await asyncio.sleep(self.lease_s / 3)
            try:
                await job_claims.renew_job(self.database, claim, self.lease_s)
            except LostJobError:
                return
            except MemorydError:  # the next time, or others go on with it
                continue

    async def _run(self, claim: JobClaim) -> None:
        try:
            await self.kinds[claim.type].run(claim)
        except LostJobError:
            return
        except StoppingError:
            await job_claims.release_job(self.database, claim, 0)
        except Exception as error:  # whatever one job does, the others go on
            with suppress(MemorydError):  # then its lease ends
                await self._refuse(claim, error)

    async def _refuse(self, claim: JobClaim, error: Exception) -> None:
        """Give a job back where another attempt may help, else end it."""
        if not isinstance(error, MemorydError):
            logger.exception("the job j%d failed", claim.number)
            error = MemorydError("memoryd failed at this job: see its log")
        is_passing = isinstance(error, UnavailableError) or type(error) is MemorydError
        is_hopeful = claim.fruitless_attempts < _MAX_FRUITLESS_ATTEMPTS
        if isinstance(error, DatabaseUnavailableError) or (is_passing and is_hopeful):
            backoff_s = min(2.0**claim.fruitless_attempts / 2, _LONGEST_BACKOFF_S)
            await job_claims.release_job(self.database, claim, backoff_s, error)
            return
        logger.warning("the job j%d failed: %s", claim.number, error.message)
        job = await jobs.find_job(self.database, claim.number)

        async def write(connection: Connection) -> None:
            await job_claims.fail_job(connection, claim, error)

        await self.kinds[claim.type].abandon(job, write)
