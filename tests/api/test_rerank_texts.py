"""How a search has its results scored by a cross-encoder."""

from pathlib import Path

import numpy as np
import pytest
from model_servers import put_tiny, serve_tiny
from servers import Running, Serve
from toys import JUDGE, MAX_TOKENS, TOY

from memoryd.errors import (
    MissingFieldError,
    ModelKindError,
    ModelNotFoundError,
    TooLargeError,
)
from memoryd.memory.reranking import rerank_texts

SKY, BECAUSE = "why is the sky blue", ["because of light and water", "the cat sat", "light"]


async def test_each_text_gets_the_score_of_the_named_model(kinds: Running) -> None:
    texts = ["dog", "cat cat", "cat", "cat dog cat cat", ""]
    name, scores = await rerank_texts(kinds.memory, JUDGE.upper(), "cat", texts)
    assert name == JUDGE
    assert (scores.dtype, scores.tolist()) == (np.float32, [0, 2, 1, 3, 0])
    _, scores = await rerank_texts(kinds.memory, JUDGE, "cat", [])
    assert scores.shape == (0,)


async def test_what_is_too_long_is_cut_at_its_end(kinds: Running) -> None:
    texts = ["cat " + "dog " * MAX_TOKENS, "dog " * MAX_TOKENS + "cat"]
    _, scores = await rerank_texts(kinds.memory, JUDGE, "cat", texts)
    assert scores.tolist() == [1, 0]


async def test_models_that_cannot_score_are_refused(kinds: Running) -> None:
    with pytest.raises(ModelKindError, match="toy is no reranker"):
        await rerank_texts(kinds.memory, TOY, "cat", ["dog"])
    with pytest.raises(ModelNotFoundError) as unknown:
        await rerank_texts(kinds.memory, "nobody", "cat", ["dog"])
    assert unknown.value.param == "rerank.model"
    with pytest.raises(TooLargeError) as many:
        await rerank_texts(kinds.memory, JUDGE, "cat", ["dog"] * 1_000_000)
    assert many.value.param == "rerank.candidates"


async def test_without_a_name_the_only_reranker_scores(serve: Serve, tmp_path: Path) -> None:
    async with serve_tiny(serve, tmp_path, model="bert") as running:
        with pytest.raises(ModelKindError, match="memoryd models pull"):
            await rerank_texts(running.memory, None, SKY, BECAUSE)
        put_tiny("bert-rank", tmp_path / "judge.gguf")
        name, scores = await rerank_texts(running.memory, None, SKY, BECAUSE)
        body = {"query": SKY, "documents": BECAUSE}
        answer = (await running.client.post("/v1/rerank", body)).ok()
        relevance = {each["index"]: each["relevance_score"] for each in answer["results"]}
        assert name == "judge"
        assert dict(enumerate(scores.tolist())) == pytest.approx(relevance, rel=1e-5)
        put_tiny("qwen3-rank", tmp_path / "other.gguf")
        with pytest.raises(MissingFieldError, match="one of judge, other") as refusal:
            await rerank_texts(running.memory, None, SKY, BECAUSE)
        assert refusal.value.param == "rerank.model"
        assert refusal.value.message.startswith("rerank.model is required")
