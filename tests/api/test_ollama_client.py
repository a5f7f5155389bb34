"""The whole of Ollama's own Python client against memoryd, with the default model."""

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import ollama
import pytest
import pytest_asyncio
from model_servers import serve_tiny
from servers import Running, Serve

SKY = "why is the sky blue?"


@pytest_asyncio.fixture(scope="module")
async def running(
    serve: Serve, tmp_path_factory: pytest.TempPathFactory, model_file: Path
) -> AsyncIterator[Running]:
    models_dir = tmp_path_factory.mktemp("models")
    shutil.copy(model_file, models_dir)
    async with serve_tiny(serve, models_dir) as running:
        yield running


@pytest.fixture
def client(running: Running) -> ollama.AsyncClient:  # type: ignore[override] # another client
    return ollama.AsyncClient(host=running.client.url)


async def test_it_embeds_by_both_routes(client: ollama.AsyncClient) -> None:
    answer = await client.embed("all-minilm", SKY, dimensions=64, truncate=True, keep_alive="1m")
    assert answer.prompt_eval_count == 8
    assert answer.total_duration >= answer.load_duration > 0
    assert len(answer.embeddings[0]) == 64
    older = np.array((await client.embeddings("all-minilm", SKY)).embedding)
    [newer] = (await client.embed("all-minilm", [SKY])).embeddings
    assert older @ np.array(newer) == pytest.approx(1, abs=1e-5)


async def test_it_lists_and_shows_a_model(client: ollama.AsyncClient) -> None:
    listed = {model.model: model for model in (await client.list()).models}
    assert {"all-minilm:latest", "all-minilm:22m", "tiny:latest"} <= listed.keys()
    model = listed["all-minilm:latest"]
    assert model.size > 10**7
    assert model.modified_at < datetime.now(UTC)
    assert (model.details.family, model.details.parameter_size) == ("bert", "22.57M")
    shown = await client.show("all-minilm")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo["bert.embedding_length"] == 384
    assert shown.details.quantization_level in ("BF16", "F32")
    assert shown.modified_at == model.modified_at


async def test_it_sees_what_is_loaded_and_unloads_it(client: ollama.AsyncClient) -> None:
    loaded = await client.generate("all-minilm", keep_alive=-1)
    assert (loaded.done_reason, loaded.response) == ("load", "")
    first = (await client.ps()).models[0]
    assert (first.name, first.model) == ("all-minilm:latest", "all-minilm:latest")
    assert first.expires_at.year > datetime.now(UTC).year + 280
    assert first.size > 0
    assert (await client.chat("all-minilm", keep_alive=0)).done_reason == "unload"
    assert [model.name for model in (await client.ps()).models] == ["tiny:latest"]


async def test_it_pulls_with_and_without_a_stream(client: ollama.AsyncClient) -> None:
    assert (await client.pull("all-minilm")).status == "success"
    lines = [line.status async for line in await client.pull("all-minilm", stream=True)]
    assert (lines[0], lines[-1]) == ("pulling manifest", "success")


async def test_it_copies_and_deletes(client: ollama.AsyncClient) -> None:
    assert (await client.copy("all-minilm", "mine")).status == "success"
    assert len((await client.embed("mine", SKY)).embeddings[0]) == 384
    assert (await client.delete("mine")).status == "success"
    with pytest.raises(ollama.ResponseError, match="model 'mine' not found"):
        await client.delete("mine")


async def test_it_raises_errors_as_its_own(client: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError) as missing:
        await client.show("nope")
    assert (missing.value.status_code, missing.value.error) == (404, "model 'nope' not found")
    with pytest.raises(ollama.ResponseError) as refusal:
        await client.generate("all-minilm", "Why?")
    assert refusal.value.error == "memoryd embeds and does not generate"
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        async for _line in await client.pull("nope", stream=True):
            pass
    with pytest.raises(ollama.ResponseError) as in_use:
        await client.delete("tiny")
    assert in_use.value.status_code == 409
