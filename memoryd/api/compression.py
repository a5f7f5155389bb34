"""Answers are compressed for those who ask for it: not vectors, and not for this machine."""

import ipaddress

from aiohttp import web
from aiohttp.typedefs import Handler

from memoryd.api.route import route_of

# Below this the headers and the work are more than what is saved.
_LEAST_BYTES = 1024
_COMPRESSIBLE = ("text/", "application/json", "application/x-ndjson")
_CODINGS = {"gzip": web.ContentCoding.gzip, "deflate": web.ContentCoding.deflate}


@web.middleware
async def compress(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Compress the answer where the client takes that and it is worth it."""
    response = await handler(request)
    if is_worth_it(request, response):
        response.headers.add("Vary", "Accept-Encoding")
        if coding := choose_coding(request.headers.get("Accept-Encoding", "")):
            response.enable_compression(coding)
    return response


def is_worth_it(request: web.Request, response: web.StreamResponse) -> bool:
    """Say whether compressing the answer saves more time than it takes.

    Vectors hardly become smaller, and to a peer on this machine sending is faster than compressing.
    """
    route = route_of(request)
    if route is not None and route.uses_model and response.status < 400:
        return False
    return (
        isinstance(response, web.Response)
        and isinstance(response.body, bytes)
        and len(response.body) >= _LEAST_BYTES
        and response.content_type.startswith(_COMPRESSIBLE)
        and not _is_on_this_machine(request.remote)
    )


def _is_on_this_machine(address: str | None) -> bool:
    """Say whether a peer's address is loopback, or that of no network as with a Unix socket."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return True
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def choose_coding(accepted: str) -> web.ContentCoding | None:
    """Return the coding that Accept-Encoding likes best, gzip among equals (RFC 9110, 12.5.3)."""
    weights = dict(_weight(item) for item in accepted.lower().split(","))
    anything = weights.get("*", 0.0)
    known = {name: weights.get(name, anything) for name in _CODINGS}
    best = max(known, key=lambda name: known[name])
    return _CODINGS[best] if known[best] > 0 else None


def _weight(item: str) -> tuple[str, float]:
    name, _, parameter = item.partition(";")
    key, _, value = parameter.partition("=")
    try:
        return name.strip(), float(value) if key.strip() == "q" else 1.0
    except ValueError:
        return name.strip(), 0.0
