"""Who may call, and what is noted of each call."""

import hmac
import ipaddress
import logging
import re
import time
import uuid

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from memoryd.api.notes import NOTES, Notes
from memoryd.api.route import route_of
from memoryd.errors import ForbiddenError, UnauthorizedError

logger = logging.getLogger("memoryd.access")

_HEALTH = frozenset({"/health", "/health/ready"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


@web.middleware
async def note_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, and log method, path, status and milliseconds; never texts."""
    given = request.headers.get("X-Request-Id", "")
    request[NOTES] = Notes(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
    started = time.perf_counter()
    response = await handler(request)
    response.headers["X-Request-Id"] = request[NOTES].id
    logger.info(
        "%s %s %d %.1f ms %s",
        request.method,
        request.rel_url.raw_path,  # as it was sent: a decoded line end would forge a line
        response.status,
        (time.perf_counter() - started) * 1000,
        request[NOTES].id,
    )
    return response


@web.middleware
async def refuse_foreign_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a web page of another origin sends, where no key keeps it out.

    A page can post to a loopback address without asking, and by a name of its own that leads there
    (DNS rebinding) also read.
    """
    origin = request.headers.get("Origin")
    hosts = [request.host] if origin is None else [request.host, origin.partition("://")[2]]
    foreign = [host for host in hosts if not _is_loopback(host)]
    if foreign and request.path not in _HEALTH:
        raise ForbiddenError(
            f"without an API key memoryd answers to localhost alone, not to {foreign[0]!r} in Host "
            "or Origin: start it with MEMORYD_API_KEY"
        )
    return await handler(request)


def _is_loopback(authority: str) -> bool:
    try:
        url = URL.build(authority=authority)
        host = url.host or ""
        if url.user is not None:
            return False
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_key(key: str) -> Middleware:
    """Return the middleware that lets only holders of `key` pass, but for the health routes."""

    @web.middleware
    async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = route_of(request)
        is_public = route is not None and route.scope is None
        if not is_public and not _is_key(request, key):
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
