"""POST /api/generate and /api/chat of Ollama: models are loaded and unloaded, nothing is said."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from polling import until
from servers import Running, Serve
from toys import ToyShelf
from wire import Answer

from memoryd.embeddings.engine import Engine, EngineLimits

PATHS = ["/api/generate", "/api/chat"]


@pytest_asyncio.fixture
async def shelf(serve: Serve) -> AsyncIterator[Running]:
    limits = EngineLimits(keep_alive_s=77)
    async with Engine(ToyShelf("toy", "other"), limits) as engine, serve(engine) as running:
        yield running


def expiry(running: Running) -> float | None:
    """Return in how many seconds the model leaves, None where it isn't loaded."""
    loaded = {each.model.spec.name: each.expires_in_s for each in running.memory.engine.loaded()}
    return loaded.get("other")


async def ask(running: Running, path: str, **body: Any) -> Answer:
    return await running.client.post(path, body)


def told(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.data
    assert set(answer.json) == {"error"}
    text: str = answer.json["error"]
    return text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("empty", [{}, {"prompt": "", "messages": []}, {"images": []}])
async def test_a_request_for_nothing_loads_the_model(
    shelf: Running, path: str, empty: dict[str, Any]
) -> None:
    answer = (await ask(shelf, path, model="OTHER", **empty)).ok()
    assert (answer["model"], answer["done"], answer["done_reason"]) == ("OTHER", True, "load")
    if path == "/api/generate":
        assert answer["response"] == ""
    else:
        assert answer["message"] == {"role": "assistant", "content": ""}
    age = datetime.now(UTC) - datetime.fromisoformat(answer["created_at"])
    assert 0 <= age.total_seconds() < 10
    assert expiry(shelf) == pytest.approx(77, abs=5)


@pytest.mark.parametrize("path", PATHS)
async def test_keep_alive_says_how_long_it_stays(shelf: Running, path: str) -> None:
    (await ask(shelf, path, model="other", keep_alive="10m")).ok()
    assert expiry(shelf) == pytest.approx(600, abs=5)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("keep_alive", [0, "0s", "0"])
async def test_a_keep_alive_of_nothing_unloads_it(
    shelf: Running, path: str, keep_alive: Any
) -> None:
    (await ask(shelf, path, model="other")).ok()
    answer = (await ask(shelf, path, model="other", keep_alive=keep_alive)).ok()
    assert answer["done_reason"] == "unload"
    await until(lambda: expiry(shelf) is None)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "Why?"}),
        ("/api/generate", {"prompt": "Why?", "model": None}),
        ("/api/generate", {"images": ["aGk="]}),
        ("/api/chat", {"messages": [{"role": "user", "content": "Why?"}]}),
    ],
)
async def test_nothing_is_generated(shelf: Running, path: str, body: dict[str, Any]) -> None:
    answer = await ask(shelf, path, **{"model": "other", **body})
    assert told(answer, 400) == "memoryd embeds and does not generate"
    assert expiry(shelf) is None


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/generate", {}, 404, "model '' not found"),
        ("/api/chat", {}, 400, "model is required"),
        ("/api/generate", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("/api/generate", {"model": "nope", "keep_alive": 0}, 404, "model 'nope' not found"),
        ("/api/chat", {"model": "a b"}, 400, "invalid model name"),
        (
            "/api/generate",
            {"model": "other", "keep_alive": "10"},
            400,
            'time: missing unit in duration "10"',
        ),
    ],
)
async def test_what_cannot_be_loaded_is_told_in_ollamas_words(
    shelf: Running, path: str, body: dict[str, Any], status: int, text: str
) -> None:
    assert told(await ask(shelf, path, **body), status) == text
