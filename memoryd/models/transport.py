"""Requests to hubs and other servers of files: redirects, credentials, patience and errors."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from memoryd.errors import ModelFetchError, ModelFileError

CHUNK_BYTES = 1 << 20
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})

# Gives the bearer token that belongs to an address, if any.
Credentials = Callable[[URL], str | None]


@dataclass(frozen=True)
class Patience:
    """Hold how long a server may take, in seconds, and how often it may fail.

    `answer_s` counts per redirect until the headers have come, `stall_s` from one piece of a body
    to the next. After a failure follows one of `retry_delays_s`, all of them anew after each
    progress.
    """

    answer_s: float = 30.0
    stall_s: float = 30.0
    retry_delays_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)


class UnreachableError(ModelFetchError):
    """Report a server that doesn't answer."""


class InterruptedTransferError(ModelFetchError):
    """Report what may go well the next time; `retry_after_s` is when the server wants that."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Answer:
    """Hold a response that is no redirect, where it came from, and what was said on the way.

    `own_headers` are those of the responses of the host that was asked first.
    """

    response: aiohttp.ClientResponse
    address: URL
    is_from_first_host: bool
    own_headers: Mapping[str, str]


def open_session(patience: Patience) -> aiohttp.ClientSession:
    """Return a session that goes through the proxy that is set, if any."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=patience.stall_s)
    return aiohttp.ClientSession(trust_env=True, timeout=timeout, read_bufsize=CHUNK_BYTES)


@asynccontextmanager
async def follow(
    session: aiohttp.ClientSession,
    address: URL,
    headers: Mapping[str, str],
    patience: Patience,
    credentials: Credentials,
) -> AsyncIterator[Answer]:
    """Get an address, along redirects, and give the last response with its body to come.

    Each address gets the token that `credentials` has for it. Raises UnreachableError or
    InterruptedTransferError, and ModelFileError for a redirect that gives encryption up.
    """
    first = address.origin()
    own_headers: dict[str, str] = {}
    for _ in range(MAX_REDIRECTS):
        response = await _get(session, address, headers, patience, credentials(address))
        async with response:
            is_first_host = address.origin() == first
            if is_first_host:
                own_headers |= {name.title(): value for name, value in response.headers.items()}
            if response.status not in REDIRECTS:
                yield Answer(response, address, is_first_host, own_headers)
                return
            address = _redirected(address, response)
    raise ModelFileError(f"{first} redirects more than {MAX_REDIRECTS} times")


async def _get(
    session: aiohttp.ClientSession,
    address: URL,
    headers: Mapping[str, str],
    patience: Patience,
    token: str | None,
) -> aiohttp.ClientResponse:
    middlewares = (_bearer(token),) if token else ()
    try:
        async with asyncio.timeout(patience.answer_s):
            return await session.get(
                address, headers=headers, allow_redirects=False, middlewares=middlewares
            )
    except TimeoutError as error:
        message = f"{address.origin()} gave no answer in {patience.answer_s:g} s"
        raise UnreachableError(message) from error
    except aiohttp.ServerDisconnectedError as error:
        raise InterruptedTransferError(f"{address.origin()} failed: {error}") from error
    except (aiohttp.ClientError, ValueError) as error:
        message = f"{address.origin()} failed: {error or type(error).__name__}"
        raise UnreachableError(message) from error


def _bearer(token: str) -> aiohttp.ClientMiddlewareType:
    """Return what sets the token, even over what the user's .netrc has for the host."""

    async def authorize(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers["Authorization"] = f"Bearer {token}"
        return await handler(request)

    return authorize


def _redirected(address: URL, response: aiohttp.ClientResponse) -> URL:
    try:
        target = address.join(URL(response.headers["Location"]))
        is_kept = target.scheme == "https" or target.scheme == address.scheme == "http"
        origin = target.origin()
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"{address.origin()} redirects to no address") from error
    if not is_kept:
        raise ModelFileError(f"{address.origin()} redirects to {origin}, which isn't encrypted")
    return target


def check_status(answer: Answer, subject: str) -> None:
    """Raise what the status means for `subject`, a file or repository, unless it is 2xx.

    InterruptedTransferError where the same request may succeed later, else ModelFileError.
    """
    status, origin = answer.response.status, answer.address.origin()
    if 200 <= status < 300:
        return
    said = f"{origin} failed: {status} {answer.response.reason} for {subject}"
    if status in {408, 429} or status >= 500:
        raise InterruptedTransferError(said, _retry_after_s(answer.response))
    if status in {401, 403} and not answer.is_from_first_host:
        # An address that was signed for some minutes; asking the first host again gives a new one.
        raise InterruptedTransferError(said)
    if status in {401, 403}:
        raise ModelFileError(
            f"{said}. It isn't there, or it is private or gated: accept its license on its page "
            "and set HF_TOKEN to a token of your account"
        )
    raise ModelFileError(said)


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


async def read_body(answer: Answer, max_bytes: int) -> bytes:
    """Return a small body; raise ModelFileError where it is larger than `max_bytes`."""
    body = bytearray()
    async for chunk in read_chunks(answer):
        body += chunk
        if len(body) > max_bytes:
            raise ModelFileError(f"{answer.address.origin()} sends more than {max_bytes:,} bytes")
    return bytes(body)


async def read_chunks(answer: Answer) -> AsyncIterator[bytes]:
    """Yield a body in pieces; raise InterruptedTransferError where it breaks off or stalls."""
    try:
        async for chunk in answer.response.content.iter_chunked(CHUNK_BYTES):
            yield chunk
    except aiohttp.ClientError as error:
        message = f"{answer.address.origin()} failed: {error or type(error).__name__}"
        raise InterruptedTransferError(message) from error
