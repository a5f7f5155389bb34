"""Each request is timed and named once, for the log and for the metrics; never texts."""

import logging
import re
import time
import uuid

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from memoryd.api.notes import NOTES, Notes
from memoryd.api.route import route_of
from memoryd.api.state import MEMORY

logger = logging.getLogger("memoryd.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CLIENT_LEFT = 499  # as nginx says it
# The label of all requests to paths or methods that aren't served, which clients make up.
_UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id; log and count it when it is answered, or its client has left."""
    given = request.headers.get("X-Request-Id", "")
    request[NOTES] = Notes(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
    started, status = time.perf_counter(), _CLIENT_LEFT
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        seconds, route = time.perf_counter() - started, route_of(request)
        _log(request, route.pattern if route else "", status, seconds)
        _count(request, route.pattern if route else _UNMATCHED, status, seconds)


async def add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the client the id under which the request stands in the log."""
    if NOTES in request:  # what aiohttp refuses by itself never came here
        response.headers["X-Request-Id"] = request[NOTES].id


class _WithoutContents(logging.Filter):
    """Keep what aiohttp quotes of a request that it can't read, keys and texts, out of the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = "a request can't be read: %s", (type(error).__name__,)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


http_logger = logging.getLogger("memoryd.http")
"""What aiohttp's server logs to."""
http_logger.addFilter(_WithoutContents())


def _count(request: web.Request, route: str, status: int, seconds: float) -> None:
    method = request.method if request.method in _METHODS else _UNMATCHED
    request.app[MEMORY].engine.metrics.requests.count(route, method, status, seconds)


def _log(request: web.Request, route: str, status: int, seconds: float) -> None:
    notes = request[NOTES]
    path = request.rel_url.raw_path  # as it was sent: a decoded line end would forge a line
    known = {
        "route": route,
        "tokens": notes.tokens,
        "truncated": notes.truncated,
        "user": notes.user,
        "key": notes.key,
    }
    logger.info(
        "%s %s %d %.1f ms %s%s",
        request.method,
        path,
        status,
        seconds * 1000,
        notes.id,
        "".join(f" {name}={value}" for name, value in known.items() if value),
        extra={
            "fields": {
                "request_id": notes.id,
                "method": request.method,
                "path": path,
                "status": status,
                "milliseconds": round(seconds * 1000, 1),
                **known,
            }
        },
    )
