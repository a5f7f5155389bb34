"""The queue, seen through a toy model that notes its batches and can be held up."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from toys import NAN, ToyBackend, open_toy, toy_vector

from memoryd.embeddings.model import EmbeddingModel, Embeddings
from memoryd.errors import EmbeddingError, MemorydError, OverloadedError, StoppingError


@pytest.fixture
def backend() -> ToyBackend:
    return ToyBackend()


@pytest_asyncio.fixture
async def toy(backend: ToyBackend) -> AsyncIterator[EmbeddingModel]:
    model = open_toy(backend, max_waiting_requests=5)
    yield model
    backend.gate.set()
    await model.close()


async def start(*coroutines: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Start tasks one after the other, so that each has queued before the next."""
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.create_task(coroutine))
        await asyncio.sleep(0.02)
    return tasks


def bulk(toy: EmbeddingModel, count: int = 2000) -> Coroutine[Any, Any, Embeddings]:
    return toy.embed(["cat dog fish bird"] * count)


async def test_vectors_are_what_a_person_predicts(toy: EmbeddingModel) -> None:
    texts = ["cat", "cat dog", "The CAT, the dog!", "", "unknown words"]
    got = (await toy.embed(texts)).vectors
    assert np.allclose(got, [toy_vector(text) for text in texts])
    assert np.allclose(got[1], got[2])
    assert got[0] @ got[1] == pytest.approx(0.5**0.5)


async def test_batches_keep_to_the_lanes_limits(toy: EmbeddingModel, backend: ToyBackend) -> None:
    texts = ["cat " * (number % 70) for number in range(3000)]
    requests = (toy.embed(texts[first : first + 750]) for first in range(0, 3000, 750))
    answers = await asyncio.gather(*requests)
    vectors = np.concatenate([answer.vectors for answer in answers])
    assert np.allclose(vectors, [toy_vector(text) for text in texts])
    lane = backend.lanes[0]
    for batch in backend.batches:
        assert 0 < len(batch) <= lane.max_sequences
        assert sum(map(len, batch)) <= lane.max_tokens
    assert backend.encoded == 3000


async def test_a_batch_is_of_like_lengths(toy: EmbeddingModel, backend: ToyBackend) -> None:
    await toy.embed(["cat " * (number % 60) for number in range(2000)])
    spreads = [max(map(len, batch)) - min(map(len, batch)) for batch in backend.batches]
    assert np.mean(spreads) < 5
    for batch in backend.batches:
        lengths = [len(tokens) for tokens in batch]
        assert lengths == sorted(lengths)


async def test_concurrent_requests_share_batches(toy: EmbeddingModel, backend: ToyBackend) -> None:
    backend.gate.clear()
    tasks = await start(bulk(toy, 600), *(toy.embed(["cat"]) for _ in range(4)))
    before = len(backend.batches)
    backend.gate.set()
    await asyncio.gather(*tasks)
    alone = [batch for batch in backend.batches[before:] if len(batch) == 1]
    assert len(alone) < 4


async def test_a_small_request_is_not_stuck_behind_a_big_one(backend: ToyBackend) -> None:
    backend.delay_s = 0.002
    toy = open_toy(backend)
    big = asyncio.create_task(bulk(toy, 20_000))
    await asyncio.sleep(0.02)
    for _ in range(5):
        before = backend.encoded
        await toy.embed(["cat"])
        assert backend.encoded - before < 1500
        assert not big.done()
    big.cancel()
    await toy.close()


async def test_a_query_is_not_behind_bulk(toy: EmbeddingModel, backend: ToyBackend) -> None:
    backend.delay_s = 0.002
    big = asyncio.create_task(bulk(toy, 20_000))
    await asyncio.sleep(0.02)
    for _ in range(5):
        before = len(backend.batches)
        await toy.embed_query("dog")
        assert len(backend.batches) - before <= 8
        assert not big.done()
    big.cancel()


async def test_a_nan_fails_its_own_request_alone_naming_the_input(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    tasks = await start(
        bulk(toy, 600), toy.embed(["dog", "cat", "nan", "fish"]), toy.embed(["cat"])
    )
    backend.gate.set()
    big, bad, good = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(bad, EmbeddingError)
    assert bad.index == 2
    assert isinstance(big, Embeddings)
    assert isinstance(good, Embeddings)
    assert any(NAN in tokens for batch in backend.batches for tokens in batch)


async def test_a_lane_that_fails_fails_its_batch_and_works_on(toy: EmbeddingModel) -> None:
    with pytest.raises(MemorydError, match="exploded as asked"):
        await toy.embed(["cat", "explode"])
    with pytest.raises(MemorydError, match="exploded as asked"):
        await toy.embed_query("explode")
    assert np.allclose((await toy.embed(["cat"])).vectors, toy_vector("cat"))


async def test_too_many_waiting_requests_are_refused_at_once(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    waiting = await start(*(bulk(toy, 600) for _ in range(5)))
    with pytest.raises(OverloadedError):
        await asyncio.wait_for(toy.embed(["cat"] * 600), 1)
    query = asyncio.create_task(toy.embed_query("dog"))
    backend.gate.set()
    assert np.allclose(await query, toy_vector("dog"))
    await asyncio.gather(*waiting)
    assert np.allclose((await toy.embed(["cat"])).vectors, toy_vector("cat"))


async def test_a_canceled_request_gives_its_place_free_and_is_not_encoded(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    tasks = await start(*(bulk(toy, 600) for _ in range(5)))
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks[1:], return_exceptions=True)
    refilled = await start(*(toy.embed(["dog"] * 3) for _ in range(4)))
    backend.gate.set()
    for task in refilled:
        assert np.allclose((await task).vectors[0], toy_vector("dog"))
    await tasks[0]
    assert backend.encoded < 1800


async def test_closing_ends_what_runs_and_refuses_what_waits(backend: ToyBackend) -> None:
    toy = open_toy(backend, max_waiting_requests=5)
    backend.gate.clear()
    tasks = await start(bulk(toy, 600), bulk(toy, 600), toy.embed_query("dog"))
    await asyncio.wait_for(toy.close(), 2)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(answer, StoppingError) for answer in answers)
    assert backend.closed_lanes == len(backend.lanes)
    assert backend.is_closed


async def test_no_inputs_give_no_vectors(toy: EmbeddingModel, backend: ToyBackend) -> None:
    embeddings = await asyncio.wait_for(toy.embed([]), 2)
    assert embeddings.vectors.shape == (0, backend.dimensions)
