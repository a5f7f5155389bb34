"""Chunks that the client makes, with vectors or without."""

import base64
from typing import Any

import numpy as np
import pytest
from servers import Running
from toys import DIMENSIONS, toy_vector
from wire import Client

DOCUMENTS = "/v1/collections/default/documents"
AXIS = [0.0] * (DIMENSIONS - 1) + [1.0]


def base64_of(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


async def vectors_of(client: Client, query: Any) -> list[tuple[str, list[float]]]:
    results = (await client.search(query, group_by=None, **{"with": {"vector": True}}))["results"]
    return [(found["chunks"][0]["text"], found["chunks"][0]["vector"]) for found in results]


async def test_chunks_are_kept_as_the_client_made_them(client: Client) -> None:
    texts = ["cat and dog", "fish", "cat and dog"]
    outcome = await client.store(id="a", title="T", chunks=[{"text": text} for text in texts])
    assert (outcome["status"], outcome["chunks"], outcome["embedded"]) == ("stored", 3, 3)
    chunks = (await client.get(f"{DOCUMENTS}/a/chunks")).ok()["chunks"]
    assert [chunk["text"] for chunk in chunks] == texts
    for chunk in chunks:
        assert (chunk["start_char"], chunk["end_char"]) == (None, None)
    assert await client.found("fish") == ["a"]


@pytest.mark.parametrize("write", [list, base64_of], ids=["numbers", "base64"])
async def test_a_vector_that_comes_along_is_the_one_that_is_found(
    running: Running, write: Any
) -> None:
    client = running.client
    model = await running.memory.engine.model("toy")
    seen = model._backend.encoded  # type: ignore[attr-defined] # the toy's
    chunks = [{"text": "cat", "vector": write(AXIS)}, {"text": "dog", "vector": write(AXIS[::-1])}]
    await client.store(id="a", chunks=chunks)
    assert model._backend.encoded == seen  # type: ignore[attr-defined] # the toy's
    found = await vectors_of(client, {"vector": AXIS})
    assert found[0][0] == "cat"
    assert found[0][1] == AXIS
    assert found[1][1] == AXIS[::-1]


async def test_both_ways_to_write_a_vector_mean_the_same(client: Client) -> None:
    vector = np.random.default_rng(1).normal(size=DIMENSIONS).astype(np.float32)
    await client.store(id="a", chunks=[{"text": "cat", "vector": vector.tolist()}])
    again = await client.store(id="a", chunks=[{"text": "cat", "vector": base64_of(vector)}])
    assert again["status"] == "unchanged"


async def test_a_chunk_without_a_vector_is_embedded_beside_one_with(client: Client) -> None:
    chunks = [{"text": "cat"}, {"text": "dog", "vector": AXIS}, {"text": "fish", "vector": None}]
    outcome = await client.store(id="a", chunks=chunks)
    assert (outcome["chunks"], outcome["embedded"]) == (3, 3)
    found = dict(await vectors_of(client, "cat"))
    assert np.allclose(found["cat"], toy_vector("cat"), atol=1e-3)
    assert np.allclose(found["fish"], toy_vector("fish"), atol=1e-3)
    assert found["dog"] == AXIS


@pytest.mark.parametrize("length", [1e-30, 1e30, 1e300])
async def test_the_length_of_a_vector_doesnt_matter(client: Client, length: float) -> None:
    vector = [number * length for number in AXIS]
    await client.store(id="a", chunks=[{"text": "cat", "vector": vector}])
    assert await vectors_of(client, {"vector": AXIS}) == [("cat", AXIS)]


async def test_another_vector_of_the_same_text_replaces_it_alone(client: Client) -> None:
    await client.store(id="a", chunks=[{"text": "cat", "vector": AXIS}, {"text": "dog"}])
    kept = (await client.get(f"{DOCUMENTS}/a/chunks")).ok()["chunks"][1]["id"]
    chunks = [{"text": "cat", "vector": AXIS[::-1]}, {"text": "dog"}]
    outcome = await client.store(id="a", chunks=chunks)
    assert (outcome["status"], outcome["embedded"]) == ("replaced", 1)
    assert (await client.get(f"{DOCUMENTS}/a/chunks")).ok()["chunks"][1]["id"] == kept
    assert (await vectors_of(client, {"vector": AXIS[::-1]}))[0] == ("cat", AXIS[::-1])


async def test_chunks_and_the_same_text_are_different_content(client: Client) -> None:
    await client.store(id="a", text="cat")
    assert (await client.store(id="a", chunks=[{"text": "cat"}]))["status"] == "replaced"
    assert (await client.store(id="a", chunks=[{"text": "cat"}]))["status"] == "unchanged"


def vector_like(change: dict[int, float]) -> list[float]:
    return [change.get(at, number) for at, number in enumerate(AXIS)]


NAN = base64_of(vector_like({0: float("nan")}))
INFINITE = base64_of(vector_like({0: float("inf")}))


@pytest.mark.parametrize(
    ("document", "param", "code"),
    [
        ({}, "text", "missing_field"),
        ({"text": "cat", "chunks": [{"text": "cat"}]}, "chunks", "invalid_value"),
        ({"chunks": None}, "chunks", "invalid_value"),
        ({"chunks": []}, "chunks", "invalid_value"),
        ({"chunks": "cat"}, "chunks", "invalid_value"),
        ({"chunks": ["cat"]}, "chunks[0]", "invalid_value"),
        ({"chunks": [{}]}, "chunks[0].text", "missing_field"),
        ({"chunks": [{"text": " "}]}, "chunks[0].text", "invalid_value"),
        ({"chunks": [{"text": None}]}, "chunks[0].text", "invalid_value"),
        ({"chunks": [{"text": "cat", "title": "x"}]}, "chunks[0].title", "unknown_field"),
        ({"chunks": [{"text": "cat", "vector": AXIS[1:]}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": [*AXIS, 1]}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": []}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": [0] * 16}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": ["1"] * 16}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": [True] * 16}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": [None] * 16}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": 1}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": {}}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": ""}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": "AAAA"}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": "é=?"}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": NAN}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "cat", "vector": INFINITE}]}, "chunks[0].vector", "invalid_value"),
        ({"chunks": [{"text": "x" * 6_000}] * 2}, "chunks", "too_large"),
        ({"chunks": [{"text": "x"}] * 10_001}, "chunks", "too_large"),
    ],
)
async def test_wrong_chunks_are_refused_by_the_name_of_their_fault(
    shared_client: Client, document: Any, param: str, code: str
) -> None:
    status = 413 if code == "too_large" else 400
    error = (await shared_client.post(DOCUMENTS, document)).refused(status, code)
    assert error["param"] == param
    batch = {"documents": [{"text": " "}, document]}
    outcomes = (await shared_client.post(DOCUMENTS, batch)).ok()["documents"]
    assert outcomes[1]["error"]["param"] == f"documents[1].{param}"
    assert outcomes[1]["error"]["code"] == code


async def test_a_wrong_vector_deep_in_a_batch_is_named(shared_client: Client) -> None:
    bad = {"chunks": [{"text": "cat"}, {"text": "dog", "vector": [0] * DIMENSIONS}]}
    batch = {"documents": [{"text": " "}] * 3 + [bad]}
    outcomes = (await shared_client.post(DOCUMENTS, batch)).ok()["documents"]
    assert outcomes[3]["error"]["param"] == "documents[3].chunks[1].vector"
    assert "zero" in outcomes[3]["error"]["message"]


async def test_a_chunk_that_the_model_has_no_room_for_is_the_clients_error(
    client: Client,
) -> None:
    chunks = [{"text": "cat"}, {"text": "dog " * 100}]
    error = (await client.post(DOCUMENTS, {"id": "a", "chunks": chunks})).refused(400)
    assert error["param"] == "chunks[1].text"
    chunks[1]["vector"] = AXIS  # type: ignore[assignment]
    await client.store(id="a", chunks=chunks)
