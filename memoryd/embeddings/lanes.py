"""The lanes of one model that stay: some for bulk, and one for queries."""

from collections.abc import Sequence
from dataclasses import dataclass

from memoryd.embeddings.types import Backend, Lane, Tokens, Tuning
from memoryd.vectors.types import Vectors

# What a lane has room for at least, so that only long inputs need one of their own.
_LANE_TOKENS = 512
# Inputs per batch, of which llama.cpp takes 256. It keeps a row of logits for each that a decoder
# may give, so fewer there.
_SEQUENCES, _DECODER_SEQUENCES = 256, 32
_QUERY_SEQUENCES = 8


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
