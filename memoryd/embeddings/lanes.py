"""The lanes of one model: some for bulk, one for queries, and those that are made for one input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memoryd.embeddings.types import Backend, Lane, Pooling, Tokens, Tuning
from memoryd.vectors.types import Vectors

# What a lane has room for at least, so that only long inputs need one of their own.
_LANE_TOKENS = 512
# Inputs per batch, of which llama.cpp takes 256. It keeps a row of logits for each that a decoder
# may give, so fewer there.
_SEQUENCES, _DECODER_SEQUENCES = 256, 32
_QUERY_SEQUENCES = 8
_SMALLEST_LANE_TOKENS = 64


@dataclass(frozen=True)
class Lanes:
    """Hold the lanes of one model."""

    bulk: Sequence[Lane]
    query: Lane
    tuning: Tuning

    @property
    def memory_bytes(self) -> int:
        """What they hold now."""
        return sum(lane.memory_bytes for lane in (*self.bulk, self.query))

    def close(self) -> None:
        """Free what they hold."""
        for lane in (*self.bulk, self.query):
            lane.close()


def open_lanes(backend: Backend, tuning: Tuning) -> Lanes:
    """Open a model's lanes, which takes a while; raise OutOfMemoryError where there is no room."""
    tokens = max(_LANE_TOKENS, tuning.batch_tokens)
    sequences = _DECODER_SEQUENCES if backend.is_decoder else _SEQUENCES
    lanes: list[Lane] = []
    try:
        lanes.extend(
            backend.open_lane(tokens, sequences, backend.pooling) for _ in range(tuning.lanes)
        )
        query = backend.open_lane(_LANE_TOKENS, _QUERY_SEQUENCES, backend.pooling)
    except BaseException:
        for lane in lanes:
            lane.close()
        raise
    return Lanes(lanes, query, tuning)


def encode_safely(
    lane: Lane, inputs: Sequence[Tokens], threads: int
) -> Sequence[Vectors | Exception]:
    """Return what `lane` gives for each input, or why it failed: one never fails another."""
    try:
        return lane.encode(inputs, threads)
    except Exception as error:  # whatever it is, its caller gets it
        if len(inputs) == 1:
            return [error]
    return [encode_safely(lane, [tokens], threads)[0] for tokens in inputs]


class LaneApart:
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
