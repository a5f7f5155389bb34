"""Models that come here in the background, for clients that ask how far they are."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from memoryd.errors import MemorydError, NotFoundError, OverloadedError
from memoryd.memory.background import BackgroundTasks
from memoryd.models.downloads import FETCHING, Progress

logger = logging.getLogger(__name__)

# Each has a download, or a trial that takes the cores.
MAX_UNDER_WAY = 8
# Enough for clients that ask every few seconds; what has ended is of no use to others.
KEPT_S = 3600.0
MAX_KEPT = 256

Work = Callable[[Progress], Awaitable[object]]


@dataclass(eq=False)
class ModelJob:
    """Say how far a model is: the bytes are those of the step that it is at."""

    model: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    step: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None
    error: str | None = None
    ended_at: float | None = None
    """In seconds of the monotonic clock; None: it is under way."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens, well or not."""
        return self.ended_at is not None

    @property
    def file_name(self) -> str:
        """The file that is being fetched, else nothing."""
        return self.step.removeprefix(FETCHING) if self.step.startswith(FETCHING) else ""

    def tell(self, step: str, done_bytes: int, total_bytes: int | None) -> None:
        """Note the progress."""
        self.step, self.done_bytes, self.total_bytes = step, done_bytes, total_bytes

    def end(self, error: str | None = None) -> None:
        """Note that nothing more happens, and what went wrong."""
        self.error, self.ended_at = error, time.monotonic()


class ModelJobs:
    """Run jobs while memoryd runs, and remember them for a while after."""

    def __init__(self) -> None:
        """Begin with nothing under way."""
        self._jobs: dict[str, ModelJob] = {}
        self._tasks = BackgroundTasks()

    def start(self, model: str, work: Work) -> ModelJob:
        """Let `work` begin, which is given a function to tell its progress to.

        Raises OverloadedError where too many are under way.
        """
        if sum(not job.has_ended for job in self._jobs.values()) >= MAX_UNDER_WAY:
            raise OverloadedError(
                f"{MAX_UNDER_WAY} models are being fetched: try again when one has come", 10
            )
        job = self._remember(ModelJob(model))
        self._tasks.start(_run(job, work))
        return job

    def record(self, model: str) -> ModelJob:
        """Return a job for what has been done already."""
        job = self._remember(ModelJob(model))
        job.end()
        return job

    def find(self, id_: str) -> ModelJob:
        """Return the job of that id, or raise NotFoundError."""
        self._forget()
        if id_ not in self._jobs:
            raise NotFoundError(
                f"there is no job {id_!r}: one that has ended is forgotten after an hour", "uuid"
            )
        return self._jobs[id_]

    def all(self) -> list[ModelJob]:
        """Return the jobs, the oldest first."""
        self._forget()
        return list(self._jobs.values())

    async def stop(self) -> None:
        """End what is under way; downloads go on where they were, once they are asked for again."""
        await self._tasks.cancel()

    def _remember(self, job: ModelJob) -> ModelJob:
        self._forget()
        self._jobs[job.id] = job
        return job

    def _forget(self) -> None:
        """Drop the jobs that ended long ago, and the oldest where too many have ended."""
        since = time.monotonic() - KEPT_S
        ended = [job for job in self._jobs.values() if job.ended_at is not None]
        for number, job in enumerate(ended):
            if (job.ended_at or 0) < since or number < len(ended) - MAX_KEPT:
                del self._jobs[job.id]


async def _run(job: ModelJob, work: Work) -> None:
    try:
        await work(job.tell)
    except asyncio.CancelledError:
        job.end("stopped")
        raise
    except MemorydError as error:
        job.end(error.message)
    except Exception:  # who asks for the job is told, and others go on
        logger.exception("job %s, which brings %s, failed", job.id, job.model)
        job.end(f"memoryd failed at this job: see its log for {job.id}")
    else:
        job.end()
