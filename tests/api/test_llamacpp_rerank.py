"""POST /rerank and its other paths, as the clients of llama.cpp, Jina, TEI and others know them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_servers import put_tiny, serve_tiny
from servers import Serve
from toys import JUDGE, MAX_TOKENS, TOY
from wire import Answer, Client

PATHS = ["/rerank", "/reranking", "/v1/rerank", "/v1/reranking"]
DOCUMENTS = ["dog", "cat cat", "cat", "cat cat cat"]  # the toy counts what query and they share
ORDER, SCORES = [3, 1, 2, 0], [3, 2, 1, 0]


async def rank(client: Client, path: str = "/rerank", **fields: Any) -> Answer:
    body = {"model": JUDGE, "query": "cat", "documents": DOCUMENTS, **fields}
    return await client.post(path, body)


async def rank_texts(client: Client, path: str = "/rerank", **fields: Any) -> Answer:
    body = {"model": JUDGE, "query": "cat", "texts": DOCUMENTS, **fields}
    return await client.post(path, body)


@pytest.mark.parametrize("path", PATHS)
async def test_documents_are_ranked_the_best_first(toys: Client, path: str) -> None:
    answer = (await rank(toys, path)).ok()
    assert set(answer) == {"model", "object", "usage", "results"}
    assert (answer["model"], answer["object"]) == (JUDGE, "list")
    tokens = 4 * 3 + 7 + 4  # BEGIN cat END … END
    assert answer["usage"] == {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "completion_tokens": 0,
    }
    expected = [{"index": i, "relevance_score": s} for i, s in zip(ORDER, SCORES, strict=True)]
    assert answer["results"] == expected


async def test_the_query_decides(toys: Client) -> None:
    results = (await rank(toys, query="dog")).ok()["results"]
    assert results[0] == {"index": 0, "relevance_score": 1}


@pytest.mark.parametrize(("top_n", "count"), [(None, 4), (1, 1), (2, 2), (4, 4), (99, 4)])
async def test_top_n_says_how_many(toys: Client, top_n: Any, count: int) -> None:
    results = (await rank(toys, top_n=top_n)).ok()["results"]
    assert [result["index"] for result in results] == ORDER[:count]
    ranks = (await rank_texts(toys, top_n=top_n)).ok()
    assert [each["index"] for each in ranks] == ORDER[:count]


@pytest.mark.parametrize("top_n", [0, -1, 2.5, "2"])
async def test_another_top_n_is_refused(toys: Client, top_n: Any) -> None:
    assert (await rank(toys, top_n=top_n)).refused(400, "invalid_value")["param"] == "top_n"
    assert (await rank_texts(toys, top_n=top_n)).status == 422


async def test_documents_are_returned_where_asked_for(toys: Client) -> None:
    results = (await rank(toys, return_documents=True)).ok()["results"]
    assert [each["document"] for each in results] == [{"text": DOCUMENTS[i]} for i in ORDER]
    for value in (None, False):
        results = (await rank(toys, return_documents=value)).ok()["results"]
        assert not any("document" in each for each in results)


@pytest.mark.parametrize("documents", [[], None, 123, [1, 2, 3], "cat", {}, ["cat", None]])
async def test_documents_must_be_texts(toys: Client, documents: Any) -> None:
    error = (await rank(toys, documents=documents)).refused(400)
    assert error["param"] == "documents"


@pytest.mark.parametrize("query", [None, 5, ["cat"]])
async def test_the_query_must_be_a_text(toys: Client, query: Any) -> None:
    assert (await rank(toys, query=query)).refused(400)["param"] == "query"
    body = {"model": JUDGE, "documents": DOCUMENTS}
    assert (await toys.post("/rerank", body)).refused(400, "missing_field")["param"] == "query"


async def test_a_long_document_is_cut_unless_it_may_not_be(toys: Client) -> None:
    documents = ["dog " * MAX_TOKENS + "cat", "dog"]
    answer = await rank(toys, documents=documents)
    assert answer.headers["X-Truncated-Inputs"] == "1"
    assert {each["relevance_score"] for each in answer.ok()["results"]} == {0}
    error = (await rank(toys, documents=documents, truncate=False)).refused(400)
    assert error["param"] == "documents[0]"


async def test_a_model_that_embeds_is_asked_in_vain_and_not_again(toys: Client) -> None:
    answer = await rank(toys, model=TOY)
    answer.refused(501, "wrong_model")
    assert answer.headers["x-should-retry"] == "false"
    answer = await rank_texts(toys, model=TOY)
    assert answer.status == 424
    assert answer.json["error_type"] == "Backend"
    (await rank(toys, model="nobody")).refused(404, "model_not_found")


async def test_a_score_that_is_no_number_is_the_clients_error(toys: Client) -> None:
    (await rank(toys, documents=["cat", "nan"])).refused(400)
    answer = await rank_texts(toys, texts=["cat", "nan"])
    assert (answer.status, answer.json["error_type"]) == (424, "Backend")


# TEI's shape


@pytest.mark.parametrize("path", PATHS)
async def test_texts_are_ranked_from_0_to_1(toys: Client, path: str) -> None:
    for raw in (None, False):
        ranks = (await rank_texts(toys, path, raw_scores=raw)).ok()
        assert [set(each) for each in ranks] == [{"index", "score"}] * 4
        assert [each["index"] for each in ranks] == ORDER
        expected = 1 / (1 + np.exp(-np.array(SCORES)))
        assert np.allclose([each["score"] for each in ranks], expected, atol=1e-6)


async def test_raw_scores_are_as_the_head_gives_them(toys: Client) -> None:
    ranks = (await rank_texts(toys, raw_scores=True)).ok()
    assert [each["score"] for each in ranks] == SCORES


async def test_texts_are_returned_where_asked_for(toys: Client) -> None:
    ranks = (await rank_texts(toys, return_text=True)).ok()
    assert [each["text"] for each in ranks] == [DOCUMENTS[i] for i in ORDER]
    assert not any("text" in each for each in (await rank_texts(toys, return_text=False)).ok())


async def test_long_texts_are_cut_on_the_side_that_is_asked_for(toys: Client) -> None:
    texts = ["cat " + "dog " * MAX_TOKENS]
    for direction, score in ((None, 1), ("right", 1), ("Right", 1), ("left", 0), ("Left", 0)):
        answer = await rank_texts(
            toys, texts=texts, truncation_direction=direction, raw_scores=True
        )
        assert answer.ok() == [{"index": 0, "score": score}]
        assert answer.headers["X-Truncated-Inputs"] == "1"
    assert (await rank_texts(toys, texts=texts, truncate=False)).status == 422
    assert (await rank_texts(toys, truncate=False)).status == 200
    assert (await rank_texts(toys, truncation_direction="up")).status == 422


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"texts": []}, 400, "Empty"),
        ({"texts": [1]}, 422, "Validation"),
        ({"texts": "cat"}, 422, "Validation"),
        ({"query": None}, 422, "Validation"),
        ({"raw_scores": "no"}, 422, "Validation"),
        ({"return_text": 1}, 422, "Validation"),
        ({"texts": ["cat"] * 2049}, 413, "Validation"),
        ({"model": "nobody"}, 404, "Validation"),
    ],
)
async def test_errors_about_texts_have_teis_shape(
    toys: Client, fields: dict[str, Any], status: int, kind: str
) -> None:
    answer = await rank_texts(toys, **fields)
    assert answer.status == status
    assert set(answer.json) == {"error", "error_type"}
    assert answer.json["error_type"] == kind


# Real rerankers, and which one where none is named


@pytest.fixture
def models_dir_of_test(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


SKY = {"query": "why is the sky blue", "documents": ["because of light and water", "the cat sat"]}
SKY_TEXTS = {"query": SKY["query"], "texts": SKY["documents"]}


async def test_without_a_name_the_only_reranker_serves(
    serve: Serve, models_dir_of_test: Path
) -> None:
    async with serve_tiny(serve, models_dir_of_test, model="bert") as running:
        client = running.client
        answer = await client.post("/rerank", SKY)
        assert "memoryd models pull" in answer.refused(501, "wrong_model")["message"]
        answer = await client.post("/rerank", SKY_TEXTS)
        assert (answer.status, answer.json["error_type"]) == (424, "Backend")
        put_tiny("bert-rank", models_dir_of_test / "judge.gguf")
        named = (await client.post("/rerank", {**SKY, "model": "judge"})).ok()
        assert (await client.post("/rerank", SKY)).ok() == named
        assert named["model"] == "judge"
        assert (await client.post("/rerank", {**SKY, "model": ""})).ok() == named
        raw = (await client.post("/rerank", {**SKY_TEXTS, "raw_scores": True})).ok()
        assert [each["score"] for each in raw] == [
            each["relevance_score"] for each in named["results"]
        ]
        put_tiny("qwen3-rank", models_dir_of_test / "other.gguf")
        error = (await client.post("/rerank", SKY)).refused(400, "missing_field")
        assert error["param"] == "model"
        assert "judge, other" in error["message"]
        assert (await client.post("/rerank", SKY_TEXTS)).status == 422


async def test_scores_that_are_probabilities_get_no_sigmoid(
    serve: Serve, models_dir_of_test: Path
) -> None:
    async with serve_tiny(serve, models_dir_of_test, "qwen3-rank", model="bert") as running:
        raw = (await running.client.post("/rerank", {**SKY_TEXTS, "raw_scores": True})).ok()
        assert (await running.client.post("/rerank", SKY_TEXTS)).ok() == raw
        assert all(0 < each["score"] < 1 for each in raw)


async def test_more_documents_than_inputs_may_be_are_refused(toys: Client) -> None:
    error = (await rank(toys, documents=["cat"] * 2049)).refused(413, "too_large")
    assert error["param"] == "documents"
    assert "max_inputs = 2048" in error["message"]
    assert (await rank_texts(toys, texts=["cat"] * 2049)).status == 413
