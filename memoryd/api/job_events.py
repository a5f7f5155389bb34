"""GET /v1/jobs/{id}/events: a job is told as it goes on, as server-sent events.

The format is that of the HTML standard, section 9.2 "Server-sent events".
"""

import asyncio
import time
from contextlib import suppress

import orjson
from aiohttp import web

from memoryd.api import jobs
from memoryd.api.notes import NOTES
from memoryd.api.state import MEMORY
from memoryd.errors import NotFoundError, UnavailableError
from memoryd.storage.jobs import Job, find_job

EVENT_STREAM = "text/event-stream"
_POLL_S = 0.5
# Proxies close what is silent, most of them after a minute.
_HEARTBEAT_S = 15.0
_HEARTBEAT = b": the job goes on\n\n"


async def stream(request: web.Request) -> web.StreamResponse:
    """Tell a job whenever it changes, until it has ended.

    Each event is named `job`, its data is what GET /v1/jobs/{id} answers. A comment comes each 15
    seconds in which nothing else does.
    """
    job = await jobs.find(request)
    headers = {
        "Content-Type": EVENT_STREAM,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",  # else nginx would hold events back
        "X-Request-Id": request[NOTES].id,
    }
    response = web.StreamResponse(headers=headers)
    with suppress(ConnectionError):  # the client has left
        await response.prepare(request)
        if request.method != "HEAD":
            await _tell(request, response, job)
        await response.write_eof()
    return response


async def _tell(request: web.Request, response: web.StreamResponse, job: Job) -> None:
    memory = request.app[MEMORY]
    await response.write(_event(job))
    told_at = time.monotonic()
    while job.finished_at is None and not memory.is_stopping:
        await asyncio.sleep(_POLL_S)
        current = await _look(request, job)
        if current is None:
            return
        if current != job:
            job = current
            await response.write(_event(job))
            told_at = time.monotonic()
        elif time.monotonic() - told_at >= _HEARTBEAT_S:
            await response.write(_HEARTBEAT)
            told_at = time.monotonic()


async def _look(request: web.Request, job: Job) -> Job | None:
    """Return the job as it is now, as it was while the database is away, None where it is gone."""
    try:
        with suppress(UnavailableError):
            return await find_job(request.app[MEMORY].database, job.number)
    except NotFoundError:
        return None
    return job


def _event(job: Job) -> bytes:
    return b"event: job\ndata: " + orjson.dumps(jobs.job_answer(job)) + b"\n\n"
