"""How a model's bulk is best spread over the cores of this machine: measured, not guessed.

Figures of a machine that does other things are noisy. So a candidate runs in turns with the best
one so far, and takes its place only if it wins each time.
"""

import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from memoryd.embeddings.lanes import Lanes, open_lanes
from memoryd.embeddings.types import Backend, Lane, Tokens, Tuning
from memoryd.machine import core_count

# A few seconds for all; a large model is measured with fewer candidates.
_BUDGET_S = 6.0
_RUN_S = 0.2
_TURNS = 4
# What a candidate must gain, in each turn, on the best one so far.
GAIN = 1.05
_BATCH_TOKENS = (512, 1024)
_DEFAULT_BATCH_TOKENS = 256
_GPU_BATCH_TOKENS = (4096, 2048, 8192)
# Tokens of each length of text, for each lane; the least that a comparison takes.
_RUN_TOKENS = 1024
_SMALLEST_RUN_TOKENS = 3 * _RUN_TOKENS
# Of the texts that are measured: a sentence, a paragraph.
_LENGTHS = (24, 160)


@dataclass(frozen=True)
class Measured:
    """Be one way to run a model and what it reached."""

    weight_type: str
    """Of a copy's matrices; "" is what the file has."""
    tuning: Tuning
    tokens_per_s: float
    gain: float
    """Its least ratio to the best one before it, of all turns."""


def default_tuning(*, on_gpu: bool = False) -> Tuning:
    """Return what does well on most machines: a thread for each core, or one lane for a GPU."""
    if on_gpu:
        return Tuning(lanes=1, threads=1, batch_tokens=_GPU_BATCH_TOKENS[0])
    return Tuning(lanes=core_count(), threads=1, batch_tokens=_DEFAULT_BATCH_TOKENS)


def best(table: Sequence[Measured]) -> Measured:
    """Return the last of `table` that won each turn, or its first."""
    return next((row for row in reversed(table) if row.gain >= GAIN), table[0])


def measure(backend: Backend, *, on_gpu: bool = False) -> list[Measured]:
    """Measure candidates until a few seconds are over; the first is the default."""
    started = time.perf_counter()
    first = default_tuning(on_gpu=on_gpu)
    guess = _tokens_per_s_of_one(backend)
    if guess * _BUDGET_S < _SMALLEST_RUN_TOKENS:  # far too slow to compare anything
        return [Measured("", first, guess, 1.0)]
    with _running(backend, first) as runner:
        table = [Measured("", first, runner.tokens_per_s(), 1.0)]
    for tuning in _candidates(table, on_gpu=on_gpu):
        if time.perf_counter() - started > _BUDGET_S:
            break
        table.append(compare(backend, best(table).tuning, backend, tuning))
    return table


def _candidates(table: Sequence[Measured], *, on_gpu: bool) -> Iterator[Tuning]:
    """Yield other splits of the cores, then other batches of the best split."""
    threads = 2
    while threads <= core_count() and not on_gpu:
        yield Tuning(core_count() // threads, threads, _DEFAULT_BATCH_TOKENS)
        threads *= 2
    split = best(table).tuning
    for batch_tokens in _GPU_BATCH_TOKENS[1:] if on_gpu else _BATCH_TOKENS:
        yield Tuning(split.lanes, split.threads, batch_tokens)


def compare(
    champion: Backend,
    champion_tuning: Tuning,
    challenger: Backend,
    tuning: Tuning,
    weight_type: str = "",
) -> Measured:
    """Let `challenger` run in turns with `champion` until it loses one, or there were enough."""
    speeds, ratios = [], []
    with _running(champion, champion_tuning) as first, _running(challenger, tuning) as second:
        for _ in range(_TURNS):
            to_beat = first.tokens_per_s()
            speeds.append(second.tokens_per_s())
            ratios.append(speeds[-1] / to_beat)
            if ratios[-1] < GAIN:
                break
    return Measured(weight_type, tuning, statistics.median(speeds), min(ratios))


@dataclass(frozen=True)
class _Runner:
    """Hold the open lanes of one way to run a model, and what each encodes."""

    lanes: Lanes
    batches: Sequence[Sequence[Tokens]]

    def tokens_per_s(self) -> float:
        """Return how fast texts of several lengths are encoded now."""
        seconds, repeats = self._time_s(1), 1
        if seconds < _RUN_S:
            repeats = math.ceil(_RUN_S / seconds)
            seconds = self._time_s(repeats)
        tokens = sum(len(each) for batch in self.batches for each in batch)
        return tokens * repeats * len(self.lanes.bulk) / seconds

    def _time_s(self, repeats: int) -> float:
        """Return how long all lanes take for all batches, side by side."""
        workers = [
            threading.Thread(target=self._work, args=(lane, repeats)) for lane in self.lanes.bulk
        ]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return time.perf_counter() - started

    def _work(self, lane: Lane, repeats: int) -> None:
        for _ in range(repeats):
            for batch in self.batches:
                lane.encode(batch, self.lanes.tuning.threads)


@contextmanager
def _running(backend: Backend, tuning: Tuning) -> Iterator[_Runner]:
    lanes = open_lanes(backend, tuning)
    batches = _batches(backend, lanes.bulk[0], tuning.batch_tokens)
    try:
        for lane in lanes.bulk:
            lane.encode(batches[0][:1], tuning.threads)  # the first one is slower
        yield _Runner(lanes, batches)
    finally:
        lanes.close()


def _batches(backend: Backend, lane: Lane, batch_tokens: int) -> list[list[Tokens]]:
    """Return batches of random tokens, of as many texts as `batch_tokens` has room for.

    The texts are the same whatever that is, so that their lengths don't decide.
    """
    random = np.random.default_rng(0)
    batches: list[list[Tokens]] = []
    for wanted in _LENGTHS:
        length = min(wanted, backend.max_tokens, lane.max_tokens)
        most = max(1, min(batch_tokens // length, lane.max_sequences))
        left = max(1, _RUN_TOKENS // length)
        while left > 0:
            count = min(left, most)
            left -= count
            ids = random.integers(0, backend.vocabulary_size, (count, length), np.int32)
            batches.append(list(ids))
    return batches


def _tokens_per_s_of_one(backend: Backend) -> float:
    """Return how fast one short text is encoded, with one thread."""
    length = min(_LENGTHS[0], backend.max_tokens)
    lane = backend.open_lane(max(length, 64), 1, backend.pooling)
    started = time.perf_counter()
    lane.encode([np.zeros(length, dtype=np.int32)], 1)
    seconds = time.perf_counter() - started
    lane.close()
    return length / seconds
