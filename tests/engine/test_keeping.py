"""Which models stay loaded, seen through several toys."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from polling import until
from toys import TOY_BYTES, ToyBackend, ToyShelf, toy_vector

from memoryd.embeddings.engine import KEEP_ALIVE_S, Engine, EngineLimits
from memoryd.errors import (
    MemorydError,
    ModelFileError,
    OutOfMemoryError,
    StoppingError,
    UnavailableError,
)

ROOM_FOR_TWO = EngineLimits(memory_bytes=2 * TOY_BYTES)


@pytest.fixture
def shelf() -> ToyShelf:
    return ToyShelf("a", "b", "c")


@asynccontextmanager
async def engine_of(shelf: ToyShelf, limits: EngineLimits | None = None) -> AsyncIterator[Engine]:
    """Give an engine, and see after it that each model was freed, and rightly."""
    async with Engine(shelf, limits) as engine:
        yield engine
    for name, backends in shelf.backends.items():
        assert not shelf.open_backends(name)
        assert not any(backend.misuses for backend in backends)


async def use(engine: Engine, name: str, keep_alive_s: float | None = None) -> None:
    async with engine.using(name, keep_alive_s) as model:
        assert np.allclose((await model.embed(["cat"])).vectors, toy_vector("cat"))


async def gone(engine: Engine, name: str) -> None:
    """Wait until a model has left."""
    await until(lambda: not engine.is_loaded(name))


def loaded(engine: Engine) -> set[str]:
    return {each.model.spec.name for each in engine.loaded()}


async def test_a_model_is_loaded_once_for_all_who_use_it(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        await asyncio.gather(*(use(engine, name) for name in "aAb" * 10))
        assert {name: len(backends) for name, backends in shelf.backends.items()} == {
            "a": 1,
            "b": 1,
            "c": 0,
        }


# keep_alive


async def test_a_model_leaves_when_it_was_not_used_for_keep_alive(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        await use(engine, "a", 0.15)
        started = time.monotonic()
        assert 0 < engine.loaded()[0].expires_in_s <= 0.15
        await asyncio.sleep(0.05)
        assert engine.is_loaded("a")
        await gone(engine, "a")
        assert time.monotonic() - started > 0.1
        await until(lambda: shelf.backends["a"][0].is_closed)


async def test_keep_alive_counts_from_the_end_of_the_last_use(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        async with engine.using("a", 0.1):
            await asyncio.sleep(0.2)
            assert engine.loaded()[0].expires_in_s == pytest.approx(0.1)
        assert engine.is_loaded("a")
        await gone(engine, "a")


async def test_keep_alive_of_zero_lets_a_model_leave_as_soon_as_it_is_idle(
    shelf: ToyShelf,
) -> None:
    async with engine_of(shelf) as engine:
        async with engine.using("a", 60) as model:
            await use(engine, "a", 0)
            await asyncio.sleep(0.05)
            assert engine.is_loaded("a")
            assert np.allclose((await model.embed(["dog"])).vectors, toy_vector("dog"))
        await gone(engine, "a")
        await use(engine, "a")
        assert len(shelf.backends["a"]) == 2


async def test_a_negative_keep_alive_keeps_a_model_for_ever(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(keep_alive_s=0)) as engine:
        await use(engine, "a", -1)
        await asyncio.sleep(0.05)
        [kept] = engine.loaded()
        assert kept.expires_in_s == math.inf
        assert not kept.is_pinned


@pytest.mark.parametrize("first", [-1, 60, 0.1])
async def test_each_request_replaces_keep_alive_by_a_shorter_one(
    shelf: ToyShelf, first: float
) -> None:
    async with engine_of(shelf) as engine:
        await use(engine, "a", first)
        await use(engine, "a", 0)
        await gone(engine, "a")


@pytest.mark.parametrize("second", [-1, 60])
async def test_each_request_replaces_keep_alive_by_a_longer_one(
    shelf: ToyShelf, second: float
) -> None:
    async with engine_of(shelf) as engine:
        await use(engine, "a", 0.05)
        await use(engine, "a", second)
        await asyncio.sleep(0.15)
        assert engine.is_loaded("a")


async def test_a_request_that_says_nothing_brings_back_the_default(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(keep_alive_s=0)) as engine:
        await use(engine, "a", -1)
        assert engine.is_loaded("a")
        await use(engine, "a")
        await gone(engine, "a")


async def test_the_default_keep_alive_may_be_for_ever(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(keep_alive_s=-1)) as engine:
        await use(engine, "a")
        assert engine.loaded()[0].expires_in_s == math.inf


async def test_a_model_expires_as_soon_as_it_is_idle(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        await use(engine, "b", -1)
        async with engine.using("a", -1):
            engine.expire("a")
            await asyncio.sleep(0.02)
            assert engine.is_loaded("a")
        await gone(engine, "a")
        engine.expire("a")  # it isn't there: nothing happens
        assert loaded(engine) == {"b"}


# Models that collections work with


@pytest.mark.parametrize("keep_alive_s", [0, 0.02, -1])
async def test_a_model_that_a_collection_works_with_stays_until_it_is_released(
    shelf: ToyShelf, keep_alive_s: float
) -> None:
    async with engine_of(shelf, EngineLimits(keep_alive_s=0)) as engine:
        model = await engine.model("a")
        await use(engine, "a", keep_alive_s)
        engine.expire("a")
        await asyncio.sleep(0.1)
        [kept] = engine.loaded()
        assert kept.is_pinned
        assert kept.model is model
        engine.release("a")
        await gone(engine, "a")


async def test_a_model_may_be_released_while_it_is_being_pinned(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(keep_alive_s=0)) as engine:
        async with engine.pinning("a") as model:
            engine.release("a")
            await asyncio.sleep(0.05)
            assert np.allclose((await model.embed(["cat"])).vectors, toy_vector("cat"))
        await gone(engine, "a")
        async with engine.pinning("a"):
            pass
        await asyncio.sleep(0.05)
        assert engine.is_loaded("a")


async def test_what_is_loaded_is_told_with_when_it_expires() -> None:
    async with engine_of(ToyShelf("a", "b", "c", "d")) as engine:
        await use(engine, "b", 10)
        await engine.model("a")
        await use(engine, "c", 1000)
        await use(engine, "d", -1)
        told = [(each.model.spec.name, each.is_pinned) for each in engine.loaded()]
        assert told == [("d", False), ("c", False), ("a", True), ("b", False)]
        expected = [math.inf, 1000, KEEP_ALIVE_S, 10]
        assert [each.expires_in_s for each in engine.loaded()] == pytest.approx(expected, abs=2)


async def test_a_released_model_stays_as_long_as_any_other(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(keep_alive_s=0.15)) as engine:
        await engine.model("a")
        engine.release("a")
        await asyncio.sleep(0.02)
        assert engine.is_loaded("a")
        await gone(engine, "a")


async def test_a_model_that_was_in_use_is_kept_for_a_collection(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        async with engine.using("a", 0):
            await engine.model("a")
        await asyncio.sleep(0.05)
        assert engine.is_loaded("a")


# Memory


async def test_what_a_model_takes_is_told(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        await use(engine, "a")
        assert engine.loaded()[0].memory_bytes == TOY_BYTES


async def test_the_least_recently_used_leaves_when_memory_is_passed(shelf: ToyShelf) -> None:
    async with engine_of(shelf, ROOM_FOR_TWO) as engine:
        for name in ("a", "b", "a", "c"):
            await use(engine, name, -1)
        assert loaded(engine) == {"a", "c"}
        assert shelf.backends["b"][0].is_closed
        await use(engine, "b")
        assert loaded(engine) == {"b", "c"}


async def test_without_a_budget_all_models_stay(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(memory_bytes=None)) as engine:
        for name in "abc":
            await use(engine, name)
        assert loaded(engine) == {"a", "b", "c"}


async def test_as_many_leave_as_a_large_model_needs(shelf: ToyShelf) -> None:
    shelf.bytes_of["c"] = 2 * TOY_BYTES
    async with engine_of(shelf, ROOM_FOR_TWO) as engine:
        for name in "abc":
            await use(engine, name)
        assert loaded(engine) == {"c"}


async def test_a_load_waits_for_a_model_in_use_to_be_idle(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(memory_bytes=TOY_BYTES)) as engine:
        async with engine.using("a", -1) as model:
            waiting = asyncio.create_task(use(engine, "b"))
            await asyncio.sleep(0.05)
            assert loaded(engine) == {"a"}
            assert np.allclose((await model.embed(["dog"])).vectors, toy_vector("dog"))
        await asyncio.wait_for(waiting, 2)
        assert loaded(engine) == {"b"}


async def test_a_load_waits_for_a_collection_to_release_its_model(shelf: ToyShelf) -> None:
    async with engine_of(shelf, ROOM_FOR_TWO) as engine:
        await engine.model("a")
        async with engine.using("b"):
            waiting = asyncio.create_task(use(engine, "c"))
            await asyncio.sleep(0.02)
            engine.release("a")
            await asyncio.wait_for(waiting, 2)
            assert loaded(engine) == {"b", "c"}


async def test_a_load_that_finds_no_room_says_the_numbers_when_it_gives_up(
    shelf: ToyShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoryd.embeddings.engine._ROOM_PATIENCE_S", 0.1)
    mebibyte = 1 << 20
    shelf.bytes_of = {"a": 40 * mebibyte, "b": 30 * mebibyte, "c": 50 * mebibyte}
    async with engine_of(shelf, EngineLimits(memory_bytes=80 * mebibyte)) as engine:
        async with engine.using("a"), engine.using("b"):
            with pytest.raises(OutOfMemoryError) as full:
                await use(engine, "c")
            for number in ("c needs about 50 MB", "80 MB", "a (40 MB)", "b (30 MB)"):
                assert number in full.value.message
            assert full.value.retry_after_s > 0
            assert loaded(engine) == {"a", "b"}
        await use(engine, "c")  # tried again, now that there is room


async def test_models_of_collections_are_never_turned_out(shelf: ToyShelf) -> None:
    async with engine_of(shelf, ROOM_FOR_TWO) as engine:
        kept = [await engine.model(name) for name in "ab"]
        with pytest.raises(OutOfMemoryError):
            await asyncio.wait_for(use(engine, "c"), 2)
        for model in kept:
            assert np.allclose((await model.embed(["cat"])).vectors, toy_vector("cat"))
        assert loaded(engine) == {"a", "b"}


async def test_nobody_waits_for_a_collections_model_to_leave_while_it_is_used(
    shelf: ToyShelf,
) -> None:
    async with engine_of(shelf, EngineLimits(memory_bytes=TOY_BYTES)) as engine:
        await engine.model("a")
        async with engine.using("a"):
            with pytest.raises(OutOfMemoryError):
                await asyncio.wait_for(use(engine, "b"), 2)


async def test_a_model_that_can_never_fit_turns_no_other_out(shelf: ToyShelf) -> None:
    shelf.bytes_of["c"] = 3 * TOY_BYTES
    async with engine_of(shelf, ROOM_FOR_TWO) as engine:
        await use(engine, "a")
        await use(engine, "b")
        with pytest.raises(OutOfMemoryError):
            await asyncio.wait_for(use(engine, "c"), 2)
        assert loaded(engine) == {"a", "b"}


async def test_a_model_that_can_never_fit_waits_for_nobody(shelf: ToyShelf) -> None:
    shelf.bytes_of["c"] = 3 * TOY_BYTES
    async with engine_of(shelf, ROOM_FOR_TWO) as engine, engine.using("a"):
        with pytest.raises(OutOfMemoryError):
            await asyncio.wait_for(use(engine, "c"), 2)


# Loads that fail, are left, or come while another leaves


async def test_a_failed_load_says_why_and_is_tried_again(shelf: ToyShelf) -> None:
    shelf.failures["a"] = 1
    async with engine_of(shelf, ROOM_FOR_TWO) as engine:
        results = await asyncio.gather(
            *(use(engine, "a") for _ in range(5)), return_exceptions=True
        )
        assert [str(result) for result in results] == ["a is broken, as asked"] * 5
        assert shelf.loads == 1
        assert not engine.is_loaded("a")
        assert engine.loaded() == []
        await use(engine, "a")
        assert shelf.loads == 2


async def test_a_model_whose_lanes_cannot_be_opened_is_freed_with_those_that_were(
    shelf: ToyShelf,
) -> None:
    shelf.lanes_to_open = 2
    async with engine_of(shelf) as engine:
        with pytest.raises(ModelFileError, match="no more lanes"):
            await use(engine, "a")
        [backend] = shelf.backends["a"]
        assert backend.is_closed
        assert backend.closed_lanes == len(backend.lanes) == 2


async def test_a_model_that_nobody_waits_for_any_more_leaves_when_it_is_loaded(
    shelf: ToyShelf,
) -> None:
    async with engine_of(shelf) as engine:
        shelf.opening_gate.clear()
        callers = [asyncio.create_task(use(engine, "a", 0)) for _ in range(3)]
        await asyncio.sleep(0.02)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        shelf.opening_gate.set()
        await until(lambda: bool(shelf.backends["a"]) and shelf.backends["a"][0].is_closed)
        assert not engine.is_loaded("a")


async def test_a_caller_who_leaves_a_load_leaves_it_to_the_others(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        shelf.opening_gate.clear()
        leaving, staying = (asyncio.create_task(use(engine, "a")) for _ in range(2))
        await asyncio.sleep(0.02)
        leaving.cancel()
        await asyncio.wait([leaving])
        shelf.opening_gate.set()
        await staying
        assert shelf.loads == 1


async def test_a_load_that_takes_too_long_is_told_and_goes_on(
    shelf: ToyShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoryd.embeddings.engine._LOADING_PATIENCE_S", 0.05)
    async with engine_of(shelf) as engine:
        shelf.opening_gate.clear()
        with pytest.raises(UnavailableError, match="a is being fetched or loaded") as busy:
            await use(engine, "a")
        assert busy.value.retry_after_s > 0
        shelf.opening_gate.set()
        await until(lambda: engine.is_loaded("a"))
        await use(engine, "a")
        assert shelf.loads == 1


async def test_models_come_and_go_at_once(shelf: ToyShelf) -> None:
    async with engine_of(shelf, ROOM_FOR_TWO) as engine:

        async def client(number: int) -> None:
            for turn in range(20):
                await use(engine, "abc"[(number + turn) % 3], [0, 0.001, 60, -1][turn % 4])

        await asyncio.wait_for(asyncio.gather(*map(client, range(8))), 20)
        assert shelf.loads > 10
        assert shelf.most_at_once == {"a": 1, "b": 1, "c": 1}
        assert len(engine.loaded()) <= 2


# The end


async def test_leaving_the_engine_frees_a_model_that_was_being_loaded(shelf: ToyShelf) -> None:
    async with Engine(shelf) as engine:
        shelf.opening_gate.clear()
        loading = asyncio.create_task(use(engine, "a"))
        await asyncio.sleep(0.02)
        asyncio.get_running_loop().call_later(0.05, shelf.opening_gate.set)
    await asyncio.wait([loading])
    await until(lambda: bool(shelf.backends["a"]))
    await until(lambda: not shelf.open_backends("a"))
    assert not shelf.backends["a"][0].misuses


async def test_leaving_the_engine_frees_a_model_that_another_waits_for(shelf: ToyShelf) -> None:
    async with engine_of(shelf, EngineLimits(memory_bytes=TOY_BYTES)) as engine:
        await use(engine, "a", -1)
        backend = shelf.backends["a"][0]
        working = asyncio.create_task(slow_use(engine, backend))
        await asyncio.sleep(0.05)
        working.cancel()  # the model is idle, but its thread has still to end
        await asyncio.wait([working])
        waiting = asyncio.create_task(use(engine, "b"))
        await asyncio.sleep(0.05)
    assert isinstance(await failure(waiting), asyncio.CancelledError | MemorydError)


async def slow_use(engine: Engine, backend: ToyBackend) -> None:
    backend.delay_s = 0.3
    async with engine.using("a", 0) as model:
        await model.embed(["cat"])


async def failure(task: asyncio.Task[None]) -> BaseException | None:
    [result] = await asyncio.gather(task, return_exceptions=True)
    return result


async def test_after_a_refusal_no_model_is_loaded_any_more(shelf: ToyShelf) -> None:
    async with engine_of(shelf) as engine:
        await use(engine, "a")
        engine.refuse()
        for name in "ab":
            with pytest.raises(StoppingError):
                await use(engine, name)
        assert shelf.backends["b"] == []
