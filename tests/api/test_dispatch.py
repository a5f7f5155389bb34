"""Paths that several dialects share: a key of the body tells which one a client speaks."""

from typing import Any

import numpy as np
import pytest
from toys import CAT_ID, toy_vector
from wire import Client


async def test_embeddings_are_openais_where_there_is_input(shared_client: Client) -> None:
    for extra in ({}, {"content": "dog"}, {"content": None}):
        answer = await shared_client.post("/embeddings", {"model": "toy", "input": "cat", **extra})
        [item] = answer.ok()["data"]
        assert np.allclose(item["embedding"], toy_vector("cat"), atol=1e-6)
    error = (await shared_client.post("/embeddings", {"input": "cat"})).refused(400)
    assert error["param"] == "model"


async def test_embeddings_are_llama_cpps_where_there_is_content(shared_client: Client) -> None:
    for extra in ({}, {"input": None}, {"model": "toy"}):
        [item] = (await shared_client.post("/embeddings", {"content": "cat", **extra})).ok()
        assert np.allclose(item["embedding"], [toy_vector("cat")], atol=1e-6)
    raw = (await shared_client.post("/embeddings", {"content": "cat", "embd_normalize": -1})).ok()
    assert np.linalg.norm(raw[0]["embedding"]) == pytest.approx(3)


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
@pytest.mark.parametrize(
    ("body", "keys"),
    [
        ({"content": "cat"}, {"tokens"}),
        ({"content": "cat", "inputs": "cat", "prompt": "cat"}, {"tokens"}),
        ({"content": None, "prompt": "cat"}, {"tokens", "token_ids"}),
        ({"prompt": "cat", "tokens": True, "token_ids": True}, {"tokens", "token_ids"}),
    ],
)
async def test_tokenizing_is_told_apart_by_its_key(
    shared_client: Client, path: str, body: Any, keys: set[str]
) -> None:
    assert set((await shared_client.post(path, body)).ok()) == keys
    [tokens] = (await shared_client.post(path, {"inputs": "cat", "prompt": "cat"})).ok()
    assert tokens[1]["id"] == CAT_ID


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_detokenizing_is_told_apart_by_its_key(shared_client: Client, path: str) -> None:
    assert (await shared_client.post(path, {"tokens": [CAT_ID]})).ok() == {"content": " cat"}
    assert (await shared_client.post(path, {"token_ids": [CAT_ID]})).ok() == {"result": "cat"}


async def test_post_to_the_root_is_teis(shared_client: Client) -> None:
    inputs = {"source_sentence": "cat", "sentences": ["cat"]}
    assert (await shared_client.post("/", {"inputs": "cat"})).ok() == (
        await shared_client.post("/embed", {"inputs": "cat"})
    ).ok()
    assert (await shared_client.post("/", {"inputs": inputs})).ok() == pytest.approx([1])
    answer = await shared_client.post("/", {"text": "cat"})
    assert (answer.status, answer.json["error_type"]) == (422, "Validation")
    assert (await shared_client.get("/")).data == b"Ollama is running"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/embeddings", ("input", "content")),
        ("/rerank", ("documents", "texts")),
        ("/reranking", ("documents", "texts")),
        ("/v1/rerank", ("documents", "texts")),
        ("/v1/reranking", ("documents", "texts")),
        ("/tokenize", ("content", "inputs", "prompt")),
        ("/v1/tokenize", ("content", "inputs", "prompt")),
        ("/detokenize", ("tokens", "token_ids")),
        ("/v1/detokenize", ("tokens", "token_ids")),
    ],
)
async def test_a_body_without_any_of_the_keys_is_400_naming_them(
    shared_client: Client, path: str, keys: tuple[str, ...]
) -> None:
    for body in ({}, {"model": "toy", "text": "cat"}, dict.fromkeys(keys)):
        error = (await shared_client.post(path, body)).refused(400, "missing_field")
        assert all(f'"{key}"' in error["message"] for key in keys)
    for data in (b"", b"[]", b'"cat"', b"nonsense"):
        (await shared_client.ask("POST", path, data=data)).refused(400)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {"inputs": 5}, 422),
        ("/rerank", {"texts": [], "query": "x"}, 400),
    ],
)
async def test_errors_have_the_shape_of_the_dialect_that_the_body_speaks(
    shared_client: Client, path: str, body: Any, status: int
) -> None:
    answer = await shared_client.post(path, body)
    assert answer.status == status
    assert set(answer.json) == {"error", "error_type"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"content": 5}),
        ("/tokenize", {"prompt": 5}),
        ("/rerank", {"documents": [5], "query": "x"}),
        ("/embeddings", {"content": 5}),
        ("/embeddings", {"input": 5, "model": "toy"}),
    ],
)
async def test_other_errors_have_openais_shape(shared_client: Client, path: str, body: Any) -> None:
    (await shared_client.post(path, body)).refused(400)
