"""Who gets the lanes when, seen through a toy model that can be held up."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from polling import until
from toys import ToyBackend, open_toy, toy_vector

from memoryd.embeddings.model import EmbeddingModel, Embeddings
from memoryd.embeddings.types import ModelSpec, Tuning
from memoryd.errors import (
    EmbeddingError,
    InputTooLongError,
    MemorydError,
    OverloadedError,
    StoppingError,
)

SMALL_BATCHES = Tuning(lanes=2, batch_tokens=16)
CAT, DOG, FISH = (toy_vector(word) for word in ("cat", "dog", "fish"))
LONG_TOKENS = 900
CLOSING = 3  # seconds that closing may take


@pytest.fixture
def backend() -> ToyBackend:
    backend = ToyBackend()
    backend.max_tokens = 1000
    return backend


@pytest_asyncio.fixture
async def toy(backend: ToyBackend) -> AsyncIterator[EmbeddingModel]:
    """Give a toy whose batches are small, and which takes inputs that need a lane of their own."""
    model = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES, max_waiting_requests=4)
    yield model
    for gate in (backend.gate, backend.opening_gate, backend.tokenizing_gate):
        gate.set()
    await asyncio.wait_for(model.close(), CLOSING)
    assert backend.closed_lanes == len(backend.lanes)
    assert not backend.misuses


async def start(*coroutines: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.create_task(coroutine))
        await asyncio.sleep(0.02)
    return tasks


def long_text(word: str) -> str:
    return f"{word} " * (LONG_TOKENS - 2)


def is_long_lane_open(backend: ToyBackend) -> bool:
    return len(backend.lanes) > 3 + backend.closed_lanes


# Failures


async def test_an_exception_fails_its_own_request_alone_in_a_shared_batch(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    tasks = await start(
        toy.embed(["cat"] * 40), toy.embed(["dog", "explode", "dog"]), toy.embed(["fish"] * 3)
    )
    backend.gate.set()
    first, bad, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(bad, MemorydError)
    assert "input 1" in bad.message
    assert np.allclose(first.vectors, CAT)
    assert np.allclose(last.vectors, FISH)


async def test_the_index_of_an_input_that_fails_counts_long_ones_too(toy: EmbeddingModel) -> None:
    texts = [long_text("cat"), "dog", long_text("cat"), "nan", "dog"]
    with pytest.raises(EmbeddingError) as failed:
        await toy.embed(texts)
    assert failed.value.index == 3
    texts[3] = "dog"
    texts[2] += " nan"
    with pytest.raises(EmbeddingError) as failed:
        await toy.embed(texts)
    assert failed.value.index == 2


async def test_a_failing_document_is_named_by_its_index() -> None:
    backend = ToyBackend(pooling="rank")
    toy = open_toy(backend)
    with pytest.raises(EmbeddingError) as failed:
        await toy.rerank("cat", ["cat", "dog", "nan", "fish"])
    assert failed.value.index == 2
    assert (await toy.rerank("cat", ["cat", "dog"])).scores.tolist() == [1, 0]
    await toy.close()


async def test_tokens_that_fail_are_named_by_the_index_of_their_input(toy: EmbeddingModel) -> None:
    with pytest.raises(EmbeddingError) as failed:
        await toy.embed_tokens(["cat", "cat nan"])
    assert failed.value.index == 1


# Places


@pytest.mark.parametrize("kind", ["embed", "embed_tokens"])
async def test_a_full_queue_refuses_at_once_and_a_caller_that_leaves_makes_room(
    toy: EmbeddingModel, backend: ToyBackend, kind: str
) -> None:
    ask = getattr(toy, kind)
    backend.gate.clear()
    waiting = await start(*(toy.embed(["cat"] * 300) for _ in range(4)))
    with pytest.raises(OverloadedError) as full:
        await asyncio.wait_for(ask(["dog"]), 1)
    assert full.value.retry_after_s > 0
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    [welcome] = await start(ask(["dog"]))
    assert not welcome.done()
    backend.gate.set()
    await asyncio.gather(welcome, *waiting[1:])


async def test_a_full_queue_refuses_pairs_to_score() -> None:
    backend = ToyBackend(pooling="rank")
    toy = open_toy(backend, max_waiting_requests=1)
    backend.gate.clear()
    [first] = await start(toy.rerank("cat", ["cat"]))
    with pytest.raises(OverloadedError):
        await asyncio.wait_for(toy.rerank("cat", ["cat"]), 1)
    backend.gate.set()
    await first
    await toy.close()


async def test_queries_are_refused_when_too_many_wait(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    # One runs, one is cut ahead, and four may wait.
    waiting = await start(*(toy.embed_query("cat") for _ in range(6)))
    with pytest.raises(OverloadedError):
        await asyncio.wait_for(toy.embed_query("dog"), 1)
    leaving = waiting.pop()
    leaving.cancel()
    await asyncio.wait([leaving])
    [welcome] = await start(toy.embed_query("dog"))
    backend.gate.set()
    assert np.allclose(np.concatenate(await asyncio.gather(*waiting)), CAT)
    assert np.allclose(await welcome, DOG)


async def test_a_query_whose_caller_left_is_not_encoded(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    tasks = await start(*(toy.embed_query("cat") for _ in range(6)))
    for task in tasks[2:]:
        task.cancel()
    backend.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await toy.embed_query("dog")
    assert backend.encoded == 3


# Fairness


async def test_two_large_requests_advance_together(backend: ToyBackend) -> None:
    toy = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES)
    backend.gate.clear()
    tasks = await start(toy.embed(["cat"] * 500), toy.embed(["dog"] * 500))
    backend.gate.set()
    await asyncio.gather(*tasks)
    cats = [sum(5 in tokens for tokens in batch) / len(batch) for batch in backend.batches]
    half = len(cats) // 2
    assert 0.3 < np.mean(cats[4:half]) < 0.7
    await toy.close()


async def test_newcomers_never_keep_an_older_request_from_its_end(backend: ToyBackend) -> None:
    backend.delay_s = 0.001
    toy = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES)
    is_over = asyncio.Event()

    async def keep_coming() -> None:
        while not is_over.is_set():
            await toy.embed(["dog cat fish bird"] * 8)

    newcomers = [asyncio.create_task(keep_coming()) for _ in range(12)]
    await asyncio.sleep(0.02)
    before = backend.encoded
    await asyncio.wait_for(toy.embed(["cat cat cat cat cat cat cat cat cat cat"] * 20), 5)
    # 20 inputs of a batch each, in turns with 12 others who take a batch of two each time.
    assert backend.encoded - before < 20 + 40 * 12 * 2
    is_over.set()
    await asyncio.gather(*newcomers)
    await toy.close()


async def test_one_input_is_done_while_a_thousand_callers_wait(backend: ToyBackend) -> None:
    backend.delay_s = 0.001
    toy = open_toy(backend, ModelSpec("toy"), max_waiting_requests=2000)
    crowd = [asyncio.create_task(toy.embed(["cat dog"])) for _ in range(1000)]
    await asyncio.sleep(0)
    assert np.allclose((await toy.embed(["fish"])).vectors, FISH)
    vectors = [answer.vectors for answer in await asyncio.gather(*crowd)]
    assert np.allclose(np.concatenate(vectors), toy_vector("cat dog"))
    await toy.close()


# Long inputs


async def test_a_long_input_gets_a_lane_of_its_own_that_is_freed_after(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    assert np.allclose((await toy.embed([long_text("cat")])).vectors, CAT)
    *_, lane = backend.lanes
    assert len(backend.lanes) == 4
    assert lane.max_tokens == LONG_TOKENS
    assert lane.max_sequences == 1
    assert backend.closed_lanes == 1


async def test_long_and_short_inputs_keep_their_order(toy: EmbeddingModel) -> None:
    words = ["cat", "dog", "fish", "bird", "horse"] * 4
    texts = [word if at % 3 else long_text(word) for at, word in enumerate(words)]
    embeddings = await toy.embed(texts)
    assert np.allclose(embeddings.vectors, [toy_vector(word) for word in words])
    assert embeddings.token_count == 7 * LONG_TOKENS + 13 * 3
    assert embeddings.truncated == 0


async def test_one_lane_for_long_inputs_is_there_at_a_time(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.delay_s = 0.02
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(backend.lanes) - 3 - backend.closed_lanes)
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*(toy.embed([long_text("cat")]) for _ in range(4)))
    watching.cancel()
    assert most == 1
    assert all(np.allclose(answer.vectors, CAT) for answer in answers)


async def test_short_inputs_do_not_wait_for_a_long_one(backend: ToyBackend) -> None:
    toy = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES)
    backend.opening_gate.clear()
    [long] = await start(toy.embed([long_text("cat")]))
    await asyncio.wait_for(toy.embed(["dog"] * 100), 2)
    await asyncio.wait_for(toy.embed_query("dog"), 2)
    assert not long.done()
    backend.opening_gate.set()
    await long
    await toy.close()


async def test_a_caller_of_a_long_input_that_leaves_frees_its_lane(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    [leaving] = await start(toy.embed([long_text("cat")]))
    await until(lambda: is_long_lane_open(backend))
    leaving.cancel()
    await asyncio.wait([leaving], timeout=2)
    assert leaving.cancelled()
    assert backend.lanes[-1].is_canceled
    assert not is_long_lane_open(backend)
    assert np.allclose((await toy.embed([long_text("dog")])).vectors, DOG)


async def test_a_caller_who_leaves_while_its_lane_is_made_leaves_none_behind(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.opening_gate.clear()
    [leaving] = await start(toy.embed([long_text("cat")]))
    leaving.cancel()
    await asyncio.wait([leaving], timeout=0.1)
    backend.opening_gate.set()
    await until(lambda: len(backend.lanes) == 4 and backend.closed_lanes == 1)
    assert np.allclose((await toy.embed([long_text("dog")])).vectors, DOG)


async def test_a_lane_is_not_freed_while_it_works_however_often_its_caller_leaves(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.delay_s = 0.2
    [leaving] = await start(toy.embed([long_text("cat")]))
    await until(lambda: is_long_lane_open(backend))
    for _ in range(3):
        await asyncio.sleep(0.02)
        leaving.cancel()
    await asyncio.wait([leaving])
    await until(lambda: not is_long_lane_open(backend))
    assert not backend.misuses


async def test_a_caller_who_waits_for_the_long_lane_may_leave(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    first, second = await start(*(toy.embed([long_text("cat")]) for _ in range(2)))
    second.cancel()
    await asyncio.wait([second], timeout=1)
    assert second.cancelled()
    backend.gate.set()
    await first
    assert backend.encoded == 1


async def test_a_lane_that_cannot_be_made_fails_its_request_alone(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.lanes_to_open = 3
    with pytest.raises(MemorydError, match="no more lanes"):
        await toy.embed([long_text("cat")])
    backend.lanes_to_open = 100
    assert np.allclose((await toy.embed([long_text("cat")])).vectors, CAT)


@pytest.mark.parametrize(("most_bytes", "most_tokens"), [(100, 100), (999, 999), (5000, 1000)])
async def test_the_memory_of_a_long_input_bounds_its_length(
    backend: ToyBackend, most_bytes: int, most_tokens: int
) -> None:
    toy = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES, long_input_bytes=most_bytes)
    assert toy.max_tokens == most_tokens
    text = "cat " * 2000
    with pytest.raises(InputTooLongError, match=f"2002 tokens.* {most_tokens}"):
        await toy.embed([text], truncate=False)
    embeddings = await toy.embed([text])
    assert (embeddings.token_count, embeddings.truncated) == (most_tokens, 1)
    assert all(lane.max_tokens <= most_tokens for lane in backend.lanes[3:])
    await toy.close()


# Threads


async def test_bulk_lanes_compute_with_the_threads_of_the_tuning(backend: ToyBackend) -> None:
    toy = open_toy(backend, ModelSpec("toy"), Tuning(lanes=3, threads=5, batch_tokens=32))
    assert len(backend.lanes) == 4
    await toy.embed(["cat"] * 500)
    assert set(backend.threads) == {5}
    assert max(sum(map(len, batch)) for batch in backend.batches) <= 32
    await toy.close()


async def test_a_long_query_takes_all_cores_while_no_bulk_runs(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    await toy.embed_query("cat " * 100)
    await toy.embed_query("cat")
    assert backend.threads == [2, 1]
    backend.delay_s = 0.05
    [bulk] = await start(toy.embed(["cat"] * 100))
    del backend.threads[:]
    await toy.embed_query("cat " * 100)
    assert set(backend.threads) == {1}
    await bulk


async def test_bulk_runs_on_all_lanes_at_once(toy: EmbeddingModel, backend: ToyBackend) -> None:
    backend.gate.clear()
    [bulk] = await start(toy.embed(["cat"] * 100))
    assert len(backend.batches) == 2
    backend.gate.set()
    await bulk


@pytest.mark.parametrize("item", ["cat " * 5000, ["cat " * 5000, 6]], ids=["text", "mixed"])
async def test_large_inputs_are_read_beside_the_event_loop(
    toy: EmbeddingModel, backend: ToyBackend, item: Any
) -> None:
    await toy.embed([item])
    assert threading.current_thread().name not in backend.tokenizing
    await toy.embed(["cat"])
    assert threading.current_thread().name in backend.tokenizing


# The end


async def test_closing_answers_everybody(backend: ToyBackend) -> None:
    toy = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES)
    backend.gate.clear()
    tasks = await start(
        toy.embed(["cat"] * 300),
        toy.embed_query("dog"),
        *(toy.embed([long_text("cat"), "dog"]) for _ in range(3)),
        toy.embed_tokens(["cat"]),
    )
    await asyncio.wait_for(toy.close(), CLOSING)
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
    assert [type(answer) for answer in answers] == [StoppingError] * 6
    assert all(lane.is_canceled for lane in backend.lanes)
    assert backend.is_closed
    assert not backend.misuses


async def test_closing_answers_those_whose_texts_are_still_read(backend: ToyBackend) -> None:
    toy = open_toy(backend)
    backend.tokenizing_gate.clear()
    tasks = await start(*(toy.embed(["cat " * 5000, "dog"]) for _ in range(4)))
    closing = asyncio.create_task(toy.close())
    await asyncio.sleep(0.05)
    backend.tokenizing_gate.set()
    await asyncio.wait_for(closing, CLOSING)
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
    assert [type(answer) for answer in answers] == [StoppingError] * 4


async def test_closing_does_not_compute_what_nobody_gets(backend: ToyBackend) -> None:
    toy = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES)
    backend.opening_gate.clear()
    [long] = await start(toy.embed([long_text("cat")]))
    closing = asyncio.create_task(toy.close())
    await asyncio.sleep(0.05)
    backend.opening_gate.set()
    await asyncio.wait_for(closing, CLOSING)
    with pytest.raises(StoppingError):
        await long
    assert backend.encoded == 0
    assert backend.closed_lanes == len(backend.lanes)


@pytest.mark.parametrize("text", ["cat", "cat " * 2000, long_text("cat")])
async def test_who_comes_after_the_end_is_refused(backend: ToyBackend, text: str) -> None:
    toy = open_toy(backend, ModelSpec("toy"), SMALL_BATCHES)
    await toy.close()
    for ask in (toy.embed, toy.embed_tokens):
        with pytest.raises(StoppingError):
            await asyncio.wait_for(ask([text]), 1)
    with pytest.raises(StoppingError):
        await asyncio.wait_for(toy.embed_query(text), 1)
    assert not backend.misuses


async def test_a_refusal_answers_what_waits_and_lets_what_runs_end(
    toy: EmbeddingModel, backend: ToyBackend
) -> None:
    backend.gate.clear()
    running, waiting = await start(toy.embed(["cat"] * 4), toy.embed(["dog"] * 300))
    toy.refuse()
    with pytest.raises(StoppingError):
        await asyncio.wait_for(waiting, 1)
    with pytest.raises(StoppingError):
        await toy.embed(["cat"])
    backend.gate.set()
    answer: Embeddings = await running
    assert np.allclose(answer.vectors, CAT)
