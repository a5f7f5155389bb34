"""keep_alive on /api/embed, with Ollama's meaning (api.Duration in its api/types.go)."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from servers import Running, Serve
from toys import ToyLoader
from wire import Answer

from memoryd.api.durations import parse_keep_alive
from memoryd.embeddings.engine import Engine, EngineLimits
from memoryd.embeddings.types import ModelSpec, PreparedModel
from memoryd.errors import InvalidInputError


class TwoToys(ToyLoader):
    """Have a second model beside the one that collections work with."""

    def resolve(self, name: str) -> str:
        """Return the one name of a model."""
        return "other" if name == "other" else super().resolve(name)

    async def prepare(self, name: str) -> PreparedModel:
        """Prepare the toy under the name that was asked for."""
        return replace(await super().prepare("toy"), spec=ModelSpec(name))


@pytest_asyncio.fixture
async def two(serve: Serve, models_dir: Any) -> AsyncIterator[Running]:
    engine = Engine(TwoToys(models_dir), EngineLimits(keep_alive_s=77))
    async with engine, serve(engine) as running:
        yield running


async def embed(running: Running, **fields: Any) -> Answer:
    return await running.client.post("/api/embed", {"model": "other", **fields})


def expiry(running: Running, name: str) -> float | None:
    """Return in how many seconds the model leaves, None where it isn't loaded."""
    loaded = {each.model.spec.name: each for each in running.memory.engine.loaded()}
    return loaded[name].expires_in_s if name in loaded else None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        (300, 300),
        (42.5, 42.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("100ms", 0.1),
        ("1.5s", 1.5),
        ("0", 0),
        (0, 0),
        ("0s", 0),
        (-1, -1),
        (-3.14, -1),
        ("-1m", -1),
    ],
)
def test_durations_are_read_as_ollama_reads_them(given: Any, seconds: float | None) -> None:
    assert parse_keep_alive(given) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("", 'time: invalid duration ""'),
        ("5 minutes", 'time: unknown unit " minutes" in duration "5 minutes"'),
        ("m", 'time: invalid duration "m"'),
        ("9999999h", 'time: invalid duration "9999999h"'),
        ("٣s", 'time: invalid duration "٣s"'),
        (True, "Unsupported type: 'bool'"),
        ([1], "Unsupported type: '[]interface {}'"),
    ],
)
def test_what_is_no_duration_is_told_in_ollamas_words(given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_keep_alive(given)
    assert raised.value.message == message


async def test_a_request_sets_how_long_its_model_stays(two: Running) -> None:
    for given, expected in ((None, 77), ("10m", 600), (5, 5), (-1, math.inf)):
        (await embed(two, input="cat", keep_alive=given)).ok()
        assert expiry(two, "other") == pytest.approx(expected, abs=2)


async def test_zero_unloads_with_and_without_an_input(two: Running) -> None:
    for fields in ({}, {"input": "cat"}):
        (await embed(two)).ok()
        assert expiry(two, "other") == pytest.approx(77, abs=2)
        (await embed(two, keep_alive=0, **fields)).ok()
        await asyncio.sleep(0.05)
        assert expiry(two, "other") is None


async def test_unloading_what_is_not_loaded_loads_nothing(two: Running) -> None:
    answer = (await embed(two, keep_alive=0)).ok()
    assert answer["embeddings"] == []
    assert not two.memory.engine.is_loaded("other")


async def test_a_collections_model_stays(two: Running) -> None:
    answer = await two.client.post("/api/embed", {"model": "toy", "keep_alive": 0})
    answer.ok()
    assert two.memory.engine.is_loaded("toy")
    await asyncio.sleep(0.05)
    assert expiry(two, "toy") == 0


async def test_a_wrong_keep_alive_is_400(two: Running) -> None:
    answer = await embed(two, input="cat", keep_alive="10")
    assert answer.status == 400
    assert answer.json == {"error": 'time: missing unit in duration "10"'}
