"""The vendors' own Python clients, unchanged."""

from collections.abc import AsyncIterator

import numpy as np
import ollama
import openai
import pytest
import pytest_asyncio
from wire import Client

SKY = [0.010071, -0.001759, 0.050072, 0.046930]


@pytest_asyncio.fixture
async def by_openai(real_client: Client) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{real_client.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def by_ollama(real_client: Client) -> ollama.AsyncClient:
    return ollama.AsyncClient(host=real_client.url)


async def test_openai_embeds_by_its_default_which_is_base64(
    by_openai: openai.AsyncOpenAI,
) -> None:
    texts = ["why is the sky blue?", "This is a test"]
    answer = await by_openai.embeddings.create(model="all-minilm", input=texts)
    assert answer.data[0].embedding[:4] == pytest.approx(SKY, abs=1.5e-3)
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens == 14
    plain = await by_openai.embeddings.create(
        model="all-minilm", input=texts, encoding_format="float"
    )
    assert np.array_equal(
        np.float32([item.embedding for item in plain.data]),
        np.float32([item.embedding for item in answer.data]),
    )


async def test_openai_shortens(by_openai: openai.AsyncOpenAI) -> None:
    answer = await by_openai.embeddings.create(model="all-minilm", input="x", dimensions=64)
    assert len(answer.data[0].embedding) == 64
    assert np.linalg.norm(answer.data[0].embedding) == pytest.approx(1, abs=1e-5)


async def test_openai_understands_the_errors(by_openai: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await by_openai.embeddings.create(model="gpt-4", input="x")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as refusal:
        await by_openai.embeddings.create(model="all-minilm", input="x", dimensions=385)
    assert refusal.value.param == "dimensions"
    assert "1 to 384" in refusal.value.message


async def test_ollama_embeds(by_ollama: ollama.AsyncClient) -> None:
    answer = await by_ollama.embed("all-minilm", ["why is the sky blue?", ""])
    assert list(answer.embeddings[0][:4]) == pytest.approx(SKY, abs=1.5e-3)
    assert len(answer.embeddings) == 2
    assert answer.model == "all-minilm"
    assert answer.prompt_eval_count == 10
    assert answer.total_duration
    options = {"num_ctx": 4}
    short = await by_ollama.embed("all-minilm", "word " * 9, options=options, keep_alive="1m")
    assert short.prompt_eval_count == 4


async def test_ollama_understands_the_errors(by_ollama: ollama.AsyncClient) -> None:
    with pytest.raises(ollama.ResponseError) as missing:
        await by_ollama.embed("nope", "x")
    assert missing.value.status_code == 404
    assert missing.value.error == 'model "nope" not found, try pulling it first'
    with pytest.raises(ollama.ResponseError) as refusal:
        await by_ollama.embed("all-minilm", "word " * 600, truncate=False)
    assert refusal.value.error == "the input length exceeds the context length"
