"""Look at jobs, end them, and try again what failed: each type of job in its own way."""

from typing import Any

from memoryd.errors import ConflictError
from memoryd.memory.state import Memory
from memoryd.storage import ingest_jobs
from memoryd.storage import jobs as storage
from memoryd.storage.jobs import INGEST, Job


async def cancel_job(memory: Memory, job: Job) -> Job:
    """End a job and return it; what of its work is done stays.

    Of an ingest, what isn't stored yet will not be, and its new documents are listed no more.
    Raises ConflictError where it has ended already.
    """
    if job.finished_at is not None:
        raise ConflictError(f"the job {job.id!r} has ended already: it is {job.status}", "id")
    if job.type == INGEST:
        await ingest_jobs.cancel_ingest(memory.database, job.collection_number, job.number)
        memory.worker.drop_job(job.number)
    else:
        await memory.runner.cancel(job)
    return await storage.find_job(memory.database, job.number)


async def retry_job(memory: Memory, job: Job) -> Job:
    """Queue again what failed of a job and return it.

    Raises ConflictError where there is nothing to try again.
    """
    if job.collection is None:
        raise ConflictError(f"the collection of the job {job.id!r} was deleted meanwhile", "id")
    if job.type == INGEST:
        await ingest_jobs.retry_failed(memory.database, job.collection_number, job.number)
    else:
        await memory.runner.retry(job)
    return await storage.find_job(memory.database, job.number)


async def list_failures(
    memory: Memory, job: Job, *, after: int, limit: int
) -> list[tuple[int, str | None, dict[str, Any]]]:
    """Return number, id and error of documents of a job that failed, from after `after` on.

    There are none of a job that is run as a whole, nor of one whose collection was deleted.
    """
    if job.type != INGEST or job.collection is None:
        return []
    return await ingest_jobs.list_failures(
        memory.database, job.collection_number, job.number, after=after, limit=limit
    )
