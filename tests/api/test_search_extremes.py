"""Searches at the edges: huge and tiny vectors, long queries, documents of many chunks."""

import asyncio
import random
import time
from typing import Any

import numpy as np
import pytest
from servers import Running
from toys import DIMENSIONS, toy_vector
from wire import Client

TEXTS = {"a": "cat", "b": "cat dog", "c": "cat dog fish", "d": "horse"}


async def store_texts(client: Client, collection: str = "default") -> None:
    documents = [{"id": id_, "text": text} for id_, text in TEXTS.items()]
    answer = await client.post(f"/v1/collections/{collection}/documents", {"documents": documents})
    assert {outcome["status"] for outcome in answer.ok()["documents"]} == {"stored"}


async def scores_of(
    client: Client, vector: Any, collection: str = "default", **options: Any
) -> dict[str, float]:
    """Return the scores of what a search by vector finds, in order."""
    numbers = np.asarray(vector, dtype=np.float64).tolist()
    found = await client.search({"vector": numbers}, collection, limit=100, **options)
    for result in found["results"]:
        assert all(chunk["cosine"] is not None for chunk in result["chunks"])
    return {result["document"]["id"]: result["score"] for result in found["results"]}


@pytest.mark.parametrize("precision", ["half", "full"])
async def test_the_length_of_a_query_vector_changes_nothing(client: Client, precision: str) -> None:
    (await client.post("/v1/collections", {"name": "other", "precision": precision})).ok(201)
    await store_texts(client, "other")
    wanted = toy_vector("cat cat dog").astype(np.float64)
    expected = await scores_of(client, wanted, "other")
    for scale in (1e5, 1e9, 1e30, 1e-5, 1e-9, 1e-30):
        got = await scores_of(client, scale * wanted, "other")
        assert list(got) == list(expected) == ["b", "a", "c", "d"]
        assert got == pytest.approx(expected, abs=1e-3)
        for id_, score in got.items():
            assert score == pytest.approx(wanted @ toy_vector(TEXTS[id_]), abs=2e-3)


async def test_a_vector_of_equal_numbers_is_that_of_ones(client: Client) -> None:
    await store_texts(client)
    for number in (1e5, -1e5, 1e-9, 65_504.0):
        expected = await scores_of(client, [np.sign(number)] * DIMENSIONS)
        got = await scores_of(client, [number] * DIMENSIONS)
        assert list(got) == list(expected)
        assert got == pytest.approx(expected, abs=1e-3)
        by_chunk = await scores_of(client, [number] * DIMENSIONS, group_by=None)
        assert by_chunk == pytest.approx(expected, abs=1e-3)


async def test_a_vector_of_one_huge_number_among_ones_is_almost_that_axis(client: Client) -> None:
    await store_texts(client)
    axis = int(np.argmax(toy_vector("horse")))
    vector = np.ones(DIMENSIONS)
    vector[axis] = 1e6
    scores = await scores_of(client, vector)
    assert next(iter(scores)) == "d"
    assert scores["d"] == pytest.approx(1, abs=1e-3)


async def test_a_query_of_three_megabytes_is_answered_and_holds_up_nobody(
    real_client: Client,
) -> None:
    (await real_client.post("/v1/collections", {"name": "long-queries"})).ok(201)
    await real_client.store("long-queries", id="a", text="The cat sleeps.")
    letters = random.Random(1)  # noqa: S311 # no secret
    query = "".join(
        letters.choices("abcdefghijklmnopqrstuvwxyzäßéñ ", k=3_000_000)
    )  # what tokenizes slowly
    searching = asyncio.create_task(real_client.found(query, "long-queries"))
    slowest = 0.0
    while not searching.done():
        asked = time.monotonic()
        (await real_client.get("/health")).ok()
        slowest = max(slowest, time.monotonic() - asked)
    assert await searching == ["a"]
    assert slowest < 1


def paragraphs(common: str, special: str, at: int, count: int = 60) -> str:
    """Return a text of `count` paragraphs that are a chunk each; one is of other words."""
    words = [(special if number == at else common) + " " for number in range(count)]
    return "\n\n".join(word * (54 // len(word.split())) for word in words)


@pytest.fixture
def many_chunks() -> dict[str, str]:
    return {
        "all": paragraphs("cat", "cat", 0),
        "one": paragraphs("horse", "cat dog", 41),
        "far": paragraphs("lemon", "cat dog fish", 7),
    }


async def store_chunked(client: Client, texts: dict[str, str]) -> None:
    chunking = {"max_tokens": 64, "overlap_tokens": 0}
    (await client.post("/v1/collections", {"name": "long", "chunking": chunking})).ok(201)
    for id_, text in texts.items():
        assert (await client.store("long", id=id_, text=text))["chunks"] == 60


async def test_few_documents_of_many_chunks_are_all_found_by_their_best(
    client: Client, many_chunks: dict[str, str]
) -> None:
    await store_chunked(client, many_chunks)
    for limit in (3, 10, 1000):
        answer = await client.search("cat", "long", mode="dense", limit=limit)
        assert answer["next_offset"] is None
        found = {result["document"]["id"]: result for result in answer["results"]}
        assert list(found) == ["all", "one", "far"]
        assert all(len(result["chunks"]) == 3 for result in found.values())
        assert found["one"]["chunks"][0]["index"] == 41
        assert found["one"]["chunks"][0]["text"].split()[:2] == ["cat", "dog"]
        assert found["far"]["chunks"][0]["index"] == 7
        assert found["all"]["score"] == pytest.approx(1, abs=1e-3)
        assert found["one"]["score"] == pytest.approx(0.5**0.5, abs=1e-3)
        assert found["far"]["score"] == pytest.approx(3**-0.5, abs=1e-3)


async def test_pages_over_few_documents_of_many_chunks_end(
    client: Client, many_chunks: dict[str, str]
) -> None:
    await store_chunked(client, many_chunks)
    seen: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = await client.search("cat", "long", limit=1, offset=offset, group_size=1)
        seen += [result["document"]["id"] for result in page["results"]]
        offset = page["next_offset"]
        assert len(seen) <= 3
    assert seen == ["all", "one", "far"]


async def test_a_group_can_hold_all_chunks_of_a_document(
    running: Running, many_chunks: dict[str, str]
) -> None:
    await store_chunked(running.client, many_chunks)
    answer = await running.client.search("cat", "long", group_size=100)
    assert [len(result["chunks"]) for result in answer["results"]] == [60, 60, 60]
