"""Who may call."""

from aiohttp import web
from aiohttp.typedefs import Handler

from memoryd.api import health
from memoryd.api.cors import ORIGINS, is_local
from memoryd.api.notes import NOTES
from memoryd.api.route import Route, route_of
from memoryd.api.state import MEMORY
from memoryd.documents.types import Collection
from memoryd.errors import ForbiddenError
from memoryd.memory.keys import EVERYTHING, Grant

GRANT = web.RequestKey("grant", Grant)
"""What the sender may do; public routes have none."""

# They tell nothing, and are asked by whatever name a machine goes.
_HEALTH: frozenset[Handler] = frozenset({health.alive, health.ready})
# Behind a proxy, clients ask this to see whether a server is there.
_HARMLESS_WITH_KEYS: frozenset[Handler] = frozenset({health.root})


@web.middleware
async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let pass whoever has a key for the route; without any keys, what comes from this machine."""
    route = route_of(request)
    if route is not None and route.scope is None:
        await _check_public(request, route)
    elif await request.app[MEMORY].keys.are_wanted():
        request[GRANT] = await _check_key(request, route)
    else:
        _refuse_foreign_pages(request)
        request[GRANT] = EVERYTHING
    return await handler(request)


async def _check_public(request: web.Request, route: Route) -> None:
    """Raise ForbiddenError for a page of another origin, where the answer tells it anything."""
    if route.handler in _HEALTH or _find_foreigner(request) is None:
        return
    if route.handler in _HARMLESS_WITH_KEYS and await request.app[MEMORY].keys.are_wanted():
        return
    _refuse_foreign_pages(request)


def _refuse_foreign_pages(request: web.Request) -> None:
    """Raise ForbiddenError for what a web page of another origin sends.

    Without a key nothing else keeps it out: a page can post to a loopback address without asking,
    and by a name of its own that leads there (DNS rebinding) also read.
    """
    if foreigner := _find_foreigner(request):
        raise ForbiddenError(
            f"without an API key memoryd answers to localhost alone, not to {foreigner}: make a "
            "key with `memoryd keys create`, or allow the origin of a page with "
            "MEMORYD_CORS_ORIGINS"
        )


def _find_foreigner(request: web.Request) -> str | None:
    """Return what in Host or Origin is neither this machine's nor allowed.

    Where others are meant to reach memoryd, it can't know by which names they do.
    """
    origin = request.headers.get("Origin")
    if origin is not None and not request.app[ORIGINS].allow(origin):
        return f"the Origin {origin!r}"
    if is_local(request.host) or request.app[MEMORY].settings.is_exposed:
        return None
    return f"the Host {request.host!r}"


async def _check_key(request: web.Request, route: Route | None) -> Grant:
    """Return what the sender's key opens, which includes the route."""
    grant = await request.app[MEMORY].keys.grant(_given_key(request))
    request[NOTES].key = grant.key_id
    wanted = route.scope if route else None
    if wanted and not grant.allows(wanted):
        has = " and ".join(sorted(grant.scopes))
        raise ForbiddenError(f"this needs an API key with the scope {wanted}, and yours has {has}")
    return grant


def _given_key(request: web.Request) -> str:
    """Return the key that was sent, as OpenAI's, llama.cpp's or Azure's clients send it."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    others = (request.headers.get(name, "") for name in ("X-Api-Key", "api-key"))
    return bearer or next(filter(None, others), "")


def require_collection(request: web.Request, collection: Collection) -> None:
    """Raise ForbiddenError where the sender's key doesn't open that collection."""
    if not request[GRANT].opens(collection):
        raise _for_some_alone()


def require_all_collections(request: web.Request) -> None:
    """Raise ForbiddenError where the sender's key is for some collections alone."""
    if request[GRANT].collection_numbers is not None:
        raise _for_some_alone()


def _for_some_alone() -> ForbiddenError:
    return ForbiddenError(
        "this API key is for some collections alone: another one, and to make, name or delete any, "
        "takes a key for all"
    )
