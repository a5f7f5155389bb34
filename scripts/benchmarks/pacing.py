"""Ask at a steady rate, however long the answers take."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable


async def ask_while(
    running: "asyncio.Task[object]", ask: Callable[[int], Awaitable[object]], per_second: float
) -> list[float]:
    """Call `ask` with 0, 1, 2 … until `running` is done; return how long each took, in seconds.

    Each has its own slot of time and begins at a random moment of it, so that the questions don't
    fall into step with anything. One that is asked late counts from when it was due.
    """
    moments = random.Random(7)  # noqa: S311 - every run asks at the same moments
    asked: list[asyncio.Task[float]] = []
    started = time.perf_counter()
    for number in itertools.count():
        due = started + (number + moments.random()) / per_second
        await asyncio.wait([running], timeout=max(0.0, due - time.perf_counter()))
        if running.done():
            break
        asked.append(asyncio.create_task(_time_s(ask(number), due)))
    return list(await asyncio.gather(*asked))


async def _time_s(answer: Awaitable[object], since: float) -> float:
    await answer
    return time.perf_counter() - since
