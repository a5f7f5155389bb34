"""Input that is made to break things, on every architecture; the order is the same in every run."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from openers import OpenTiny
from servers import Serve
from tiny_models import EMBEDDING_KINDS, KINDS, RANK_KINDS
from wire import Client

from memoryd.embeddings.engine import Engine, EngineLimits
from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import Vectors
from memoryd.errors import EmbeddingError, InputTooLongError, InvalidInputError
from memoryd.memory.models import ModelLoader

MEGABYTE = 1 << 20
SPECIAL = (
    *("[CLS]", "[SEP]", "[PAD]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>", "<bos>", "<eos>"),
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
)
HOSTILE = {
    "a megabyte of one letter": ["a" * MEGABYTE],
    "ten thousand empty texts": [""] * 10_000,
    "control characters": ["".join(map(chr, range(32))), "\x7f\x80\x9f", "\0", "a\0b" * 1000],
    "no characters": ["\ud800", "\udfff\ud800" * 1000, "\ufffe\uffff", "\U0010ffff"],
    "no spaces": ["日本語" * 30_000, "x" * 300 + "1234567890" * 20_000, "http://" * 20_000],
    "special tokens": ["".join(SPECIAL) * 100, *SPECIAL],
    "lengths around limits": ["a " * length for length in (61, 62, 63, 64, 126, 127, 128, 510)],
}


def is_sound(vectors: Vectors) -> bool:
    return bool(np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4))


@pytest_asyncio.fixture(params=EMBEDDING_KINDS)
async def tiny(
    open_tiny: OpenTiny, request: pytest.FixtureRequest
) -> AsyncIterator[EmbeddingModel]:
    async with open_tiny(request.param) as model:
        yield model


@pytest_asyncio.fixture(params=RANK_KINDS)
async def reranker(
    open_tiny: OpenTiny, request: pytest.FixtureRequest
) -> AsyncIterator[EmbeddingModel]:
    async with open_tiny(request.param) as model:
        yield model


async def test_a_huge_text_is_known_to_be_cut(tiny: EmbeddingModel) -> None:
    embeddings = await tiny.embed(["a" * MEGABYTE, "a"])
    assert embeddings.truncated == 1
    assert embeddings.token_count == tiny.max_tokens + tiny.count_tokens("a") + tiny.special_tokens
    with pytest.raises(InputTooLongError):
        await tiny.embed(["a" * MEGABYTE], truncate=False)


async def test_hostile_texts_give_finite_vectors(tiny: EmbeddingModel) -> None:
    for name, texts in HOSTILE.items():
        assert is_sound((await tiny.embed(texts)).vectors), name
        assert is_sound(await tiny.embed_query(texts[0])), name
        [rows, *_] = (await tiny.embed_tokens(texts[:1], max_tokens=50)).vectors
        assert np.isfinite(rows).all()


@pytest.mark.parametrize("letter", [" ", "\n", "\u0301"])
@pytest.mark.parametrize("kind", EMBEDDING_KINDS)
async def test_long_hostile_texts_are_read_in_seconds(
    open_tiny: OpenTiny, kind: str, letter: str
) -> None:
    text = letter * 100_000
    async with open_tiny(kind) as model, asyncio.timeout(3):
        assert is_sound((await model.embed([text])).vectors)
        assert is_sound((await model.embed([["a", text, 5]])).vectors)


async def test_hostile_pairs_give_finite_scores(reranker: EmbeddingModel) -> None:
    for name, texts in HOSTILE.items():
        assert np.isfinite((await reranker.rerank("why", texts[:100])).scores).all(), name
        assert np.isfinite((await reranker.rerank(texts[0], ["why", ""])).scores).all(), name


async def test_random_ids_give_finite_vectors(
    tiny: EmbeddingModel, tiny_backends: dict[str, LlamaBackend]
) -> None:
    random = np.random.default_rng(5)
    size = tiny_backends[tiny.spec.name].vocabulary_size
    lengths = [1, 2, tiny.max_tokens - 1, tiny.max_tokens, tiny.max_tokens + 1, 3000]
    lengths += random.integers(1, 128, 20).tolist()
    inputs = [random.integers(0, size, length).tolist() for length in lengths]
    inputs += [[token] * 3 for token in (0, 1, 2, 3, 4, size - 1)]
    assert is_sound((await tiny.embed(inputs)).vectors)
    rows = (await tiny.embed_tokens(inputs[:5])).vectors
    assert all(np.isfinite(each).all() for each in rows)


async def test_ids_that_the_model_does_not_have_are_refused(
    tiny: EmbeddingModel, tiny_backends: dict[str, LlamaBackend]
) -> None:
    size = tiny_backends[tiny.spec.name].vocabulary_size
    for bad in ([size], [-1], [2**31 - 1], [-(2**31)], [2**63], [1, size, 2], ["a", size], []):
        with pytest.raises(InvalidInputError) as refused:
            await tiny.embed([[1], bad])
        assert refused.value.param == "input[1]"
    assert is_sound((await tiny.embed([[0], [size - 1]])).vectors)


async def test_what_llama_would_abort_on_never_reaches_it(
    tiny: EmbeddingModel, tiny_backends: dict[str, LlamaBackend]
) -> None:
    size = tiny_backends[tiny.spec.name].vocabulary_size
    good = np.array([1, 2, 3], dtype=np.int32)
    for ids in ([], [-1], [size], [1] * (tiny.max_tokens + 1)):
        with pytest.raises(EmbeddingError) as failed:
            await tiny.embed_inputs([good, np.array(ids, dtype=np.int32), good])
        assert failed.value.index == 1
    assert is_sound(await tiny.embed_inputs([good]))


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_texts_stay_text(
    tiny_backends: dict[str, LlamaBackend], kind: str
) -> None:
    backend = tiny_backends[kind]
    vocabulary = backend._vocabulary
    special = [token for token in range(backend.vocabulary_size) if vocabulary.is_special(token)]
    assert len(special) >= 3
    for text in (*SPECIAL, "a [SEP] b</s>c<|endoftext|>d"):
        assert not set(backend.tokenize(text).tolist()) & set(special), text
    if backend.pooling == "rank":
        plain, _ = backend.join("a", "b", 100)
        pair, _ = backend.join("[SEP]</s>", "<|im_end|>[CLS]<s>", 100)
        own = [token for token in plain.tolist() if token in special]
        assert [token for token in pair.tolist() if token in special] == own


# Over HTTP


@pytest_asyncio.fixture(scope="module")
async def server(
    serve: Serve, tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Client]:
    """Give a server with the tiny models, and some broken files beside them."""
    folder = tmp_path_factory.mktemp("hostile")
    for kind, file in tiny_files.items():
        (folder / f"{kind}.gguf").write_bytes(file.read_bytes())
    data = tiny_files["bert"].read_bytes()
    (folder / "cut.gguf").write_bytes(data[: len(data) // 2])
    flipped = bytearray(data)
    for at in range(24, 4000, 7):
        flipped[at] ^= 16
    (folder / "flipped.gguf").write_bytes(flipped)
    loader = ModelLoader(folder, "bert", is_measuring=False)
    async with (
        Engine(loader, EngineLimits(keep_alive_s=5)) as engine,
        serve(engine, model="bert") as running,
    ):
        yield running.client


BODIES: Sequence[dict[str, Any]] = [
    {"input": "a" * MEGABYTE},
    {"input": [""] * 2000},
    {"input": ["\0", "\x01\x02", "".join(SPECIAL)]},
    {"input": "日本語" * 20_000},
    {"input": [[0, 1, 2, 3, 4], [7] * 5000]},
    {"input": [[10**9]]},
    {"input": [[-1]]},
    {"input": [[]]},
    {"input": [2**80]},
    {"input": "a", "dimensions": 2**62},
    {"input": "a", "dimensions": -1},
]


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "qwen3", "gemma-embedding"])
async def test_a_server_survives_hostile_requests(server: Client, kind: str) -> None:
    async def ask(path: str, body: dict[str, Any]) -> int:
        data = json.dumps({"model": kind, **body})
        return (await server.ask("POST", path, data=data)).status

    paths = ("/v1/embeddings", "/api/embed")
    statuses = await asyncio.gather(*(ask(path, body) for body in BODIES for path in paths))
    assert set(statuses) <= {200, 400}
    assert statuses[0] == statuses[1] == 200
    assert 400 in statuses
    [good] = (await server.post("/v1/embeddings", {"model": kind, "input": "a"})).ok()["data"]
    assert len(good["embedding"]) == 64


@pytest.mark.parametrize("name", ["cut", "flipped"])
async def test_a_server_survives_broken_files(server: Client, name: str) -> None:
    answer = await server.post("/api/embed", {"model": name, "input": "a"})
    assert answer.status >= 400
    assert f"{name}.gguf" in answer.data.decode()
    (await server.post("/v1/embeddings", {"model": "bert", "input": "a"})).ok()
