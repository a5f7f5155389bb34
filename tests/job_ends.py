"""Wait for what jobs become."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from wire import Client

T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the first answer that is true; fail where there is none for half a minute."""
    async with asyncio.timeout(30):
        while True:
            if answer := await ask():
                return answer
            await asyncio.sleep(0.05)


async def end_of(client: Client, id_: str) -> Any:
    """Return a job once it has ended."""

    async def ended() -> Any:
        job = (await client.get(f"/v1/jobs/{id_}")).ok()
        return job if job["finished_at"] else None

    return await eventually(ended)


async def first_job(client: Client, status: str = "") -> Any:
    """Return the newest job, of that status if one is given, once there is one."""

    async def jobs() -> Any:
        return (await client.get(f"/v1/jobs{status and '?status='}{status}")).ok()["jobs"]

    return (await eventually(jobs))[0]
