"""Inputs of thousands of tokens, on a decoder and on an encoder."""

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pytest
import pytest_asyncio
from opening import open_model
from variants import convert_variant

from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.llama_lane import LlamaLane
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import ModelSpec, Pooling, Tuning
from memoryd.errors import InputTooLongError

CONTEXT_TOKENS = 4096
LONG_TOKENS = 3000
BULK = Tuning(lanes=2, batch_tokens=256)
SPEC = ModelSpec("tiny")
CONTEXT_KEYS = {"qwen3": "max_position_embeddings", "nomic-bert": "max_trained_positions"}


class WatchedBackend(LlamaBackend):
    """Remember the lanes that were opened."""

    def open_lane(self, max_tokens: int, max_sequences: int, pooling: Pooling) -> LlamaLane:
        """Open a lane and remember it."""
        self.lanes.append(super().open_lane(max_tokens, max_sequences, pooling))
        return self.lanes[-1]

    @property
    def lanes(self) -> list[LlamaLane]:
        """All that were opened, those that are closed too."""
        return self.__dict__.setdefault("opened", [])


@pytest.fixture(scope="module", params=CONTEXT_KEYS)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    return convert_variant(request.param, folder, **{CONTEXT_KEYS[request.param]: CONTEXT_TOKENS})


@pytest.fixture
def backend(file: Path) -> WatchedBackend:
    return WatchedBackend(file)


@pytest_asyncio.fixture
async def model(backend: WatchedBackend) -> AsyncIterator[EmbeddingModel]:
    model = open_model(backend, SPEC, BULK, long_input_bytes=1 << 30)
    yield model
    await model.close()


def random_ids(length: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(5, 250, length).tolist()


def used_bytes() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


async def test_a_long_input_gives_what_one_large_lane_gives(
    model: EmbeddingModel, backend: WatchedBackend
) -> None:
    large = backend.open_lane(CONTEXT_TOKENS, 2, backend.pooling)  # in one piece, for two inputs
    for length in (257, 513, LONG_TOKENS):
        tokens = np.array(random_ids(length), dtype=np.int32)
        [expected] = large.encode([tokens], 1)
        [got] = (await model.embed([tokens.tolist()])).vectors
        assert got @ expected / np.linalg.norm(expected) >= 0.999, length
    large.close()


async def test_every_part_of_a_long_input_counts(model: EmbeddingModel) -> None:
    ids = random_ids(LONG_TOKENS)
    [whole] = (await model.embed([ids])).vectors
    for at in (0, 700, LONG_TOKENS - 2):
        changed = [*ids]
        changed[at : at + 2] = [251, 252]
        [other] = (await model.embed([changed])).vectors
        assert not np.array_equal(whole, other)


async def test_the_memory_of_a_long_lane_is_freed(model: EmbeddingModel) -> None:
    ids = random_ids(2000)
    used = []
    for _ in range(12):
        await model.embed([ids])
        used.append(used_bytes())
    # What the allocator keeps for itself is reached after a few; four lanes take over 20 MB.
    assert median(used[8:]) - median(used[4:8]) < 16 << 20


async def test_a_long_lane_takes_no_more_than_was_estimated(
    model: EmbeddingModel, backend: WatchedBackend
) -> None:
    for length in (600, LONG_TOKENS):
        await model.embed([random_ids(length)])
        assert backend.lanes[-1].max_tokens == length
        assert backend.lanes[-1].memory_bytes <= backend.estimate_lane_bytes(
            length, backend.pooling
        )


async def test_long_and_short_inputs_keep_their_order(model: EmbeddingModel) -> None:
    lengths = [5, 300, 20, LONG_TOKENS, 1, 2000, 250, 3, 257]
    inputs = [random_ids(length, seed=length) for length in lengths]
    embeddings = await model.embed(inputs)
    assert embeddings.token_count == sum(lengths)
    for row, item in enumerate(inputs):
        [alone] = (await model.embed([item])).vectors
        assert embeddings.vectors[row] @ alone >= 0.9999
    others = embeddings.vectors @ embeddings.vectors.T - np.eye(len(lengths))
    assert np.median(others) < 0.99


async def test_the_tokens_of_a_long_input_have_vectors(model: EmbeddingModel) -> None:
    ids = random_ids(1000)
    [rows] = (await model.embed_tokens([ids])).vectors
    assert rows.shape == (1000, 64)
    [pooled] = (await model.embed([ids])).vectors
    expected = rows[-1] if model.pooling == "last" else rows.mean(axis=0)
    assert pooled @ expected / np.linalg.norm(expected) >= 0.999


async def test_what_a_long_input_may_take_bounds_its_length(backend: WatchedBackend) -> None:
    most_bytes = backend.estimate_lane_bytes(1500, backend.pooling)
    model = open_model(backend, SPEC, BULK, long_input_bytes=most_bytes)
    assert model.max_tokens == 1500
    embeddings = await model.embed([random_ids(LONG_TOKENS)])
    assert (embeddings.token_count, embeddings.truncated) == (1500, 1)
    with pytest.raises(InputTooLongError):
        await model.embed([random_ids(1501)], truncate=False)
    await model.close()


async def test_what_a_long_input_may_take_bounds_its_tokens_vectors_too(
    backend: WatchedBackend,
) -> None:
    most_bytes = backend.estimate_lane_bytes(1500, backend.pooling)
    model = open_model(backend, SPEC, BULK, long_input_bytes=most_bytes)
    await model.embed_tokens([random_ids(LONG_TOKENS)])
    assert backend.lanes[-1].memory_bytes <= most_bytes
    await model.close()
