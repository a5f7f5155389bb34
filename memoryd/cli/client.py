"""The HTTP client with which commands talk to a running memoryd."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import quote, urlencode

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


_PAGE = 100
_DATA = b"data: "
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

        `body` is sent as JSON, a form as what it is. Raises RequestError for an error that the
        server tells, UnavailableError where there is no server.
        """
        is_ready = isinstance(body, aiohttp.MultipartWriter | AsyncIterator)
        data, headers = (body, {}) if is_ready else _write(body)
        async with self._asking(method, path, data=data, headers=headers) as response:
            answer = await response.read()
        value = _read(response.status, answer)
        if response.status >= 400 and response.status not in accepted:
            text = _error_text(value) or f"the server answered {response.status}"
            raise RequestError(response.status, text, _retry_after_s(response))
        return value

    async def events(self, path: str) -> AsyncGenerator[Any, None]:
        """Yield the data, which is JSON, of each server-sent event until the stream ends.

        Raises as `request` does; a stream that breaks off counts as no server.
        """
        async with self._asking("GET", path) as response:
            if response.status != 200:
                value = _read(response.status, await response.read())
                raise RequestError(response.status, _error_text(value) or "there are no events")
            async for line in response.content:
                if line.startswith(_DATA):
                    yield orjson.loads(line.removeprefix(_DATA))

    async def download(self, path: str) -> AsyncIterator[bytes]:
        """Yield a long answer in pieces; raise as `request` does, also where it breaks off."""
        async with self._asking("GET", path) as response:
            if response.status != 200:
                value = _read(response.status, await response.read())
                raise RequestError(response.status, _error_text(value) or "there is no such answer")
            try:
                async for piece in response.content.iter_any():
                    yield piece
            except aiohttp.ClientPayloadError as error:
                raise UnavailableError("the answer broke off: try again") from error

    async def read_text(self, path: str) -> str:
        """Return a text that the server answers, "" where it answers something else."""
        async with self._asking("GET", path) as response:
            return await response.text() if response.status == 200 else ""

    @asynccontextmanager
    async def _asking(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(method, self._url + path, **options) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(
                f"no memoryd answers at {self._url} ({error}): start it with `memoryd serve`, "
                "or say where it is with --url"
            ) from error


async def pages(
    client: Client, path: str, noun: str, *, limit: int | None = None, **query: str | None
) -> AsyncIterator[Any]:
    """Yield the entries of a list, up to `limit` of them; `query` tells what of it is wanted."""
    given = {name: value for name, value in query.items() if value is not None}
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(left, _PAGE)
        page = await client.request("GET", f"{path}?{_encoded({**given, 'limit': str(size)})}")
        for entry in page[noun]:
            yield entry
        if page["next_cursor"] is None:
            return
        given["cursor"] = page["next_cursor"]
        left = None if left is None else left - len(page[noun])


def _encoded(query: dict[str, str]) -> str:
    try:
        return urlencode(query)
    except UnicodeEncodeError as error:
        raise InvalidInputError("an argument is not UTF-8") from error


def segment(text: str) -> str:
    """Return `text` as a part of a path; raise InvalidInputError for what is not UTF-8."""
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise InvalidInputError("an argument is not UTF-8") from error


def _write(body: Any) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    try:
        return orjson.dumps(body), {"Content-Type": "application/json"}
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
    headers = {}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield Client(session, address.rstrip("/"))
