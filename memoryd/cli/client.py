"""The HTTP client with which commands talk to a running memoryd."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
import orjson
import typer

from memoryd.config import Settings
from memoryd.errors import MemorydError, UnavailableError

UrlOption = Annotated[
    str | None,
    typer.Option(help="Where memoryd listens. [default: from host and port; env var: MEMORYD_URL]"),
]


class RequestError(MemorydError):
    """Report what the server answered instead of a result."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Send requests to a running memoryd."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Take an open session; `connect` makes one."""
        self._session = session
        self._url = url

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer.

        Raises RequestError for an error that the server tells, UnavailableError where there is
        no server.
        """
        data = None if body is None else orjson.dumps(body)
        try:
            async with self._session.request(method, self._url + path, data=data) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnavailableError(
                f"no memoryd answers at {self._url} ({error}): start it with `memoryd serve`, "
                "or say where it is with --url"
            ) from error
        return _read_answer(response.status, answer)


def _read_answer(status: int, answer: bytes) -> Any:
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise RequestError(status, f"the server is not memoryd: it answered {status}") from error
    if status >= 400 and isinstance(value, dict) and "error" in value:
        raise RequestError(status, value["error"]["message"])
    return value


@asynccontextmanager
async def connect(settings: Settings, url: str | None) -> AsyncIterator[Client]:
    """Open a session to `url`, else $MEMORYD_URL, else where the settings say memoryd listens."""
    address = url or os.environ.get("MEMORYD_URL") or f"http://{settings.host}:{settings.port}"
    headers = {"Content-Type": "application/json"}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key.get_secret_value()}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield Client(session, address.rstrip("/"))
