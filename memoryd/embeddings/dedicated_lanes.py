"""Lanes that are made for the inputs of one request: longer than a batch, or pooled differently.

There is one at a time, of all models together, since it can take much memory; it is freed after.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from memoryd.embeddings.lanes import encode_safely
from memoryd.embeddings.threads import run_to_end
from memoryd.embeddings.types import Backend, Lane, Pooling, Tokens
from memoryd.errors import StoppingError
from memoryd.metrics import QueueMetrics
from memoryd.vectors.types import Vectors

_SMALLEST_LANE_TOKENS = 64


class DedicatedLanes:
    """Make one model's dedicated lanes, each when it is its turn."""

    def __init__(
        self,
        backend: Backend,
        turn: asyncio.Lock,
        count_threads: Callable[[], int],
        metrics: QueueMetrics,
    ) -> None:
        """Take the lock that all models share, and what is asked before each input."""
        self._backend = backend
        self._turn = turn
        self._count_threads = count_threads
        self._metrics = metrics
        self._waiting_tokens: list[int] = []  # of each request that waits for its turn
        self._lane: _DedicatedLane | None = None
        self._is_refusing = False
        self._is_free = asyncio.Event()
        self._is_free.set()

    @property
    def waiting_load(self) -> tuple[int, int]:
        """How many requests wait, and how many tokens of theirs."""
        return len(self._waiting_tokens), sum(self._waiting_tokens)

    async def encode(
        self, inputs: Sequence[Tokens], pooling: Pooling
    ) -> Sequence[Vectors | Exception]:
        """Return what a new lane gives for each of `inputs`, or why it failed.

        Raises StoppingError, and OutOfMemoryError where there is no room for the lane.
        """
        tokens = sum(map(len, inputs))
        async with self._own_turn(tokens):
            self._check_going_on()
            began = time.perf_counter()
            results = await self._run(
                _DedicatedLane(self._backend, inputs, pooling, self._count_threads)
            )
        self._check_going_on()
        self._metrics.count_batch(len(inputs), tokens, time.perf_counter() - began)
        return results

    @asynccontextmanager
    async def _own_turn(self, tokens: int) -> AsyncIterator[None]:
        queued_at = time.perf_counter()
        self._waiting_tokens.append(tokens)
        try:
            await self._turn.acquire()
        finally:
            self._waiting_tokens.remove(tokens)
        self._metrics.wait_seconds.observe(time.perf_counter() - queued_at)
        try:
            yield
        finally:
            self._turn.release()

    async def _run(self, lane: "_DedicatedLane") -> Sequence[Vectors | Exception]:
        self._lane = lane
        self._is_free.clear()
        try:
            return await run_to_end(lane.run, cancel=lane.cancel)
        finally:
            self._lane = None
            self._is_free.set()

    def _check_going_on(self) -> None:
        if self._is_refusing:
            raise StoppingError()

    def refuse(self) -> None:
        """Answer what waits, and all that comes, with StoppingError, and end what runs."""
        self._is_refusing = True
        if self._lane:
            self._lane.cancel()

    async def close(self) -> None:
        """Refuse, and wait until no lane uses the backend, nor will."""
        self.refuse()
        await self._is_free.wait()


class _DedicatedLane:
    """Encode inputs in a lane that is made for them and freed after; runs in one thread."""

    def __init__(
        self,
        backend: Backend,
        inputs: Sequence[Tokens],
        pooling: Pooling,
        count_threads: Callable[[], int],
    ) -> None:
        """Take what `run` works with; `count_threads` is asked before each input."""
        self._backend = backend
        self._inputs = inputs
        self._pooling = pooling
        self._count_threads = count_threads
        self._lane: Lane | None = None
        self._is_canceled = False

    def run(self) -> list[Vectors | Exception]:
        """Return what the lane gives for each input, or why it failed."""
        if self._is_canceled:
            return []
        tokens = max(_SMALLEST_LANE_TOKENS, *map(len, self._inputs))
        lane = self._lane = self._backend.open_lane(tokens, 1, self._pooling)
        results: list[Vectors | Exception] = []
        try:
            for each in self._inputs:
                if not self._is_canceled:
                    results += encode_safely(lane, [each], self._count_threads())
        finally:
            lane.close()
        return results

    def cancel(self) -> None:
        """Let `run` end soon; from any thread."""
        self._is_canceled = True
        if self._lane:
            self._lane.cancel()
