"""Routes of jobs."""

import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from memoryd.api.access import GRANT, require_all_collections, require_collection
from memoryd.api.errors import ErrorObject, error_object, json_response
from memoryd.api.fields import CollectionName, Cursor, Time, write_time
from memoryd.api.paging import PageQuery
from memoryd.api.queries import read_query
from memoryd.api.state import MEMORY
from memoryd.errors import NotFoundError, rebuild_error
from memoryd.memory import jobs
from memoryd.storage import jobs as storage
from memoryd.storage.collections import find_collection
from memoryd.storage.jobs import Job, JobStatus

# No more digits than a number of Postgres has.
_ID = re.compile(r"j([1-9][0-9]{0,17})", re.ASCII)
_NEWEST = 10**18 - 1


class JobsQuery(PageQuery):
    """Which jobs are asked for."""

    status: JobStatus | None = Field(None, description="Those of this status alone.")
    collection: CollectionName | None = Field(None, description="Those of this one alone.")


class ProgressAnswer(TypedDict):
    """How far a job is."""

    done: int
    total: int
    unit: str


class JobAnswer(TypedDict):
    """Work that goes on by itself, whatever becomes of the client and of memoryd's processes."""

    id: str
    type: str
    collection: str | None
    """None: it has been deleted."""
    status: JobStatus
    stage: str | None
    progress: ProgressAnswer
    counts: dict[str, int]
    """How many documents became what, and `total`."""
    attempt: int
    last_error: ErrorObject | None
    result: dict[str, Any] | None
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    eta_s: float | None
    """When it ends, by its pace so far; None: it has ended, or nothing tells yet."""


def job_answer(job: Job) -> JobAnswer:
    """Return what is told of a job."""
    return {
        "id": job.id,
        "type": job.type,
        "collection": job.collection,
        "status": job.status,
        "stage": job.stage,
        "progress": {"done": job.done, "total": job.total, "unit": job.unit},
        "counts": {**job.counts, "total": job.total} if job.type == "ingest" else job.counts,
        "attempt": job.attempt,
        "last_error": error_object(rebuild_error(job.last_error)) if job.last_error else None,
        "result": job.result,
        "created_at": write_time(job.created_at),
        "started_at": write_time(job.started_at) if job.started_at else None,
        "finished_at": write_time(job.finished_at) if job.finished_at else None,
        "eta_s": _eta_s(job),
    }


def _eta_s(job: Job) -> float | None:
    done = job.done - job.done_before
    if job.started_at is None or job.finished_at is not None or job.is_open or done <= 0:
        return None
    elapsed_s = max((datetime.now(UTC) - job.started_at).total_seconds(), 0)
    return round(elapsed_s / done * (job.total - job.done), 1)


class JobsAnswer(TypedDict):
    """A page of jobs, the newest first."""

    jobs: list[JobAnswer]
    next_cursor: Cursor


class FailureAnswer(TypedDict):
    """A document that could not be stored, and why."""

    id: str | None
    """None: it had none, or what came could not be read."""
    error: ErrorObject


class FailuresAnswer(TypedDict):
    """A page of a job's failures, in the order in which the documents came."""

    failures: list[FailureAnswer]
    next_cursor: Cursor


async def find(request: web.Request) -> Job:
    """Return the job that the path names.

    Raises NotFoundError, also where the sender's key doesn't open its collection: numbers follow
    one another, and whoever sees some could ask which others there are.
    """
    given = request.match_info["id"]
    matched = _ID.fullmatch(given)
    if matched:
        job = await storage.find_job(request.app[MEMORY].database, int(matched[1]))
        opened = request[GRANT].collection_numbers
        if opened is None or job.collection_number in opened:
            return job
    raise NotFoundError(f"there is no job {given!r}", "id")


async def list_(request: web.Request) -> web.Response:
    """List the jobs, the newest first."""
    memory = request.app[MEMORY]
    query = read_query(request, JobsQuery)
    found = await storage.list_jobs(
        memory.database,
        before=query.after_number(_NEWEST),
        limit=query.limit_and_one,
        status=query.status,
        collection_number=await _collection_number(request, query.collection),
        among=request[GRANT].collection_numbers,
    )
    page, cursor = query.cut(found, lambda job: job.number)
    answer: JobsAnswer = {"jobs": list(map(job_answer, page)), "next_cursor": cursor}
    return json_response(answer)


async def _collection_number(request: web.Request, name: str | None) -> int | None:
    if name is None:
        return None
    try:
        collection = await find_collection(request.app[MEMORY].database, name)
    except NotFoundError:
        require_all_collections(request)  # else who may see some could ask which others there are
        raise
    require_collection(request, collection)
    return collection.number


async def show(request: web.Request) -> web.Response:
    """Show a job."""
    return json_response(job_answer(await find(request)))


async def cancel(request: web.Request) -> web.Response:
    """End a job: what isn't stored yet will not be, and what is stays."""
    job = await jobs.cancel_job(request.app[MEMORY], await find(request))
    return json_response(job_answer(job))


async def retry(request: web.Request) -> web.Response:
    """Try again what failed."""
    job = await jobs.retry_job(request.app[MEMORY], await find(request))
    return json_response(job_answer(job), status=202)


async def list_failures(request: web.Request) -> web.Response:
    """List the documents of a job that failed, and why."""
    query = read_query(request, PageQuery)
    found = await jobs.list_failures(
        request.app[MEMORY],
        await find(request),
        after=query.after_number(0),
        limit=query.limit_and_one,
    )
    page, cursor = query.cut(found, lambda failure: failure[0])
    answer: FailuresAnswer = {
        "failures": [
            {"id": id_, "error": error_object(rebuild_error(error))} for _number, id_, error in page
        ],
        "next_cursor": cursor,
    }
    return json_response(answer)
