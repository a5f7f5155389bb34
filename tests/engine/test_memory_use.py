"""Memory stays flat, and what lanes say that they take is what they take."""

import asyncio
import gc
import random
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pytest
from openers import OpenTiny
from polling import until
from variants import convert_with_words

from memoryd.embeddings.engine import Engine, EngineLimits
from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import Pooling
from memoryd.memory.models import ModelLoader

REQUESTS, FIRST = 10_000, 1_000
CALLERS = 50
LOADS = 200
WORDS = 250_000
TOLERANCE_BYTES = 8 << 20


def used_bytes() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def make_text(chosen: random.Random) -> str:
    """Return a text of some words, now and then a long one."""
    words = chosen.choices(("sky", "blue", "why", "grass", "embedding", "日本"), k=3)
    return " ".join(words[: chosen.randint(0, 3)]) * (80 if chosen.random() < 0.002 else 1)


async def ask(model: EmbeddingModel, chosen: random.Random) -> None:
    """Ask for something of a random shape."""
    shape = chosen.random()
    if shape < 0.2:
        await model.embed_query(make_text(chosen))
    elif shape < 0.21:
        await model.embed_tokens([make_text(chosen)], max_tokens=8)
    elif shape < 0.3:
        leaving = asyncio.create_task(model.embed([make_text(chosen)] * 3))
        await asyncio.sleep(0)
        leaving.cancel()
    elif shape < 0.35:
        await model.embed([[chosen.randint(0, 200) for _ in range(chosen.randint(1, 30))]])
    else:
        count = int(chosen.paretovariate(2.5))
        await model.embed([make_text(chosen) for _ in range(min(count, 30))], max_tokens=60)


async def growth_over_requests(model: EmbeddingModel, requests: int, first: int) -> float:
    """Return how much more memory is used in the end than after the first requests, in parts."""
    samples: list[int] = []
    chosen = random.Random(11)  # noqa: S311 - the same requests in every run
    step = 250
    for _ in range(0, requests, step):
        places = asyncio.Semaphore(CALLERS)

        async def one(places: asyncio.Semaphore = places) -> None:
            async with places:
                await ask(model, chosen)

        await asyncio.gather(*(one() for _ in range(step)))
        samples.append(used_bytes())
    early = samples[first // step : 2 * first // step]
    return median(samples[-len(early) :]) / median(early) - 1


async def test_memory_stays_flat_over_ten_thousand_requests(minilm: EmbeddingModel) -> None:
    assert await growth_over_requests(minilm, REQUESTS, FIRST) <= 0.05


@pytest.mark.parametrize("kind", ["qwen3", "gemma-embedding"])
async def test_memory_stays_flat_over_requests_of_a_tiny_model(
    open_tiny: OpenTiny, kind: str
) -> None:
    async with open_tiny(kind) as model:
        assert await growth_over_requests(model, 3000, FIRST) <= 0.05


async def test_memory_stays_flat_when_a_model_comes_and_goes(
    tiny_files: dict[str, Path], tmp_path: Path
) -> None:
    for kind in ("bert", "qwen3"):
        (tmp_path / f"{kind}.gguf").write_bytes(tiny_files[kind].read_bytes())
    loader = ModelLoader(tmp_path, "bert", is_measuring=False)
    samples, threads = [], []
    async with Engine(loader, EngineLimits(keep_alive_s=0)) as engine:
        for number in range(LOADS):
            name = ("bert", "qwen3")[number % 2]
            async with engine.using(name) as model:
                await model.embed(["why is the sky blue", "a" * 500])
            await until(lambda name=name: not engine.is_loaded(name))
            if number % 10 == 9:
                samples.append(used_bytes())
                threads.append(psutil.Process().num_threads())
    assert median(samples[-5:]) <= 1.05 * median(samples[5:10])
    assert max(threads[-5:]) <= max(threads[5:10]) + 2


@pytest.fixture(scope="module")
def with_many_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_with_words("bert", tmp_path_factory.mktemp("words"), WORDS)


@pytest.fixture(scope="module")
def decoder_with_many_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_with_words("qwen3-rank", tmp_path_factory.mktemp("words"), 100_000)


def lane_growth(backend: LlamaBackend, pooling: Pooling, tokens: int) -> tuple[int, int]:
    """Return what a lane says that it takes after a full batch, and what it takes."""
    batch = [np.arange(5, 5 + tokens // 4, dtype=np.int32)] * 4
    warm = backend.open_lane(tokens, 4, pooling)  # so that the weights are read
    warm.encode(batch, 1)
    before = used_bytes()
    lane = backend.open_lane(tokens, 4, pooling)
    lane.encode(batch, 1)
    told, took = lane.memory_bytes, used_bytes() - before
    lane.close()
    warm.close()
    return told, took


def is_honest(told: int, took: int) -> bool:
    return abs(told - took) <= max(TOLERANCE_BYTES, 0.25 * took)


def test_lanes_of_a_model_with_many_words_give_their_logits_back(with_many_words: Path) -> None:
    backend = LlamaBackend(with_many_words)
    told, took = lane_growth(backend, "mean", 512)
    assert is_honest(told, took), (told >> 20, took >> 20)
    assert took < 64 << 20  # the buffer for logits has 512 MB
    backend.close()


@pytest.mark.parametrize("kind", ["bert", "nomic-bert", "qwen3", "gemma-embedding", "bert-rank"])
def test_lanes_say_what_they_take(tiny_backends: dict[str, LlamaBackend], kind: str) -> None:
    backend = tiny_backends[kind]
    told, took = lane_growth(backend, backend.pooling, 512)
    assert is_honest(told, took), (told >> 20, took >> 20)


@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
def test_lanes_of_a_decoder_with_many_words_say_what_they_take(
    decoder_with_many_words: Path, pooling: Pooling
) -> None:
    backend = LlamaBackend(decoder_with_many_words, pooling=pooling)
    told, took = lane_growth(backend, pooling, 128)
    assert is_honest(told, took), (told >> 20, took >> 20)
    backend.close()
