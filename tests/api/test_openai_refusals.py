"""What OpenAI's clients do when memoryd refuses: which errors they raise, and when they retry."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from polling import until
from servers import Running, Serve
from toys import ToyShelf
from wire import Client

from memoryd.embeddings.engine import Engine, EngineLimits

GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


@pytest.fixture
def shelf() -> ToyShelf:
    """Give toys of which one is a reranker, and one is broken."""
    shelf = ToyShelf("toy", "judge", "wreck")
    shelf.poolings["judge"] = "rank"
    shelf.failures["wreck"] = 100
    return shelf


@pytest_asyncio.fixture
async def shelved(serve: Serve, shelf: ToyShelf) -> AsyncIterator[Running]:
    """Give a server with these toys, of which each takes one waiting request."""
    async with Engine(shelf, EngineLimits(1)) as engine, serve(engine) as running:
        yield running


@pytest_asyncio.fixture
async def by_openai(shelved: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{shelved.client.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=2) as client:
        yield client


def answered(running: Running, status: int) -> float:
    """Return how many requests for embeddings were answered with a status."""
    labels = {"route": "/v1/embeddings", "method": "POST", "status": str(status)}
    read = running.memory.engine.metrics.registry.get_sample_value
    return read("memoryd_http_requests_total", labels) or 0.0


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize("data", [b'{"model": "gpt-4", "stream": true}', b""])
async def test_what_generates_is_refused(shared_client: Client, path: str, data: bytes) -> None:
    answer = await shared_client.ask("POST", path, data=data)
    error = answer.refused(400, "invalid_value")
    assert error["message"] == "memoryd embeds and does not generate"
    assert error["type"] == "invalid_request_error"


async def test_openais_client_tells_that_nothing_is_generated(
    by_openai: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="memoryd embeds and does not generate"):
        await by_openai.chat.completions.create(model="toy", messages=[])
    with pytest.raises(openai.BadRequestError, match="memoryd embeds and does not generate"):
        await by_openai.responses.create(model="toy", input="x")


async def test_a_reranker_gives_no_embeddings_and_is_asked_once(
    shelved: Running, by_openai: openai.AsyncOpenAI
) -> None:
    answer = await shelved.client.post("/v1/embeddings", {"model": "judge", "input": "cat"})
    error = answer.refused(501)
    assert "judge is a reranker" in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    before = answered(shelved, 501)
    with pytest.raises(openai.InternalServerError) as raised:
        await by_openai.embeddings.create(model="judge", input="cat")
    assert raised.value.status_code == 501
    assert answered(shelved, 501) == before + 1


async def test_a_model_that_cannot_be_loaded_is_not_asked_again_by_the_client(
    shelved: Running, by_openai: openai.AsyncOpenAI, shelf: ToyShelf
) -> None:
    answer = await shelved.client.post("/v1/embeddings", {"model": "wreck", "input": "cat"})
    assert answer.refused(501)["code"] == "model_unusable"
    before = shelf.loads
    with pytest.raises(openai.InternalServerError):
        await by_openai.embeddings.create(model="wreck", input="cat")
    assert shelf.loads == before + 1


async def test_too_many_requests_are_429_and_the_client_comes_back(
    shelved: Running, by_openai: openai.AsyncOpenAI, shelf: ToyShelf
) -> None:
    [toy] = shelf.open_backends("toy")
    toy.gate.clear()
    body = {"model": "toy", "input": "cat"}
    waiting = asyncio.create_task(shelved.client.post("/v1/embeddings", body))
    await until(lambda: toy.encoded > 0)
    answer = await shelved.client.post("/v1/embeddings", body)
    error = answer.refused(429, "rate_limited")
    assert (error["type"], error["param"]) == ("rate_limit_error", None)
    assert answer.headers["Retry-After"] == "1"
    patient = asyncio.create_task(by_openai.embeddings.create(model="toy", input="cat"))
    await until(lambda: answered(shelved, 429) == 2)
    toy.gate.set()
    (await waiting).ok()
    assert len((await patient).data) == 1


@pytest.mark.parametrize(
    "item",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
        {"image": "x"},
        {"type": "input_audio", "input_audio": {"data": "x"}},
        {"prompt_string": "x", "multimodal_data": ["x"]},
    ],
)
async def test_images_and_sounds_are_refused_by_name(
    shared_client: Client, item: dict[str, object]
) -> None:
    body = {"model": "toy", "input": ["cat", item]}
    error = (await shared_client.post("/v1/embeddings", body)).refused(400, "invalid_value")
    assert error["message"] == "this model embeds text only"
    assert error["param"] == "input[1]"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/embeddings", {"input": {"image": "x"}}, "input"),
        (
            "/v1/embeddings",
            {"input": {"content": [{"type": "image_url", "image_url": {"url": "x"}}]}},
            "input.content[0]",
        ),
        ("/embedding", {"content": [{"prompt_string": "x", "image": "y"}]}, "content[0]"),
        ("/v1/embeddings", {"input": "x", "multimodal_data": ["y"]}, "multimodal_data"),
        ("/embedding", {"content": "x", "multimodal_data": ["y"]}, "multimodal_data"),
    ],
)
async def test_images_are_refused_wherever_they_stand(
    shared_client: Client, path: str, fields: dict[str, object], param: str
) -> None:
    error = (await shared_client.post(path, {"model": "toy", **fields})).refused(400)
    assert (error["message"], error["param"]) == ("this model embeds text only", param)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/embeddings", {"input": "x"}),
        ("/api/embed", {"input": "x"}),
        ("/embed", {"inputs": "x"}),
    ],
)
async def test_an_error_does_not_send_all_back(
    shared_client: Client, path: str, fields: dict[str, str]
) -> None:
    answer = await shared_client.post(path, {"model": "m" * 1_000_000, **fields})
    assert 400 <= answer.status < 500
    assert len(answer.data) < 10_000


async def test_teis_and_ollamas_routes_refuse_them_too(shared_client: Client) -> None:
    answer = await shared_client.post("/", {"inputs": {"image": "x"}})
    told = {"error": "this model embeds text only", "error_type": "Validation"}
    assert (answer.status, answer.json) == (400, told)
    body = {"model": "toy", "input": "x", "multimodal_data": ["y"]}
    answer = await shared_client.post("/api/embed", body)
    assert (answer.status, answer.json) == (400, {"error": "this model embeds text only"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 5),
        ("model", ["toy"]),
        ("encoding_format", 5),
        ("encoding_format", ["float"]),
        ("dimensions", "8"),
        ("dimensions", [8]),
        ("user", 5),
        ("user", {"id": "u"}),
        ("truncate", "yes"),
        ("truncate", 0),
        ("prompt_name", 5),
        ("instruction", ["bird"]),
    ],
)
async def test_a_field_of_another_type_is_refused_by_name(
    shared_client: Client, field: str, value: object
) -> None:
    body = {"model": "toy", "input": "cat", field: value}
    error = (await shared_client.post("/v1/embeddings", body)).refused(400, "invalid_value")
    assert error["param"] == field
    assert error["type"] == "invalid_request_error"


async def test_null_is_absent(shared_client: Client) -> None:
    names = ("encoding_format", "dimensions", "user", "truncate", "prompt_name", "instruction")
    body = {"model": "toy", "input": "cat", **dict.fromkeys(names)}
    answer = (await shared_client.post("/v1/embeddings", body)).ok()
    plain = await shared_client.post("/v1/embeddings", {"model": "toy", "input": "cat"})
    assert answer == plain.ok()
