"""Who may call, and what is noted of each call."""

import hmac
import logging
import time
import uuid

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from memoryd.api.errors import REQUEST_ID
from memoryd.errors import UnauthorizedError

logger = logging.getLogger("memoryd.access")

_PUBLIC = frozenset({"/", "/health", "/health/ready"})


@web.middleware
async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, and log method, path, status and milliseconds; never texts."""
    request[REQUEST_ID] = request.headers.get("X-Request-Id", "")[:128] or uuid.uuid4().hex
    started = time.perf_counter()
    response = await handler(request)
    response.headers["X-Request-Id"] = request[REQUEST_ID]
    logger.info(
        "%s %s %d %.1f ms %s",
        request.method,
        request.path,
        response.status,
        (time.perf_counter() - started) * 1000,
        request[REQUEST_ID],
    )
    return response


def require_key(key: str) -> Middleware:
    """Return the middleware that lets only holders of `key` pass, but for the health routes."""

    @web.middleware
    async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in _PUBLIC and not _is_key(request, key):
            raise UnauthorizedError(
                "an API key is needed: send it as 'Authorization: Bearer <key>' or 'X-Api-Key'"
            )
        return await handler(request)

    return check_key


def _is_key(request: web.Request, key: str) -> bool:
    given = request.headers.get("X-Api-Key", "")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        given = token.strip()
    return hmac.compare_digest(given.encode("utf-8", "replace"), key.encode())
