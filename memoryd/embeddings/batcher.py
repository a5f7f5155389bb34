"""One queue per model across all requests, cut into batches that keep every core busy.

The event loop owns all state. A worker thread owns a lane; between them are only queues: batches
go in, `call_soon_threadsafe` brings vectors back. No timers: a batch is what waits when a lane is
free. Bulk has one lane per core with one thread each. Queries have a lane of their own, so that a
search never waits behind bulk; a long one uses all cores while no bulk runs. Threads of one batch
wait for each other at barriers, and so for cores that something else keeps busy.

An input that is longer than a batch gets a lane made for it: see dedicated_lanes.
"""

import asyncio
import math
import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from memoryd.embeddings.dedicated_lanes import DedicatedLanes
from memoryd.embeddings.lanes import Lanes, encode_safely
from memoryd.embeddings.types import Backend, Lane, Pooling, Tokens
from memoryd.errors import EmbeddingError, MemorydError, OverloadedError, StoppingError
from memoryd.metrics import ModelMetrics, QueueMetrics
from memoryd.vectors.types import Vectors

# Batches per lane that are cut before a lane is free, so that none waits for the event loop.
_CUT_AHEAD = 2
# Below this a batch is too small to be worth splitting over the lanes.
_SMALLEST_BUDGET = 64
# Bulk makes way for queries, for the event loop and for Postgres.
_BULK_NICENESS = 5
_NOTHING: Vectors = np.empty(0, dtype=np.float32)
# What takes the query lane while nothing else runs: a few milliseconds of work.
_LONE_TOKENS, _LONE_INPUTS = 64, 8
# From so many tokens on a query gains by more threads than one; below, barriers cost more.
_WIDE_TOKENS = 64


class _Request:
    """Follow the inputs of one caller until all their vectors are there."""

    def __init__(self, inputs: Sequence[Tokens], indices: Sequence[int]) -> None:
        # Longest first: inputs of like length share a batch, and the short ones fill the end.
        self.rows = sorted(range(len(inputs)), key=lambda row: -len(inputs[row]))
        self.inputs = inputs
        self.indices = indices
        self.queued_at = time.perf_counter()
        self.taken = 0
        self.missing = len(inputs)
        self.waiting_tokens = sum(map(len, inputs))
        self.vectors: list[Vectors] = [_NOTHING] * len(inputs)
        self.done: asyncio.Future[list[Vectors]] = asyncio.get_running_loop().create_future()

    @property
    def next_row(self) -> int | None:
        """The row of the next input that no batch has, or None."""
        if self.done.done() or self.taken == len(self.rows):
            return None
        return self.rows[self.taken]

    def receive(self, row: int, result: Vectors | Exception) -> None:
        if self.done.done():
            return
        try:
            self.vectors[row] = _checked(result, self.indices[row])
        except MemorydError as error:
            self.done.set_exception(error)
            return
        self.missing -= 1
        if self.missing == 0:
            self.done.set_result(self.vectors)

    def refuse(self) -> None:
        if not self.done.done():
            self.done.set_exception(StoppingError())


def _checked(result: Vectors | Exception, index: int) -> Vectors:
    """Return what a lane gave for the input at `index`, or raise what is wrong with it."""
    if isinstance(result, Exception):
        raise MemorydError(f"the engine failed at input {index}: {result}") from result
    if not np.isfinite(result).all():
        raise EmbeddingError(f"the model gave no finite vector for input {index}", index)
    return result


@dataclass(eq=False)
class _Batch:
    parts: list[tuple[_Request, int]] = field(default_factory=list)
    tokens: int = 0
    began: list[_Request] = field(default_factory=list)
    """The requests whose first input is in it."""

    def fill(self, request: _Request, max_tokens: int, max_sequences: int) -> bool:
        """Take inputs of `request` as long as they fit; say whether any did."""
        before = len(self.parts)
        was_waiting = request.taken == 0
        while (row := request.next_row) is not None and len(self.parts) < max_sequences:
            length = len(request.inputs[row])
            if self.parts and self.tokens + length > max_tokens:
                break
            self.parts.append((request, row))
            self.tokens += length
            request.taken += 1
            request.waiting_tokens -= length
        if was_waiting and request.taken:
            self.began.append(request)
        return len(self.parts) > before

    @property
    def inputs(self) -> list[Tokens]:
        return [request.inputs[row] for request, row in self.parts]


