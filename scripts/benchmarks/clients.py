"""Clients that load an HTTP server: a child process that takes as little CPU as it can.

Bodies are made beforehand, answers are not parsed, and of HTTP it knows what it needs:
Content-Length and keep-alive.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from benchmarks.child import serve_calls
from benchmarks.pacing import ask_while

_HEAD_END = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """Send one request at a time and wait for its answer."""

    def __init__(self) -> None:
        """Start unconnected; asyncio's create_connection does the rest."""
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._received = bytearray()
        self._body_start = self._end = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect an answer."""
        self._received += data
        if not self._end and (head := self._received.find(_HEAD_END)) >= 0:
            self._body_start = head + len(_HEAD_END)
            self._end = self._body_start + _content_length(bytes(self._received[:head]))
        if self._end and len(self._received) >= self._end:
            self._finish()

    def _finish(self) -> None:
        status = bytes(self._received[9:12])
        body = bytes(self._received[self._body_start : self._end])
        self._received.clear()
        self._body_start = self._end = 0
        if self._answer is None or self._answer.done():
            return
        if status == b"200":
            self._answer.set_result(body)
        else:
            message = f"status {status.decode()}: {body[:300].decode(errors='replace')}"
            self._answer.set_exception(RuntimeError(message))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for an answer."""
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server hung up"))

    async def ask(self, request: bytes) -> bytes:
        """Return the body of the answer; raise RuntimeError unless its status is 200."""
        if self._transport is None:
            raise RuntimeError("the connection is not made yet")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport:
            self._transport.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise RuntimeError(f"an answer without Content-Length: {head!r}")


class _Target:
    """Know a server's address and write requests to it."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
        self._port = int(port)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        try:
            yield connection
        finally:
            connection.close()

    def request(self, path: str, body: str) -> bytes:
        data = body.encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


async def send_all(url: str, path: str, bodies: list[str], clients: int) -> dict[str, Any]:
    """Send every body once, from `clients` connections that each wait for their answer."""
    target = _Target(url)
    requests = [target.request(path, body) for body in bodies]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(target.connect()) for _ in range(clients)]
        return await _measured(_send(connections, requests))


async def send_all_and_ask(
    url: str,
    path: str,
    bodies: list[str],
    clients: int,
    query_path: str,
    queries: list[str],
    per_second: float,
) -> dict[str, Any]:
    """Do as send_all, and meanwhile send `per_second` queries, each with a connection at once."""
    target = _Target(url)
    requests = [target.request(path, body) for body in bodies]
    questions = [target.request(query_path, body) for body in queries]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(target.connect()) for _ in range(clients)]
        idle = [await stack.enter_async_context(target.connect()) for _ in range(clients)]

        async def ask(number: int) -> None:
            if not idle:
                idle.append(await stack.enter_async_context(target.connect()))
            connection = idle.pop()
            await connection.ask(questions[number % len(questions)])
            idle.append(connection)

        sending = asyncio.create_task(_measured(_send(connections, requests)))
        query_s = await ask_while(sending, ask, per_second)
        return await sending | {"query_s": query_s}


async def ask_in_turn(url: str, path: str, body: str, count: int) -> list[float]:
    """Send a body `count` times, one after the other; return the seconds of each."""
    target = _Target(url)
    request = target.request(path, body)
    seconds = []
    async with target.connect() as connection:
        for _ in range(count):
            started = time.perf_counter()
            await connection.ask(request)
            seconds.append(time.perf_counter() - started)
    return seconds


async def time_each(url: str, path: str, bodies: list[str], clients: int) -> dict[str, Any]:
    """Do as send_all; return how long it took, and the seconds of each request, in their order."""
    target = _Target(url)
    requests = [target.request(path, body) for body in bodies]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(target.connect()) for _ in range(clients)]
        started = time.perf_counter()
        each_s = await _time_each(connections, requests)
        return {"seconds": time.perf_counter() - started, "each_s": each_s}


async def _time_each(connections: list[Connection], requests: list[bytes]) -> list[float]:
    seconds = [0.0] * len(requests)
    waiting = iter(enumerate(requests))

    async def work(connection: Connection) -> None:
        for number, request in waiting:
            started = time.perf_counter()
            await connection.ask(request)
            seconds[number] = time.perf_counter() - started

    await asyncio.gather(*map(work, connections))
    return seconds


async def _send(connections: list[Connection], requests: list[bytes]) -> list[bytes]:
    answers: list[bytes] = [b""] * len(requests)
    waiting = iter(enumerate(requests))

    async def work(connection: Connection) -> None:
        for number, request in waiting:
            answers[number] = await connection.ask(request)

    await asyncio.gather(*map(work, connections))
    return answers


async def _measured(sending: Coroutine[Any, Any, list[bytes]]) -> dict[str, Any]:
    """Return how long it took, how much CPU this process took for it, and the answers."""
    started, cpu_started = time.perf_counter(), time.process_time()
    answers = await sending
    return {
        "seconds": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu_started,
        "answers": [answer.decode() for answer in answers],
    }


def _runs(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    return lambda **arguments: asyncio.run(function(**arguments))


if __name__ == "__main__":
    serve_calls(
        {
            function.__name__: _runs(function)
            for function in (send_all, send_all_and_ask, ask_in_turn, time_each)
        }
    )
