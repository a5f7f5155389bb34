"""Hybrid search against its arms: their rankings, asked for alone, are fused by hand."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from toys import WORDS
from wire import Client

QUERIES = (
    "cat dog",
    "apple red red",
    "horse plum",
    "cat cat cat lemon",
    "zebra",
    "fish zebra blue",
)


async def store_animals(client: Client, count: int = 80) -> None:
    numbers = random.Random(7)  # noqa: S311 - texts, the same each time
    words = [*WORDS, "zebra", "yak"]
    documents = [
        {
            "id": f"d{number}",
            "title": numbers.choice(words),
            "chunks": [
                {"text": " ".join(numbers.choices(words, k=numbers.randint(1, 9)))}
                for _ in range(numbers.randint(1, 4))
            ],
        }
        for number in range(count)
    ]
    answer = await client.post("/v1/collections/default/documents", {"documents": documents})
    assert {each["status"] for each in answer.ok()["documents"]} == {"stored"}


async def ranking(client: Client, query: str, **options: Any) -> list[tuple[str, str]]:
    """Return document and chunk of each result, best first."""
    options = {"group_by": None, "limit": 1000, **options}
    results = (await client.search(query, **options))["results"]
    return [(each["document"]["id"], each["chunks"][0]["id"]) for each in results]


def fuse(rankings: Sequence[Sequence[str]], k: float, weights: Sequence[float]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for ranked, weight in zip(rankings, weights, strict=True):
        for rank, key in enumerate(ranked, start=1):
            scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return scores


def first_of_each(ranked: Sequence[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(document for document, _ in ranked))


@pytest.mark.parametrize("query", QUERIES)
async def test_chunks_are_ranked_by_the_sum_of_their_reciprocal_ranks(
    client: Client, query: str
) -> None:
    await store_animals(client, 40)  # below a hundred chunks, so that all take part
    arms = [
        [chunk for _, chunk in (await ranking(client, query, mode=mode))[:100]]
        for mode in ("dense", "lexical")
    ]
    weights = {"dense": 2, "lexical": 0.5}
    expected = fuse(arms, 30, (2, 0.5))
    answer = await client.search(
        query, group_by=None, limit=100, fusion={"k": 30, "weights": weights}
    )
    assert answer["score_type"] == "rrf"
    found = {each["chunks"][0]["id"]: each["score"] for each in answer["results"]}
    top = list(found)[:50]
    assert {chunk: found[chunk] for chunk in top} == pytest.approx(
        {chunk: expected[chunk] for chunk in top}
    )
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert (
        min(found[chunk] for chunk in top)
        >= max(score for chunk, score in expected.items() if chunk not in top) - 1e-12
    )


@pytest.mark.parametrize("query", QUERIES)
async def test_documents_are_ranked_by_the_ranks_of_their_best_chunks(
    client: Client, query: str
) -> None:
    await store_animals(client, 40)
    arms = [
        first_of_each((await ranking(client, query, mode=mode))[:100])
        for mode in ("dense", "lexical")
    ]
    expected = fuse(arms, 10, (1, 1))
    answer = await client.search(query, limit=20, fusion={"k": 10})
    found = {each["document"]["id"]: each["score"] for each in answer["results"]}
    assert found == pytest.approx({document: expected[document] for document in found})
    left = [score for document, score in expected.items() if document not in found]
    assert min(found.values()) >= max(left) - 1e-12


async def test_each_chunk_tells_its_rank_in_both_arms_its_cosine_and_its_bm25(
    client: Client,
) -> None:
    await store_animals(client)
    query = "cat lemon"
    places = {}
    for mode in ("dense", "lexical"):
        ranked = (await ranking(client, query, mode=mode))[:100]
        places[mode] = {chunk: rank for rank, (_, chunk) in enumerate(ranked, start=1)}
    cosines, words = {}, {}
    for result in (await client.search(query, mode="dense", group_by=None, limit=1000))["results"]:
        cosines[result["chunks"][0]["id"]] = result["score"]
    lexical = await client.search(query, mode="lexical", group_by=None, limit=1000)
    assert lexical["score_type"] == "bm25"
    for result in lexical["results"]:
        words[result["chunks"][0]["id"]] = result["score"]
    answer = await client.search(query, limit=30, explain=True)
    shown = [chunk for result in answer["results"] for chunk in result["chunks"]]
    assert len(shown) > 30
    for chunk in shown:
        assert chunk["cosine"] == pytest.approx(cosines[chunk["id"]])
        assert chunk.get("bm25") == pytest.approx(words.get(chunk["id"]))
        for mode, ranks in places.items():
            told = chunk["explain"].get(mode)
            assert (told and told["rank"]) == ranks.get(chunk["id"])


async def test_words_that_no_chunk_has_leave_the_ranking_to_the_vectors(client: Client) -> None:
    await store_animals(client, 20)
    hybrid = await client.found("walrus apple", limit=20)
    await client.store(id="w", text="walrus walrus")
    assert (await client.found("walrus apple", mode="lexical", limit=1)) == ["w"]
    assert (await client.found("the of and", mode="lexical")) == []
    assert len(hybrid) == 20
    assert len(await client.found("the of and")) == 10


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
async def test_a_document_shows_its_best_chunks_however_many_others_match(
    client: Client, mode: str
) -> None:
    texts = ["cat", "cat dog", "cat dog fish", "horse"]
    documents = [
        {"id": f"d{number:03}", "chunks": [{"text": text} for text in texts]}
        for number in range(150)
    ]
    answer = await client.post("/v1/collections/default/documents", {"documents": documents})
    assert {each["status"] for each in answer.ok()["documents"]} == {"stored"}
    for limit in (5, 150):
        results = (await client.search("cat", mode=mode, limit=limit))["results"]
        assert len(results) == limit
        for result in results:
            assert [chunk["text"] for chunk in result["chunks"]] == texts[:3]
            assert all(chunk["bm25"] > 0 for chunk in result["chunks"])
