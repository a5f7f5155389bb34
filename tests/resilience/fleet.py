"""Several memoryds on one database, each of which can be killed and started again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from memoryd_process import MemorydProcess, serving
from wire import Client

LEASE_S = 2


class Member:
    """Be a memoryd of a fleet, which is there or not."""

    def __init__(self, start: Callable[[AsyncExitStack], Awaitable[MemorydProcess]]) -> None:
        self._start = start
        self._stack = AsyncExitStack()
        self.is_up = asyncio.Event()
        self.running: MemorydProcess
        self.client: Client
        self.logs: list[str] = []
        """What those wrote that were stopped."""

    async def start(self) -> None:
        """Start it, on another port than before; `is_up` is left to the caller."""
        self.running = await self._start(self._stack)
        self.client = await self._stack.enter_async_context(Client(self.running.url))

    async def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it is gone."""
        self.is_up.clear()
        self.running.process.kill()
        await self.running.process.wait()
        await self.close()

    async def close(self) -> None:
        """Stop it where it runs."""
        self.is_up.clear()
        if not self.running.log.closed:
            self.logs.append(self.running.said)
        await self._stack.aclose()


@asynccontextmanager
async def fleet(
    count: int, dsn: str, place: Path, models_dir: Path, *options: str
) -> AsyncIterator[list[Member]]:
    """Run `count` memoryds with the model "tiny" on the database `dsn` while the block runs."""
    settings = ("--model", "tiny", "--measure-models", "false", "--lease-s", str(LEASE_S))

    def starter(number: int) -> Callable[[AsyncExitStack], Awaitable[MemorydProcess]]:
        folder = place / f"member-{number}"
        given = ("--database-url", dsn, *settings, *options)
        return lambda stack: stack.enter_async_context(serving(folder, models_dir, *given))

    members = [Member(starter(number)) for number in range(count)]
    await asyncio.gather(*(member.start() for member in members))
    try:
        for member in members:
            member.is_up.set()
        yield members
    finally:
        await asyncio.gather(*(member.close() for member in members))