class _Queue:
    """Cut the waiting requests into batches for lanes that work side by side."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        name: str,
        batch_tokens: int,
        threads_for: Callable[[int], int],
        metrics: QueueMetrics,
        niceness: int = 0,
    ) -> None:
        self.lanes = lanes
        self._metrics = metrics
        self._niceness = niceness
        self._batch_tokens = batch_tokens
        self._threads_for = threads_for
        self.waiting: deque[_Request] = deque()
        self._running: set[_Batch] = set()
        self._loop = asyncio.get_running_loop()
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"{name}-{number}", daemon=True)
            for number, lane in enumerate(lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_idle(self) -> bool:
        return not self._running and not self.waiting

    @property
    def waiting_load(self) -> tuple[int, int]:
        return len(self.waiting), self._waiting_tokens

    @property
    def _waiting_tokens(self) -> int:
        return sum(request.waiting_tokens for request in self.waiting)

    def add(self, request: _Request) -> None:
        self.waiting.append(request)
        self._feed()

    def _feed(self) -> None:
        """Hand batches to the lanes until each has what it runs and the next one."""
        while self.waiting and len(self._running) < len(self.lanes) * _CUT_AHEAD:
            batch = self._cut()
            if batch.parts:
                self._running.add(batch)
                self._batches.put(batch)

    def _cut(self) -> _Batch:
        batch = _Batch()
        budget = self._budget()
        while self.waiting and batch.tokens < budget:
            request = self.waiting.popleft()
            took = batch.fill(request, budget, self.lanes[0].max_sequences)
            if request.next_row is None:
                continue
            if took:  # its turn is over: the next batch begins with another request
                self.waiting.append(request)
            else:  # its input is too long for what is left: it begins the next batch
                self.waiting.appendleft(request)
            break
        batch.parts.sort(key=lambda part: len(part[0].inputs[part[1]]))
        return batch

    def _budget(self) -> int:
        """Return how many tokens the next batch has, so that all lanes are done at once.

        What is left is shared between the lanes, and each share cut into batches of like size.
        """
        left = self._waiting_tokens + sum(batch.tokens for batch in self._running)
        share = math.ceil(left / len(self.lanes))
        batches = math.ceil(share / self._batch_tokens)
        even = max(_SMALLEST_BUDGET, math.ceil(share / max(1, batches)))
        return min(self._batch_tokens, even)

    def _work(self, lane: Lane) -> None:
        _yield_to_others(self._niceness)
        while (batch := self._batches.get()) is not None:
            began = time.perf_counter()
            results = encode_safely(lane, batch.inputs, self._threads_for(batch.tokens))
            self._count(batch, began)
            self._loop.call_soon_threadsafe(self._finish, batch, results)

    def _count(self, batch: _Batch, began: float) -> None:
        taken_s = time.perf_counter() - began
        self._metrics.count_batch(len(batch.parts), batch.tokens, taken_s)
        for request in batch.began:
            self._metrics.wait_seconds.observe(began - request.queued_at)

    def _finish(self, batch: _Batch, results: Sequence[Vectors | Exception]) -> None:
        self._running.discard(batch)
        for (request, row), result in zip(batch.parts, results, strict=True):
            request.receive(row, result)
        self._feed()

    def refuse_waiting(self) -> None:
        for request in self.waiting:
            request.refuse()
        self.waiting.clear()

    async def close(self) -> None:
        """End what runs; its callers, if any are left, get StoppingError."""
        self.refuse_waiting()
        for batch in self._running:
            for request, _row in batch.parts:
                request.refuse()
        for lane in self.lanes:
            lane.cancel()
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        for lane in self.lanes:
            lane.close()


def _yield_to_others(niceness: int) -> None:
    """Let the system prefer all threads that are less nice to the calling one."""
    if sys.platform == "linux":  # where each thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.nice(0) + niceness)


class Batcher:
    """Schedule the inputs of all requests of one model over its lanes."""

    def __init__(
        self,
        backend: Backend,
        lanes: Lanes,
        max_waiting_requests: int,
        dedicated_turn: asyncio.Lock,
        metrics: ModelMetrics,
    ) -> None:
        """Start a thread for each lane, in the loop that it will serve; models share the turn."""
        tuning = lanes.tuning
        self._pooling = backend.pooling
        self._max_waiting = max_waiting_requests
        self._is_refusing = False
        self._admitted = 0
        self._cores = tuning.lanes * tuning.threads
        self._bulk = _Queue(
            lanes.bulk,
            "bulk",
            tuning.batch_tokens,
            lambda _tokens: tuning.threads,
            metrics.bulk,
            _BULK_NICENESS,
        )
        self._queries = _Queue(
            [lanes.query], "query", lanes.query.max_tokens, self._query_threads, metrics.query
        )
        self._dedicated = DedicatedLanes(
            backend, dedicated_turn, self._dedicated_threads, metrics.dedicated
        )

    def _dedicated_threads(self) -> int:
        return self._cores if self._bulk.is_idle else 1

    def _query_threads(self, tokens: int) -> int:
        return self._cores if tokens >= _WIDE_TOKENS and self._bulk.is_idle else 1

    @property
    def waiting(self) -> dict[str, tuple[int, int]]:
        """How many requests wait in each queue, and how many tokens of theirs."""
        return {
            "bulk": self._bulk.waiting_load,
            "query": self._queries.waiting_load,
            "dedicated": self._dedicated.waiting_load,
        }

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request while it waits for vectors; raise OverloadedError over the limit."""
        if self._admitted >= self._max_waiting:
            raise OverloadedError("too many requests wait for the engine: try again in a moment")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def embed(self, inputs: Sequence[Tokens]) -> list[Vectors]:
        """Return what the lanes give for each of `inputs`, in their order.

        Raises EmbeddingError naming the input that failed, StoppingError at shutdown.
        """
        target = self._queries if self._is_lone(inputs) else self._bulk
        longest = target.lanes[0].max_tokens
        fitting = [row for row, tokens in enumerate(inputs) if len(tokens) <= longest]
        if len(fitting) == len(inputs):
            return await self._run(target, inputs, range(len(inputs)))
        vectors = [_NOTHING] * len(inputs)
        fitted = await self._run(target, [inputs[row] for row in fitting], fitting)
        for row, vector in zip(fitting, fitted, strict=True):
            vectors[row] = vector
        for row, tokens in enumerate(inputs):
            if len(tokens) > longest:
                [vectors[row]] = await self.embed_dedicated([tokens], self._pooling, [row])
        return vectors

    async def embed_query(self, tokens: Tokens) -> Vectors:
        """Return the embedding of a query, ahead of all bulk.

        Raises OverloadedError where too many queries wait, and what embed raises.
        """
        if len(self._queries.waiting) >= self._max_waiting:
            raise OverloadedError("too many searches wait for the engine: try again in a second")
        if len(tokens) > self._queries.lanes[0].max_tokens:
            return (await self.embed([tokens]))[0]
        return (await self._run(self._queries, [tokens], [0]))[0]

    def _is_lone(self, inputs: Sequence[Tokens]) -> bool:
        return (
            self._bulk.is_idle
            and self._queries.is_idle
            and len(inputs) <= _LONE_INPUTS
            and sum(map(len, inputs)) <= _LONE_TOKENS
        )

    async def _run(
        self, target: _Queue, inputs: Sequence[Tokens], indices: Sequence[int]
    ) -> list[Vectors]:
        self._check_going_on()
        if not inputs:
            return []
        request = _Request(inputs, indices)
        target.add(request)
        try:
            return await request.done
        finally:
            if request in target.waiting:  # the caller went away, or one of its inputs failed
                target.waiting.remove(request)

    async def embed_dedicated(
        self, inputs: Sequence[Tokens], pooling: Pooling, indices: Sequence[int]
    ) -> list[Vectors]:
        """Return the embeddings of `inputs` from a lane that is made for them and freed after.

        Raises what embed raises, and OutOfMemoryError where there is no room for it.
        """
        if not inputs:
            return []
        results = await self._dedicated.encode(inputs, pooling)
        return [_checked(result, index) for index, result in zip(indices, results, strict=True)]

    def _check_going_on(self) -> None:
        if self._is_refusing:
            raise StoppingError()

    def refuse(self) -> None:
        """Answer all that waits, and all that comes, with StoppingError."""
        self._is_refusing = True
        self._bulk.refuse_waiting()
        self._queries.refuse_waiting()
        self._dedicated.refuse()

    async def close(self) -> None:
        """Refuse what waits, end what runs, free the lanes."""
        self.refuse()
        await asyncio.gather(self._bulk.close(), self._queries.close(), self._dedicated.close())
