"""The HTTP client with which commands talk to a running memoryd."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
import orjson
import typer

from memoryd.config import Settings
from memoryd.errors import InvalidInputError, MemorydError, UnavailableError

UrlOption = Annotated[
    str | None,
    typer.Option(
        help="Where memoryd listens. [default: from host and the first port; env var: MEMORYD_URL]"
    ),
]


# Servers that listen on all addresses are reached at this machine's own.
_ALL_ADDRESSES = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here


class RequestError(MemorydError):
    """Report what the server answered instead of a result."""

    def __init__(self, status: int, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class Client:
    """Send requests to a running memoryd."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Take an open session; `connect` makes one."""
        self._session = session
        self._url = url

    async def request(
        self, method: str, path: str, body: Any = None, *, accepted: frozenset[int] = frozenset()
    ) -> Any:
        """Return the JSON answer, if it is no error or of an `accepted` status.

        Raises RequestError for an error that the server tells, UnavailableError where there is
        no server.
        """
        data = None if body is None else _write(body)
        try:
            async with self._session.request(method, self._url + path, data=data) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(
                f"no memoryd answers at {self._url} ({error}): start it with `memoryd serve`, "
                "or say where it is with --url"
            ) from error
        value = _read(response.status, answer)
        if response.status >= 400 and response.status not in accepted:
            text = _error_text(value) or f"the server answered {response.status}"
            raise RequestError(response.status, text, _retry_after_s(response))
        return value


def _write(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError as error:  # a lone surrogate: how Python keeps bytes of the command line
        raise InvalidInputError("an argument is not UTF-8") from error


def _read(status: int, answer: bytes) -> Any:
    try:
        return orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise RequestError(status, f"the server is not memoryd: it answered {status}") from error


def _error_text(value: Any) -> str | None:
    """Return what memoryd, or another server, says of an error."""
    error = value.get("error") if isinstance(value, dict) else None
    text = error.get("message") if isinstance(error, dict) else error
    return text if isinstance(text, str) else None


def _retry_after_s(response: aiohttp.ClientResponse) -> int:
    given = response.headers.get("Retry-After", "")
    return int(given) if given.isdecimal() else 1


def default_url(settings: Settings) -> str:
    """Return where a memoryd with these settings is reached from its own machine."""
    host = _ALL_ADDRESSES.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port[0]}"


@asynccontextmanager
async def connect(settings: Settings, url: str | None) -> AsyncIterator[Client]:
    """Open a session to `url`, else $MEMORYD_URL, else where the settings say memoryd listens."""
    address = url or os.environ.get("MEMORYD_URL") or default_url(settings)
    headers = {"Content-Type": "application/json"}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield Client(session, address.rstrip("/"))
