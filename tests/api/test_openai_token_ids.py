"""Token ids on /v1/embeddings: OpenAI's names get cl100k's, all others the model's own."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from servers import Running, Serve
from wire import Answer, Client

from memoryd.embeddings.engine import Engine
from memoryd.memory.models import ModelLoader
from memoryd.models.catalog import OPENAI_NAMES
from memoryd.models.cl100k import table_path

OPENAI = "text-embedding-3-small"
HELLO, WORLD, CAT = 15339, 1917, 4719  # of cl100k: "hello", " world", "cat"


@pytest_asyncio.fixture
async def own_engine(model_file: Path) -> AsyncIterator[Engine]:
    """Give an engine that ends with the test's own server."""
    async with Engine(ModelLoader(model_file.parent, is_measuring=False)) as engine:
        yield engine


async def embed(client: Client, input_: Any, model: str, **fields: Any) -> Answer:
    return await client.post("/v1/embeddings", {"model": model, "input": input_, **fields})


async def vectors(client: Client, input_: Any, model: str = OPENAI) -> Any:
    data = (await embed(client, input_, model)).ok()["data"]
    return np.array([item["embedding"] for item in data])


@pytest.mark.usefixtures("cl100k_table")
@pytest.mark.parametrize("name", [*OPENAI_NAMES, " Text-Embedding-ADA-002:latest"])
@pytest.mark.parametrize(
    ("input_", "texts"),
    [
        ([HELLO, WORLD], ["hello world"]),
        ([[HELLO, WORLD], [CAT]], ["hello world", "cat"]),
        (["hello world", [CAT], ""], ["hello world", "cat", ""]),
        ([HELLO, " wide", WORLD], ["hello wide world"]),
    ],
)
async def test_openais_names_take_the_ids_of_cl100k(
    real_client: Client, name: str, input_: Any, texts: list[str]
) -> None:
    got = (await embed(real_client, input_, name)).ok()
    expected = (await embed(real_client, texts, "all-minilm")).ok()
    assert got["data"] == expected["data"]
    assert (got["model"], got["usage"]) == (name, expected["usage"])


@pytest.mark.usefixtures("cl100k_table")
async def test_another_name_takes_the_ids_of_its_own_vocabulary(real_client: Client) -> None:
    hello = [101, 7592, 2088, 102]  # [CLS] hello world [SEP] of BERT
    assert np.allclose(
        await vectors(real_client, hello, "all-minilm"), await vectors(real_client, "hello world")
    )
    cats = await vectors(real_client, [[CAT], "cat"], "all-minilm")
    assert cats[0] @ cats[1] < 0.9


@pytest.mark.usefixtures("cl100k_table")
async def test_an_id_that_cl100k_does_not_have_is_refused(real_client: Client) -> None:
    answer = await embed(real_client, ["hello", [CAT], [CAT, 100_256]], OPENAI)
    error = answer.refused(400, "invalid_value")
    assert error["param"] == "input[2]"
    assert "100256" in error["message"]


async def test_without_the_table_the_answer_says_how_to_get_it(
    serve: Serve,
    own_engine: Engine,
    cl100k_table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    async with serve(own_engine, model="all-minilm") as running:
        settings = running.memory.settings
        running.memory.settings = settings.model_copy(update={"models_dir": tmp_path})
        answer = await embed(running.client, ["hello", [HELLO, WORLD]], OPENAI)
        error = answer.refused(400, "invalid_value")
        assert error["param"] == "input[1]"
        assert "`memoryd models pull cl100k`" in error["message"]
        assert "check_embedding_ctx_length=False" in error["message"]
        await vectors(running.client, ["hello", ""])  # texts need no table
        table_path(tmp_path).parent.mkdir()
        shutil.copy(cl100k_table, table_path(tmp_path))
        await vectors(running.client, ["hello", [HELLO, WORLD]])  # found without a restart


def serve_with(serve: Serve, engine: Engine, whose: str) -> AbstractAsyncContextManager[Running]:
    return serve(engine, model="all-minilm", token_ids=whose)


@pytest.mark.usefixtures("cl100k_table")
async def test_by_a_setting_all_ids_are_of_cl100k(serve: Serve, own_engine: Engine) -> None:
    async with serve_with(serve, own_engine, "cl100k") as running:
        for name in (OPENAI, "all-minilm"):
            got = await vectors(running.client, [HELLO, WORLD], name)
            assert np.allclose(got, await vectors(running.client, "hello world", name))


@pytest.mark.usefixtures("cl100k_table")
async def test_by_a_setting_all_ids_are_the_models_own(serve: Serve, own_engine: Engine) -> None:
    async with serve_with(serve, own_engine, "model") as running:
        client = running.client
        own, openais = await vectors(client, [CAT], "all-minilm"), await vectors(client, [CAT])
        assert np.allclose(own, openais)
        assert (own @ (await vectors(client, "cat")).T).item() < 0.9
        error = (await embed(client, [[100_000]], OPENAI)).refused(400, "invalid_value")
        assert error["param"] == "input[0]"


@pytest.mark.usefixtures("cl100k_table")
async def test_openais_names_take_them_in_every_dialect(real_client: Client) -> None:
    [expected] = await vectors(real_client, "hello world")
    ids = [HELLO, WORLD]
    prompt = [{"type": "token_ids", "data": ids}]
    told = [
        (await real_client.post("/embed", {"model": OPENAI, "inputs": ids})).ok()[0],
        (await real_client.post("/embedding", {"model": OPENAI, "content": ids})).ok()[0][
            "embedding"
        ][0],
        (
            await real_client.post(
                "/semantic_embed",
                {"model": OPENAI, "prompt": prompt, "representation": "document"},
            )
        ).ok()["embedding"],
    ]
    for vector in told:
        assert np.array(vector) @ expected > 0.99999
