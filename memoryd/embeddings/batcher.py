"""One queue per model across all requests, cut into batches that keep every core busy.

The event loop owns all state. A worker thread owns a lane; between them are only queues: batches
go in, `call_soon_threadsafe` brings vectors back. No timers: a batch is what waits when a lane is
free. Bulk has one lane per core with one thread each. Queries have a lane of their own, so that a
search never waits behind bulk; a long one uses all cores while no bulk runs. Threads of one batch
wait for each other at barriers, and so for cores that something else keeps busy.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from memoryd.embeddings.types import Lane, Tokens
from memoryd.errors import EmbeddingError, MemorydError, OverloadedError, StoppingError
from memoryd.vectors.types import Vectors

_STOPPING = "memoryd is shutting down"
# Batches per lane that are cut before a lane is free, so that none waits for the event loop.
_CUT_AHEAD = 2
# Below this a batch is too small to be worth splitting over the lanes.
_SMALLEST_BUDGET = 64
# What takes the query lane while nothing else runs: a few milliseconds of work.
_LONE_TOKENS, _LONE_INPUTS = 64, 8
# From so many tokens on a query gains by more threads than one; below, barriers cost more.
_WIDE_TOKENS = 64


class _Request:
    """Follow the inputs of one caller until all their vectors are there."""

    def __init__(self, inputs: Sequence[Tokens], dimensions: int) -> None:
        # Longest first: inputs of like length share a batch, and the short ones fill the end.
        self.rows = sorted(range(len(inputs)), key=lambda row: -len(inputs[row]))
        self.inputs = inputs
        self.taken = 0
        self.missing = len(inputs)
        self.waiting_tokens = sum(map(len, inputs))
        self.vectors = np.empty((len(inputs), dimensions), dtype=np.float32)
        self.done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()

    @property
    def next_row(self) -> int | None:
        """The row of the next input that no batch has, or None."""
        if self.done.done() or self.taken == len(self.rows):
            return None
        return self.rows[self.taken]

    def receive(self, row: int, vector: Vectors) -> None:
        if self.done.done():
            return
        if not np.isfinite(vector).all():
            message = f"the model gave no finite vector for input {row}"
            self.done.set_exception(EmbeddingError(message, row))
            return
        self.vectors[row] = vector
        self.missing -= 1
        if self.missing == 0:
            self.done.set_result(self.vectors)


@dataclass
class _Batch:
    parts: list[tuple[_Request, int]] = field(default_factory=list)
    tokens: int = 0
    threads: int = 1

    def fill(self, request: _Request, max_tokens: int, max_sequences: int) -> bool:
        """Take inputs of `request` as long as they fit; say whether any did."""
        before = len(self.parts)
        while (row := request.next_row) is not None and len(self.parts) < max_sequences:
            length = len(request.inputs[row])
            if self.parts and self.tokens + length > max_tokens:
                break
            self.parts.append((request, row))
            self.tokens += length
            request.taken += 1
            request.waiting_tokens -= length
        return len(self.parts) > before

    @property
    def inputs(self) -> list[Tokens]:
        return [request.inputs[row] for request, row in self.parts]


class _Queue:
    """Cut the waiting requests into batches for lanes that work side by side."""

    def __init__(self, lanes: Sequence[Lane], name: str, threads_for: Callable[[int], int]) -> None:
        self.lanes = lanes
        self._threads_for = threads_for
        self.waiting: deque[_Request] = deque()
        self.in_flight = 0
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
        return not self.in_flight and not self.waiting

    def add(self, request: _Request) -> None:
        self.waiting.append(request)
        self._feed()

    def _feed(self) -> None:
        """Hand batches to the lanes until each has what it runs and the next one."""
        while self.waiting and self.in_flight < self._most_in_flight:
            batch = self._cut()
            if batch.parts:
                self.in_flight += 1
                self._batches.put(batch)

    @property
    def _most_in_flight(self) -> int:
        return len(self.lanes) * _CUT_AHEAD

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
        batch.threads = self._threads_for(batch.tokens)
        batch.parts.sort(key=lambda part: len(part[0].inputs[part[1]]))
        return batch

    def _budget(self) -> int:
        """Share little work between the lanes; of much work each batch takes what fits."""
        waiting = sum(request.waiting_tokens for request in self.waiting)
        share = -(-waiting // len(self.lanes))
        return min(self.lanes[0].max_tokens, max(_SMALLEST_BUDGET, share))

    def _work(self, lane: Lane) -> None:
        while (batch := self._batches.get()) is not None:
            try:
                result: Vectors | Exception = lane.encode(
                    batch.inputs, self._threads_for(batch.tokens)
                )
            except Exception as error:  # whatever it is, its callers get it
                result = error
            self._loop.call_soon_threadsafe(self._finish, batch, result)

    def _finish(self, batch: _Batch, result: Vectors | Exception) -> None:
        self.in_flight -= 1
        for position, (request, row) in enumerate(batch.parts):
            if not isinstance(result, Exception):
                request.receive(row, result[position])
            elif not request.done.done():
                request.done.set_exception(MemorydError(f"the engine failed: {result}"))
        self._feed()

    def refuse_waiting(self) -> None:
        for request in self.waiting:
            if not request.done.done():
                request.done.set_exception(StoppingError(_STOPPING))
        self.waiting.clear()

    async def close(self) -> None:
        self.refuse_waiting()
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        for lane in self.lanes:
            lane.close()


class Batcher:
    """Schedule the inputs of all requests of one model over its lanes."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        query_lane: Lane,
        *,
        dimensions: int,
        max_waiting_requests: int,
    ) -> None:
        """Start a thread per lane. Runs in the event loop that it will serve."""
        self._dimensions = dimensions
        self._max_waiting = max_waiting_requests
        self._is_refusing = False
        self._admitted = 0
        self._bulk = _Queue(lanes, "bulk", lambda _tokens: 1)
        self._queries = _Queue([query_lane], "query", self._query_threads)

    def _query_threads(self, tokens: int) -> int:
        return len(self._bulk.lanes) if tokens >= _WIDE_TOKENS and self._bulk.is_idle else 1

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

    async def embed(self, inputs: Sequence[Tokens]) -> Vectors:
        """Return the pooled embeddings of `inputs`, shape (len(inputs), dimensions).

        Raises EmbeddingError naming the input that failed, StoppingError at shutdown.
        """
        if self._is_lone(inputs):
            return await self._run(self._queries, inputs)
        return await self._run(self._bulk, inputs)

    async def embed_query(self, tokens: Tokens) -> Vectors:
        """Return the pooled embedding of a query, shape (1, dimensions), ahead of all bulk.

        Raises OverloadedError where too many queries wait, and what embed raises.
        """
        if len(self._queries.waiting) >= self._max_waiting:
            raise OverloadedError("too many searches wait for the engine: try again in a second")
        lane = self._queries.lanes[0]
        return await self._run(
            self._queries if len(tokens) <= lane.max_tokens else self._bulk, [tokens]
        )

    def _is_lone(self, inputs: Sequence[Tokens]) -> bool:
        return (
            self._bulk.is_idle
            and self._queries.is_idle
            and len(inputs) <= _LONE_INPUTS
            and sum(map(len, inputs)) <= _LONE_TOKENS
        )

    async def _run(self, target: _Queue, inputs: Sequence[Tokens]) -> Vectors:
        if self._is_refusing:
            raise StoppingError(_STOPPING)
        if not inputs:
            return np.empty((0, self._dimensions), dtype=np.float32)
        request = _Request(inputs, self._dimensions)
        target.add(request)
        try:
            return await request.done
        finally:
            if request in target.waiting:  # the caller went away, or one of its inputs failed
                target.waiting.remove(request)

    def refuse(self) -> None:
        """Answer all that waits, and all that comes, with StoppingError."""
        self._is_refusing = True
        self._bulk.refuse_waiting()
        self._queries.refuse_waiting()

    async def close(self) -> None:
        """Refuse what waits, finish what runs, free the lanes."""
        await self._bulk.close()
        await self._queries.close()
