"""A model's prefixes: put where memoryd stores and searches, and elsewhere where asked."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from servers import Running, Serve
from toys import ToyLoader, toy_vector
from wire import Answer, Client

from memoryd.embeddings.engine import Engine
from memoryd.embeddings.types import ModelSpec, PreparedModel

SPEC = ModelSpec(
    "toy",
    query_prefix="{instruction} dog ",
    document_prefix="{title} cat ",
    instruction="fish",
    trained_dimensions=(8,),
    min_dimensions=14,
)


class PrefixedLoader(ToyLoader):
    """Give the toy prefixes."""

    async def prepare(self, name: str) -> PreparedModel:
        """Prepare the toy."""
        return replace(await super().prepare(name), spec=SPEC)


@pytest_asyncio.fixture
async def prefixed(serve: Serve, models_dir: Any) -> AsyncIterator[Running]:
    async with Engine(PrefixedLoader(models_dir)) as engine, serve(engine) as running:
        yield running


async def ask(client: Client, path: str, **fields: Any) -> Answer:
    return await client.post(path, {"model": "toy", "input": "apple", **fields})


def vector_of(answer: Answer) -> Any:
    body = answer.ok()
    return body["embeddings"][0] if "embeddings" in body else body["data"][0]["embedding"]


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({}, "apple"),
        ({"prompt_name": None, "instruction": None}, "apple"),
        ({"prompt_name": "query"}, "fish dog apple"),
        ({"prompt_name": "document"}, "none cat apple"),
        ({"instruction": "bird"}, "bird dog apple"),
        ({"prompt_name": "query", "instruction": "bird"}, "bird dog apple"),
    ],
)
async def test_a_prefix_is_put_where_it_is_asked_for(
    prefixed: Running, path: str, fields: dict[str, Any], seen: str
) -> None:
    got = vector_of(await ask(prefixed.client, path, **fields))
    assert np.allclose(got, toy_vector(seen), atol=1e-6)


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_name": "passage"},
        {"prompt_name": 5},
        {"instruction": ["bird"]},
        {"prompt_name": "document", "instruction": "bird"},
    ],
)
async def test_a_prompt_that_is_none_is_refused(
    prefixed: Running, path: str, fields: dict[str, Any]
) -> None:
    assert (await ask(prefixed.client, path, **fields)).status == 400


async def test_a_model_without_instructions_refuses_one(shared_client: Client) -> None:
    answer = await ask(shared_client, "/v1/embeddings", instruction="bird")
    assert answer.refused(400, "invalid_value")["param"] == "instruction"
    answer = await shared_client.post(
        "/v1/collections/default/search", {"query": "cat", "instruction": "bird"}
    )
    assert answer.refused(400, "invalid_value")["param"] == "instruction"


async def test_stored_documents_and_queries_have_their_prefixes(prefixed: Running) -> None:
    client = prefixed.client
    document = {"id": "a", "title": "red", "text": "apple"}
    (await client.post("/v1/collections/default/documents", document)).ok()
    body: dict[str, Any] = {"query": "pear", "with": {"vector": True}}
    for instruction, seen in ((None, "fish dog pear"), ("bird", "bird dog pear")):
        asked = {**body, "instruction": instruction}
        found = (await client.post("/v1/collections/default/search", asked)).ok()
        [chunk] = found["results"][0]["chunks"]
        assert np.allclose(chunk["vector"], toy_vector("red cat apple"), atol=1e-3)
        expected = toy_vector(seen) @ toy_vector("red cat apple")
        assert chunk["cosine"] == pytest.approx(expected, abs=2e-3)


async def test_an_instruction_goes_with_a_text_alone(shared_client: Client) -> None:
    vector = toy_vector("cat").tolist()
    body = {"query": {"vector": vector}, "instruction": "bird"}
    answer = await shared_client.post("/v1/collections/default/search", body)
    assert answer.refused(400, "invalid_value")["param"] == "instruction"


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
async def test_a_width_that_the_model_was_not_trained_for_is_told(
    prefixed: Running, path: str
) -> None:
    for dimensions, is_trained in ((None, True), (16, True), (14, True), (8, True), (9, False)):
        answer = await ask(prefixed.client, path, dimensions=dimensions)
        assert len(vector_of(answer)) == (dimensions or 16)
        assert ("Warning" in answer.headers) is not is_trained
    assert answer.headers["Warning"] == '299 memoryd "toy was not trained for 9 dimensions"'
