"""Vectors of queries: kept while there is room, and asked of a model once at a time."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from polling import until
from toys import JUDGE, TOY, ToyBackend, ToyShelf, toy_vector

from memoryd.embeddings.engine import Engine
from memoryd.embeddings.types import ModelSpec
from memoryd.errors import EmbeddingError, InvalidInputError, ModelKindError
from memoryd.memory.query_vectors import QueryVectors
from memoryd.vectors.types import Vector

OTHER, ASKING = "other", "asking"
ROOM_BYTES = 1 << 20


@pytest.fixture
def shelf() -> ToyShelf:
    shelf = ToyShelf(TOY, OTHER, ASKING, JUDGE)
    shelf.specs[ASKING] = ModelSpec(
        ASKING, query_prefix="red {instruction} blue ", instruction="plum"
    )
    shelf.poolings[JUDGE] = "rank"
    return shelf


@pytest_asyncio.fixture
async def engine(shelf: ToyShelf) -> AsyncIterator[Engine]:
    async with Engine(shelf) as engine:
        yield engine


@pytest.fixture
def kept() -> QueryVectors:
    return QueryVectors(ROOM_BYTES)


async def backend_of(engine: Engine, shelf: ToyShelf, name: str = TOY) -> ToyBackend:
    await engine.model(name)
    return shelf.open_backends(name)[-1]


def count_lookups(engine: Engine) -> tuple[float, float]:
    """Return how many lookups have found a vector, and how many none."""
    read = engine.metrics.registry.get_sample_value
    name = "memoryd_query_cache_lookups_total"
    hits, misses = (read(name, {"result": result}) for result in ("hit", "miss"))
    assert hits is not None
    assert misses is not None
    return hits, misses


async def test_what_is_asked_again_is_not_embedded_again(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    backend = await backend_of(engine, shelf)
    first = await kept.get(engine, TOY, "cat dog")
    again = await kept.get(engine, TOY, "cat dog")
    assert (backend.encoded, count_lookups(engine)) == (1, (1, 1))
    np.testing.assert_allclose(first, toy_vector("cat dog"), rtol=1e-6)
    np.testing.assert_array_equal(first, again)
    assert (first.dtype, first.shape) == (np.float32, (backend.dimensions,))


async def test_another_text_instruction_or_model_is_another_query(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    asking = await backend_of(engine, shelf, ASKING)
    for text, instruction, seen in (
        ("cat", None, "red plum blue cat"),
        ("cat", "apple", "red apple blue cat"),
        ("dog", "apple", "red apple blue dog"),
        ("cat", None, "red plum blue cat"),
        ("cat", "plum", "red plum blue cat"),  # the default, said aloud
    ):
        vector = await kept.get(engine, ASKING, text, instruction)
        np.testing.assert_allclose(vector, toy_vector(seen), rtol=1e-6)
    assert asking.encoded == 3
    for name in (TOY, OTHER):
        np.testing.assert_allclose(
            await kept.get(engine, name, "cat"), toy_vector("cat"), rtol=1e-6
        )
        assert (await backend_of(engine, shelf, name)).encoded == 1


async def test_a_model_that_is_loaded_again_is_asked_again(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    """Its file or its prefix may be another one by then."""
    await kept.get(engine, ASKING, "cat")
    engine.release(ASKING)
    engine.expire(ASKING)
    await until(lambda: not shelf.open_backends(ASKING))
    shelf.specs[ASKING] = ModelSpec(ASKING, query_prefix="green ")
    vector = await kept.get(engine, ASKING, "cat")
    np.testing.assert_allclose(vector, toy_vector("green cat"), rtol=1e-6)
    shelf.specs[OTHER] = shelf.specs[TOY]
    await kept.get(engine, OTHER, "cat")
    engine.release(OTHER)
    engine.expire(OTHER)
    await until(lambda: not shelf.open_backends(OTHER))
    await kept.get(engine, OTHER, "cat")  # the same name and prefix, from another file maybe
    assert [backend.encoded for backend in shelf.backends[OTHER]] == [1, 1]


async def test_vectors_that_are_shared_cannot_be_changed(
    engine: Engine, kept: QueryVectors
) -> None:
    for _asked in ("embedded", "kept"):
        vector = await kept.get(engine, TOY, "cat")
        with pytest.raises(ValueError, match="read-only"):
            vector[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            vector.setflags(write=True)


async def test_the_same_query_at_once_is_embedded_once(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    backend = await backend_of(engine, shelf)
    backend.gate.clear()
    asking = [asyncio.create_task(kept.get(engine, TOY, "cat")) for _ in range(20)]
    await until(lambda: bool(backend.batches))
    backend.gate.set()
    for vector in await asyncio.gather(*asking):
        np.testing.assert_allclose(vector, toy_vector("cat"), rtol=1e-6)
    assert (backend.encoded, count_lookups(engine)) == (1, (0, 20))


@pytest.mark.parametrize("room_bytes", [0, ROOM_BYTES])
async def test_who_leaves_takes_nothing_from_the_others(
    engine: Engine, shelf: ToyShelf, room_bytes: int
) -> None:
    kept = QueryVectors(room_bytes)
    backend = await backend_of(engine, shelf)
    backend.gate.clear()
    first, second, third = (asyncio.create_task(kept.get(engine, TOY, "cat")) for _ in range(3))
    await until(lambda: bool(backend.batches))
    first.cancel()
    third.cancel()
    await asyncio.wait([first, third])
    assert first.cancelled()
    assert third.cancelled()
    backend.gate.set()
    np.testing.assert_allclose(await second, toy_vector("cat"), rtol=1e-6)
    assert backend.encoded == 1


async def test_what_nobody_waits_for_any_more_is_not_embedded(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    backend = await backend_of(engine, shelf)
    model = await engine.model(TOY)
    backend.gate.clear()
    busy = [asyncio.create_task(kept.get(engine, TOY, f"cat {at}")) for at in range(2)]
    await until(lambda: bool(backend.batches))
    leaving = [asyncio.create_task(kept.get(engine, TOY, "dog")) for _ in range(2)]
    await until(lambda: model.waiting["query"][0] == 1)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    assert model.waiting["query"][0] == 0
    backend.gate.set()
    await asyncio.gather(*busy)
    assert backend.encoded == 2
    np.testing.assert_allclose(await kept.get(engine, TOY, "dog"), toy_vector("dog"), rtol=1e-6)


async def test_an_error_goes_to_all_and_is_not_kept(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    backend = await backend_of(engine, shelf)
    asked = await asyncio.gather(
        *(kept.get(engine, TOY, "nan") for _ in range(5)), return_exceptions=True
    )
    assert [type(each) for each in asked] == [EmbeddingError] * 5
    assert (backend.encoded, len(kept)) == (1, 0)
    backend.is_cured = True
    assert np.isfinite(await kept.get(engine, TOY, "nan")).all()


async def test_the_vectors_that_were_asked_for_last_are_kept(
    engine: Engine, shelf: ToyShelf
) -> None:
    backend = await backend_of(engine, shelf)
    kept = QueryVectors(20_000)
    texts = [f"cat {at}" for at in range(100)]
    for text in texts:
        await kept.get(engine, TOY, texts[0])  # which stays, since it is asked for again
        await kept.get(engine, TOY, text)
        assert kept.size_bytes <= 20_000
    assert backend.encoded == 100
    held = len(kept)
    assert 10 < held < 40
    await kept.get(engine, TOY, texts[0])
    for text in texts[-held + 1 :]:
        await kept.get(engine, TOY, text)
    assert backend.encoded == 100
    await kept.get(engine, TOY, texts[1])
    assert backend.encoded == 101


async def test_texts_count_as_what_is_kept(engine: Engine) -> None:
    few, many = QueryVectors(ROOM_BYTES), QueryVectors(ROOM_BYTES)
    await few.get(engine, TOY, "cat")
    await many.get(engine, TOY, "cat" + " " * 10_000)
    assert 10_000 <= many.size_bytes - few.size_bytes < 10_100


async def test_a_text_that_is_too_long_drives_out_no_others(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    backend = await backend_of(engine, shelf)
    await kept.get(engine, TOY, "cat")
    before = kept.size_bytes
    for _ in range(2):
        await kept.get(engine, TOY, "dog" + " " * (ROOM_BYTES // 2))
    assert (backend.encoded, len(kept), kept.size_bytes) == (3, 1, before)


async def test_without_room_nothing_is_kept(engine: Engine, shelf: ToyShelf) -> None:
    kept = QueryVectors(0)
    for _ in range(2):
        await kept.get(engine, TOY, "cat")
    assert (await backend_of(engine, shelf)).encoded == 2
    assert (len(kept), kept.size_bytes) == (0, 0)


async def test_of_several_queries_each_that_is_not_kept_is_embedded_once(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    backend = await backend_of(engine, shelf)
    await kept.get(engine, TOY, "dog")
    texts = ["cat", "dog", "fish", "cat", "bird", "apple"]
    vectors: list[Vector] = await kept.get_many(engine, TOY, texts)
    np.testing.assert_allclose(vectors, [toy_vector(text)[:] for text in texts], rtol=1e-6)
    assert backend.encoded == 5
    assert await kept.get_many(engine, TOY, []) == []
    with pytest.raises(EmbeddingError):
        await kept.get_many(engine, TOY, ["plum", "nan"])


async def test_several_queries_share_their_batches(
    engine: Engine, shelf: ToyShelf, kept: QueryVectors
) -> None:
    backend = await backend_of(engine, shelf)
    backend.gate.clear()
    asking = asyncio.create_task(kept.get_many(engine, TOY, [f"cat {at}" for at in range(12)]))
    await until(lambda: bool(backend.batches))
    backend.gate.set()
    await asking
    assert backend.encoded == 12
    assert len(backend.batches) <= 4


async def test_a_query_that_the_model_does_not_take_is_refused(
    engine: Engine, kept: QueryVectors
) -> None:
    with pytest.raises(InvalidInputError, match="takes no instruction") as refusal:
        await kept.get(engine, TOY, "cat", "find pets")
    assert refusal.value.param == "instruction"
    for _ in range(2):
        with pytest.raises(ModelKindError, match="reranker"):
            await kept.get(engine, JUDGE, "cat")
