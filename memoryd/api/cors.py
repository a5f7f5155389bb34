"""Which web pages may use memoryd from a browser (fetch.spec.whatwg.org, "CORS protocol")."""

import re
from collections.abc import Iterable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from yarl import URL

from memoryd.config import is_loopback

# Of desktop apps and editors, which are no web pages; as Ollama (envconfig/config.go).
_APP_SCHEMES = frozenset({"app", "file", "tauri", "vscode-file", "vscode-webview"})
_METHODS = "GET, HEAD, POST, PATCH, DELETE"
_ALLOWED = frozenset(
    {"authorization", "x-api-key", "api-key", "content-type", "accept", "user-agent"}
    | {"idempotency-key", "if-match", "x-request-id", "x-requested-with"}
    | {"openai-beta", "openai-organization", "openai-project"}
)
_STAINLESS = re.compile("x-stainless-[a-z0-9-]+")  # what OpenAI's clients tell of themselves
_EXPOSED = "X-Request-Id, X-Truncated-Inputs, Warning, Retry-After"
_REMEMBERED_S = "600"


class Origins:
    """Know the origins whose pages may use memoryd: those of this machine, and the user's."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        """Take origins in which `*` stands for any part of a host, or any port."""
        self._patterns = [_compile(pattern) for pattern in patterns]

    def allow(self, origin: str) -> bool:
        """Say whether pages of `origin` may."""
        origin = origin.lower()
        scheme, separator, authority = origin.partition("://")
        if separator and scheme in _APP_SCHEMES:
            return True
        if scheme in ("http", "https") and is_local(authority):
            return True
        return any(pattern.fullmatch(origin) for pattern in self._patterns)

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the page that has asked read the answer, if it may."""
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self.allow(origin):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED


def _compile(pattern: str) -> re.Pattern[str]:
    if pattern == "*":
        return re.compile(".*")
    host = re.escape(pattern).replace(r":\*", r"(:[0-9]+)?")
    return re.compile(host.replace(r"\*", "[a-z0-9._-]*"))


def is_local(authority: str) -> bool:
    """Say whether host[:port] names this machine."""
    try:
        url = URL.build(authority=authority)
    except ValueError:
        return False
    return url.user is None and is_loopback(url.host or "")


ORIGINS = web.AppKey("origins", Origins)


@web.middleware
async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell a browser what pages of an allowed origin may send; that needs no key."""
    origin = request.headers.get(hdrs.ORIGIN)
    is_preflight = request.method == "OPTIONS" and (
        hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    )
    if not is_preflight or origin is None or not request.app[ORIGINS].allow(origin):
        return await handler(request)
    response = web.Response(status=204)
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = _METHODS
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = _allowed_of(request)
    response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = _REMEMBERED_S
    return response


def _allowed_of(request: web.Request) -> str:
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "").lower().split(",")
    names = {name.strip() for name in asked}
    return ", ".join(
        sorted(name for name in names if name in _ALLOWED or _STAINLESS.fullmatch(name))
    )
