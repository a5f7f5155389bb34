"""POST /api/embeddings, which Ollama keeps for its older clients."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from model_servers import put_tiny, serve_tiny
from servers import Running, Serve
from toys import MAX_TOKENS, ToyShelf, toy_vector
from wire import Answer, Client

from memoryd.api.ollama import is_raw
from memoryd.embeddings.engine import Engine
from memoryd.models.gguf_header import GgufHeader

PATH = "/api/embeddings"


@pytest_asyncio.fixture(scope="module")
async def tiny(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    models_dir = tmp_path_factory.mktemp("models")
    put_tiny("nomic-bert", models_dir / "nomic.gguf")
    async with serve_tiny(serve, models_dir) as running:
        yield running


async def embed(client: Client, prompt: Any = "cat dog", **fields: Any) -> Answer:
    return await client.post(PATH, {"model": "toy", "prompt": prompt, **fields})


def told(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.data
    assert set(answer.json) == {"error"}
    text: str = answer.json["error"]
    return text


async def test_one_text_gives_one_vector(shared_client: Client) -> None:
    answer = await embed(shared_client, model="TOY")
    assert set(answer.ok()) == {"embedding"}
    assert np.allclose(answer.json["embedding"], toy_vector("cat dog"), atol=1e-6)
    assert answer.headers["X-Truncated-Inputs"] == "0"


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"prompt": ""}, {"input": "cat"}])
async def test_without_a_prompt_the_model_is_loaded_only(
    shared_client: Client, body: dict[str, Any]
) -> None:
    answer = await shared_client.post(PATH, {"model": "toy", **body})
    assert answer.ok() == {"embedding": []}
    assert answer.headers["X-Truncated-Inputs"] == "0"


async def test_keep_alive_moves_the_expiry_and_unloads(serve: Serve) -> None:
    async with Engine(ToyShelf("toy", "other")) as engine, serve(engine) as running:
        for fields in ({}, {"prompt": "cat"}):
            body = {"model": "other", **fields}
            (await running.client.post(PATH, {**body, "keep_alive": "10m"})).ok()
            [other] = [each for each in engine.loaded() if not each.is_pinned]
            assert other.expires_in_s == pytest.approx(600, abs=5)
            (await running.client.post(PATH, {**body, "keep_alive": 0})).ok()
            await asyncio.sleep(0.05)
            assert not engine.is_loaded("other")


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"model": None}, 400, "model is required"),
        ({"model": ""}, 400, "model is required"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": "xyz"}, 404, 'model "xyz" not found, try pulling it first'),
        ({"prompt": "cat " * MAX_TOKENS}, 400, "the input length exceeds the context length"),
        ({"options": {"num_ctx": 3}}, 400, "the input length exceeds the context length"),
        ({"options": {"num_ctx": 1}}, 400, "the input length exceeds the context length"),
        ({"options": {"num_ctx": "a"}}, 400, 'option "num_ctx" must be of type integer'),
        ({"keep_alive": "10"}, 400, 'time: missing unit in duration "10"'),
        ({"prompt": "nan"}, 400, "embedding contains NaN or Inf values: input 0"),
    ],
)
async def test_what_is_refused_is_told_in_ollamas_words(
    shared_client: Client, fields: dict[str, Any], status: int, text: str
) -> None:
    assert told(await embed(shared_client, **fields), status) == text


@pytest.mark.parametrize("fields", [{"prompt": 5}, {"prompt": ["a"]}, {"model": 5}])
async def test_a_field_of_the_wrong_type_is_400(
    shared_client: Client, fields: dict[str, Any]
) -> None:
    told(await embed(shared_client, **fields), 400)


async def test_nulls_and_unknown_options_are_ignored(shared_client: Client) -> None:
    options = {"num_ctx": None, "mirostat": None, "temperature": 0.5, "num_thread": 4}
    for fields in ({"options": options}, {"options": None, "keep_alive": None}):
        (await embed(shared_client, **fields)).ok()


async def length(running: Running, model: str) -> float:
    answer = await running.client.post(PATH, {"model": model, "prompt": "the blue sky"})
    return float(np.linalg.norm(answer.ok()["embedding"]))


async def test_vectors_are_as_long_as_ollamas_were(tiny: Running) -> None:
    """Its nomic-bert came as the model gives it, a BERT of word pieces with length 1."""
    assert await length(tiny, "tiny") == pytest.approx(1, abs=1e-5)
    assert abs(await length(tiny, "nomic") - 1) > 0.5


async def test_the_direction_is_that_of_the_newer_route(tiny: Running) -> None:
    body = {"model": "nomic", "prompt": "the blue sky", "input": "the blue sky"}
    older = np.array((await tiny.client.post(PATH, body)).ok()["embedding"])
    [newer] = (await tiny.client.post("/api/embed", body)).ok()["embeddings"]
    assert older @ newer / np.linalg.norm(older) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"architecture": "bert"}, False),
        ({"architecture": "bert", "tokenizer": "t5"}, True),
        ({"architecture": "bert", "normalizes": False}, True),
        ({"architecture": "nomic-bert"}, True),
        ({"architecture": "nomic-bert-moe"}, True),
        ({"architecture": "nomic-bert", "normalizes": True}, False),
        ({"architecture": "nomic-bert", "pooling": None}, False),
        ({"architecture": "qwen3"}, False),
    ],
)
def test_which_vectors_ollama_does_not_normalize(values: dict[str, Any], expected: bool) -> None:
    architecture = values["architecture"]
    header = {
        "general.architecture": architecture,
        f"{architecture}.pooling_type": values.get("pooling", 1),
        f"{architecture}.normalize_embeddings": values.get("normalizes"),
        "tokenizer.ggml.model": values.get("tokenizer", "bert"),
    }
    assert is_raw(GgufHeader(header, 0, "F32")) is expected
