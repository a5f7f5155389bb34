"""Work in a thread that is never left behind: it holds what must not be freed under it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def run_to_end(
    work: Callable[[], T],
    *,
    cancel: Callable[[], None] | None = None,
    discard: Callable[[T], None] | None = None,
) -> T:
    """Return what `work` returns from a thread; where the caller is canceled, it waits for it.

    `cancel` is called then, so that it ends soon, and `discard` with what it returns all the same.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if cancel:
            cancel()
        while not running.done():
            with suppress(asyncio.CancelledError):  # of another that cancels, too
                await asyncio.wait([running])
        if discard and not running.exception():
            discard(running.result())
        raise
