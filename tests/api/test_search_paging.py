"""Pages of a search: together they are one long page, also while others write."""

import asyncio
import random
from typing import Any

import asyncpg
import pytest
from servers import Running
from wire import Client

WORDS = ("cat", "dog", "fish", "bird", "horse", "apple", "pear")

MODES: list[dict[str, Any]] = [
    {"mode": "hybrid"},
    {"mode": "dense"},
    {"mode": "lexical"},
    {"mode": "hybrid", "fusion": {"method": "relative"}},
    {"mode": "hybrid", "score_threshold": 0.3},
    {"mode": "hybrid", "boost": [{"filter": {"field": "id", "prefix": "d1"}, "weight": 0.5}]},
    {"mode": "hybrid", "filter": {"field": "id", "prefix": "d1"}},
    {"mode": "hybrid", "mmr": {"diversity": 0.5, "candidates": 50}},
]


def texts(count: int, seed: int = 1) -> dict[str, str]:
    """Return texts of one to three chunks of few words, so that many are equally near."""
    rng = random.Random(seed)  # noqa: S311 # no secret
    return {
        f"d{number:03}": "\n\n".join(
            " ".join(rng.choices(WORDS, k=3) * 16) for _ in range(rng.randint(1, 3))
        )
        for number in range(count)
    }


async def store(client: Client, documents: dict[str, str]) -> None:
    body = {"documents": [{"id": id_, "text": text} for id_, text in documents.items()]}
    (await client.post("/v1/collections/default/documents", body)).ok()


async def wait_for_statistics(running: Running) -> None:
    """Return when all chunks are counted: until then bm25 may change from search to search."""
    connection = await asyncpg.connect(running.dsn)
    try:
        for _ in range(300):
            if not await connection.fetchval("SELECT count(*) FROM c_1.term_changes_1"):
                return
            await asyncio.sleep(0.1)
        pytest.fail("the chunks are not counted")
    finally:
        await connection.close()


def shown(answer: Any) -> list[tuple[str, str, float]]:
    """Return the document, the first chunk and the score of each result."""
    return [
        (result["document"]["id"], result["chunks"][0]["id"], result["score"])
        for result in answer["results"]
    ]


async def all_pages(client: Client, query: Any, limit: int, **options: Any) -> list[Any]:
    seen: list[Any] = []
    offset: int | None = 0
    while offset is not None:
        page = await client.search(query, limit=limit, offset=offset, **options)
        assert len(page["results"]) <= limit
        if page["next_offset"] is not None:
            assert page["next_offset"] == offset + limit
            assert len(page["results"]) == limit
        seen += shown(page)
        offset = page["next_offset"]
        assert len(seen) <= 2_000
    return seen


@pytest.mark.parametrize("group_by", ["document", None])
async def test_pages_together_are_one_long_page(running: Running, group_by: str | None) -> None:
    client = running.client
    await store(client, texts(200))
    await wait_for_statistics(running)
    for options in MODES:
        most = 50 if "mmr" in options else 1_000
        whole = await client.search(
            "cat dog", limit=most, group_by=group_by, **{"with": {"text": False}}, **options
        )
        assert whole["next_offset"] is None
        places = [document if group_by else chunk for document, chunk, _ in shown(whole)]
        assert len(set(places)) == len(places)
        for limit in (7, 64):
            if "mmr" in options and most % limit:
                limit = 10
            pages = await all_pages(client, "cat dog", limit, group_by=group_by, **options)
            assert pages == shown(whole), (options, limit)


async def test_all_that_there_is_comes_on_some_page(client: Client) -> None:
    documents = texts(150)
    await store(client, documents)
    for mode in ("hybrid", "dense"):
        pages = await all_pages(client, "cat", 20, mode=mode)
        assert {document for document, _, _ in pages} == set(documents)
    lexical = await all_pages(client, "cat", 20, mode="lexical")
    having = {id_ for id_, text in documents.items() if "cat" in text}
    assert {document for document, _, _ in lexical} == having


async def test_a_page_beyond_the_end_is_empty(client: Client) -> None:
    await store(client, texts(5))
    for offset in (5, 6, 9_000):
        page = await client.search("cat", offset=offset, limit=1_000)
        assert (page["results"], page["next_offset"]) == ([], None)
    last = await client.search("cat", offset=4, limit=1)
    assert (len(last["results"]), last["next_offset"]) == (1, None)


async def test_a_page_ends_where_what_can_be_chosen_from_does(client: Client) -> None:
    await store(client, texts(60))
    options: dict[str, Any] = {"mmr": {"diversity": 0.5, "candidates": 20}}
    pages = await all_pages(client, "cat", 10, **options)
    assert len({document for document, _, _ in pages}) == len(pages) == 20


async def test_pages_hold_what_stays_once_while_others_write(running: Running) -> None:
    """What comes and goes is farther from the query than what stays, and so comes after it."""
    client = running.client
    staying = {f"s{number:02}": "cat " * (number % 3 + 1) for number in range(40)}
    await store(client, staying)

    async def come_and_go(number: int) -> None:
        for round_ in range(15):
            await client.store(id=f"w{number}", text=f"horse {'pear ' * round_}")
            (await client.delete(f"/v1/collections/default/documents/w{number}")).ok()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(come_and_go(number)) for number in range(3)]
        while not all(task.done() for task in tasks):
            for group_by in ("document", None):
                seen = await all_pages(client, "cat", 9, mode="dense", group_by=group_by)
                ids = [document for document, _, _ in seen if document in staying]
                assert sorted(ids) == sorted(staying)
