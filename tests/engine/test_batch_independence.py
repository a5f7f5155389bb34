"""What a model gives for an input doesn't depend on what else is asked: on every architecture."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import pytest_asyncio
from openers import OpenTiny
from tiny_models import CORPUS, EMBEDDING_KINDS, RANK_KINDS

from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import Pooling, Tuning, Vectors

CALLERS = 50
SEED = 7
# Some batches hold many inputs, some one, some inputs need a lane of their own.
TUNING = Tuning(lanes=2, threads=1, batch_tokens=64)
# llama.cpp's flash attention adds up in float16 where a batch has less than 64 tokens, and in
# float32 elsewhere (ggml-cpu/ops.cpp). Scores of random weights, about 2 apart, feel it.
SCORE_TOLERANCE = 5e-3


def make_texts() -> list[str]:
    """Return texts of one word to some hundreds, no two alike."""
    chosen = random.Random(SEED)  # noqa: S311 - the same texts in every run
    words = " ".join(CORPUS).split()
    lengths = [1, 2, 3, 5, 8, 13, 20, 30, 45, 60, 90, 200, *range(4, 24)]
    return [" ".join(chosen.choices(words, k=length)) for length in lengths]


TEXTS = make_texts()


def orders(count: int) -> list[list[int]]:
    """Return some of the texts' rows for each of `count` callers, in an order of its own."""
    chosen = random.Random(SEED)  # noqa: S311 - the same orders in every run
    return [chosen.sample(range(len(TEXTS)), chosen.randint(1, 12)) for _ in range(count)]


def lowest_cosine(left: Vectors, right: Vectors) -> float:
    return float((left * right).sum(axis=1).min())


async def alone(model: EmbeddingModel, texts: Sequence[str]) -> Vectors:
    return np.concatenate([(await model.embed([text])).vectors for text in texts])


async def check_independence(model: EmbeddingModel) -> None:
    one_by_one = await alone(model, TEXTS)
    assert np.median(one_by_one @ one_by_one.T) < 0.99  # or comparing them would prove nothing
    for rows in (range(len(TEXTS)), range(len(TEXTS) - 1, -1, -1), *orders(3)):
        got = (await model.embed([TEXTS[row] for row in rows])).vectors
        assert lowest_cosine(got, one_by_one[[*rows]]) >= 0.9999
    asked = orders(CALLERS)
    answers = await asyncio.gather(
        *(model.embed([TEXTS[row] for row in rows]) for rows in asked),
        *(model.embed_query(TEXTS[rows[0]]) for rows in asked),
    )
    for rows, answer in zip(asked, answers[:CALLERS], strict=True):
        assert lowest_cosine(answer.vectors, one_by_one[rows]) >= 0.9999
    queries = np.concatenate(answers[CALLERS:])
    assert lowest_cosine(queries, one_by_one[[rows[0] for rows in asked]]) >= 0.9999


@pytest.mark.parametrize("kind", EMBEDDING_KINDS)
async def test_vectors_are_those_of_each_input_alone(open_tiny: OpenTiny, kind: str) -> None:
    async with open_tiny(kind, TUNING) as model:
        await check_independence(model)


async def test_the_default_models_vectors_are_those_of_each_input_alone(
    minilm: EmbeddingModel,
) -> None:
    await check_independence(minilm)


@pytest_asyncio.fixture(params=RANK_KINDS)
async def reranker(
    open_tiny: OpenTiny, request: pytest.FixtureRequest
) -> AsyncIterator[EmbeddingModel]:
    async with open_tiny(request.param, TUNING) as model:
        yield model


async def test_scores_are_those_of_each_document_alone(reranker: EmbeddingModel) -> None:
    query = "why is the sky blue"
    one_by_one = np.concatenate([(await reranker.rerank(query, [text])).scores for text in TEXTS])
    assert np.ptp(one_by_one) > 0.5
    asked = orders(CALLERS)
    answers = await asyncio.gather(
        reranker.rerank(query, TEXTS),
        *(reranker.rerank(query, [TEXTS[row] for row in rows]) for rows in asked),
        *(reranker.rerank("and the cat", TEXTS[:3]) for _ in range(3)),
    )
    for rows, answer in zip([range(len(TEXTS)), *asked], answers[: 1 + CALLERS], strict=True):
        expected = one_by_one[[*rows]]
        assert np.abs(answer.scores - expected).max() <= SCORE_TOLERANCE
        assert ranks(answer.scores, expected)


def ranks(scores: Vectors, expected: Vectors) -> bool:
    """Say whether both put all in the same order, but for those that are all but equal."""
    order = np.argsort(-scores, kind="stable")
    return bool((np.diff(expected[order]) <= SCORE_TOLERANCE).all())


@pytest.mark.parametrize("kind", EMBEDDING_KINDS)
async def test_vectors_of_tokens_are_those_that_are_pooled(open_tiny: OpenTiny, kind: str) -> None:
    texts = TEXTS[:6]
    async with open_tiny(kind, TUNING) as model:
        of_tokens = await model.embed_tokens(texts)
        pooled = (await model.embed(texts)).vectors
        counts = [model.count_tokens(text) + model.special_tokens for text in texts]
        pooling = model.pooling
    assert [len(vectors) for vectors in of_tokens.vectors] == counts
    if kind == "gemma-embedding":
        return  # its dense layers come after the pooling
    assert lowest_cosine(pooled, pool(of_tokens.vectors, pooling)) >= 0.9999


def pool(vectors: Sequence[Vectors], pooling: Pooling) -> Vectors:
    """Return the unit vectors that `pooling` makes of those of each input's tokens."""
    rows = {"mean": lambda rows: rows.mean(axis=0), "cls": lambda rows: rows[0]}
    pooled = np.stack([rows.get(pooling, lambda rows: rows[-1])(each) for each in vectors])
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
async def test_a_pooling_that_the_user_chose_is_followed(
    open_tiny: OpenTiny, kind: str, pooling: Pooling
) -> None:
    async with open_tiny(kind, TUNING, pooling=pooling) as model:
        assert model.pooling == pooling
        got = (await model.embed(TEXTS[:8])).vectors
        of_tokens = await model.embed_tokens(TEXTS[:8])
    assert lowest_cosine(got, pool(of_tokens.vectors, pooling)) >= 0.9999


async def test_a_pooling_of_none_gives_vectors_of_tokens_through_the_queue(
    open_tiny: OpenTiny,
) -> None:
    async with open_tiny("bert", TUNING) as own, open_tiny("bert", TUNING, pooling="none") as model:
        expected = await own.embed_tokens(TEXTS)
        got = await model.embed_tokens(TEXTS)
    for left, right in zip(got.vectors, expected.vectors, strict=True):
        assert left.shape == right.shape
        assert (left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right) >= 0.9999
