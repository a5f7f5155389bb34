"""Many searches in one request, and one search of many collections."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from key_requests import bearing, first_key, make
from servers import Running, Serve
from toys import JUDGE, TOY, ToyShelf, toy_vector
from wire import Client

from memoryd.api.search_bodies import BatchBody, SeveralBody
from memoryd.embeddings.engine import Engine

BATCH = "/v1/collections/default/search/batch"
OTHER_TOY = "other-toy"
PETS = {"cat": "cat", "catdog": "cat dog", "dog": "dog dog"}
FRUIT = {"pear": "pear", "pearcat": "pear cat", "cats": "cat cat cat"}


async def store(client: Client, collection: str, texts: dict[str, str]) -> None:
    documents = [{"id": id_, "text": text} for id_, text in texts.items()]
    path = f"/v1/collections/{collection}/documents"
    (await client.post(path, {"documents": documents})).ok()


@pytest_asyncio.fixture(scope="module")
async def shelf() -> AsyncIterator[ToyShelf]:
    shelf = ToyShelf(TOY, JUDGE, OTHER_TOY)
    shelf.poolings[JUDGE] = "rank"
    yield shelf


@pytest_asyncio.fixture(scope="module")
async def stocked(serve: Serve, shelf: ToyShelf) -> AsyncIterator[Running]:
    """Give a server with a few collections, of two models and two widths."""
    async with Engine(shelf) as engine, serve(engine, database_connections=8) as running:
        client = running.client
        for name, options in (
            ("pets", {}),
            ("fruit", {"model": OTHER_TOY, "precision": "full"}),
            ("narrow", {"dimensions": 8}),
            ("empty", {}),
        ):
            (await client.post("/v1/collections", {"name": name, **options})).ok(201)
        (await client.post("/v1/collections/pets/aliases", {"alias": "animals"})).ok()
        for collection, texts in (
            ("default", PETS | FRUIT),
            ("pets", PETS),
            ("fruit", FRUIT),
            ("narrow", {"fish": "cat fish"}),
        ):
            await store(client, collection, texts)
        yield running


@pytest.fixture
def client(stocked: Running) -> Client:
    return stocked.client


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "took_ms": 0, "timings_ms": {}}


# --- Batches -------------------------------------------------------------------------------------


async def batch(client: Client, *searches: Any) -> list[Any]:
    answer = (await client.post(BATCH, {"searches": searches})).ok()
    assert set(answer) == {"results"}
    results: list[Any] = answer["results"]
    return results


async def test_a_batch_answers_what_each_search_would_in_their_order(client: Client) -> None:
    searches: list[dict[str, Any]] = [
        {"query": "pear", "limit": 2},
        {"query": "nothing like it"},
        {"query": "dog", "mode": "lexical", "explain": True},
        {"query": {"vector": toy_vector("cat").tolist()}, "with": {"vector": True}},
        {"query": ["cat", "pear"], "mode": "dense", "group_by": None},
        {"query": {"document": "cat"}, "offset": 1, "filter": {"field": "id", "prefix": "cat"}},
    ]
    answers = await batch(client, *searches)
    assert len(answers) == len(searches)
    for search, answer in zip(searches, answers, strict=True):
        alone = await client.search(**search)
        assert timeless(answer) == timeless(alone)


async def test_a_hundred_searches_go_together_and_leave_room_for_others(
    stocked: Running, client: Client
) -> None:
    searches = [{"query": f"cat {'dog ' * number}", "limit": 3} for number in range(100)]
    together = asyncio.create_task(batch(client, *searches))
    slowest = 0.0
    while not together.done():
        loop = asyncio.get_running_loop()
        asked = loop.time()
        assert (await client.found("pear", limit=1)) == ["pear"]
        slowest = max(slowest, loop.time() - asked)
    answers = await together
    assert len(answers) == 100
    assert all(len(answer["results"]) == 3 for answer in answers)
    assert slowest < 1


async def test_the_texts_of_a_batch_are_embedded_together(client: Client, shelf: ToyShelf) -> None:
    [backend] = shelf.open_backends(TOY)
    before, encoded = len(backend.batches), backend.encoded
    searches = [{"query": f"word{number}"} for number in range(40)]
    await batch(client, *searches, *searches)
    assert backend.encoded - encoded == 40
    assert len(backend.batches) - before <= 8


async def test_a_batch_of_more_texts_than_may_wait_is_answered(serve: Serve) -> None:
    async with serve(max_waiting_requests=70) as running:
        await running.client.store(id="a", text="cat")
        searches = [{"query": f"cat {'dog ' * number}"} for number in range(100)]
        assert len(await batch(running.client, *searches)) == 100


async def test_a_fault_of_many_searches_is_told_of_one(client: Client) -> None:
    wrong = {"query": "cat", "instruction": "bird"}  # the model takes none
    error = (await client.post(BATCH, {"searches": [wrong] * 8})).refused(400, "invalid_value")
    assert error["param"] == "searches[0].instruction"
    assert error["message"].count("searches") == 1
    body = {"collections": ["pets", "default"], **wrong}
    error = (await client.post("/v1/search", body)).refused(400, "invalid_value")
    assert error["param"] == "instruction"
    assert error["message"].count("collection") == 1


def test_every_field_of_a_batch_is_proved() -> None:
    assert set(BatchBody.model_fields) == {"searches"}


# --- Several collections -------------------------------------------------------------------------


async def several(client: Client, *collections: str, query: Any = "cat", **fields: Any) -> Any:
    body = {"collections": collections, "query": query, **fields}
    return (await client.post("/v1/search", body)).ok()


def found(answer: Any) -> list[tuple[str, str]]:
    return [(result["collection"], result["document"]["id"]) for result in answer["results"]]


async def test_several_collections_are_fused_by_rank(client: Client) -> None:
    answer = await several(client, "pets", "fruit", mode="dense")
    assert found(answer) == [
        ("pets", "cat"),
        ("fruit", "cats"),
        ("pets", "catdog"),
        ("fruit", "pearcat"),
        ("pets", "dog"),
        ("fruit", "pear"),
    ]
    scores = [result["score"] for result in answer["results"]]
    assert scores == pytest.approx([1 / 11, 1 / 11, 1 / 12, 1 / 12, 1 / 13, 1 / 13])
    turned = await several(client, "fruit", "pets", mode="dense")
    assert found(turned)[:2] == [("fruit", "cats"), ("pets", "cat")]


async def test_the_answer_says_how_each_collection_was_searched(client: Client) -> None:
    answer = await several(client, "pets", "fruit", limit=1, explain=True)
    assert set(answer) == {"results", "score_type", "collections", "took_ms", "next_offset"}
    assert answer["score_type"] == "rrf"
    assert answer["took_ms"] > 0
    assert [each["name"] for each in answer["collections"]] == ["pets", "fruit"]
    assert [each["model"] for each in answer["collections"]] == [TOY, OTHER_TOY]
    for each in answer["collections"]:
        assert set(each) == {"name", "score_type", "model", "plan", "took_ms", "timings_ms"}
        assert each["plan"] == {"dense": "exact", "lexical": "bm25"}
        assert each["score_type"] == "rrf"
        assert each["timings_ms"]["embed"] >= 0
    [result] = answer["results"]
    assert set(result) == {"collection", "document", "score", "chunks", "explain"}
    alone = await client.search("cat", "pets", limit=1, explain=True)
    assert result["explain"] == {"rank": 1, "score": alone["results"][0]["score"]}
    assert result["chunks"] == alone["results"][0]["chunks"]
    plain = await several(client, "pets", "fruit", limit=1)
    assert "explain" not in plain["results"][0]
    assert "timings_ms" not in plain["collections"][0]


async def test_one_collection_gives_what_it_gives_alone(client: Client) -> None:
    for limit, next_offset in ((4, 4), (6, None)):
        answer = await several(client, "default", limit=limit)
        assert [id_ for _, id_ in found(answer)] == await client.found("cat", limit=limit)
        assert answer["next_offset"] == next_offset


async def test_pages_of_several_collections_are_one_long_page(client: Client) -> None:
    names = ("pets", "empty", "fruit", "default", "narrow")
    whole = await several(client, *names, limit=100)
    assert whole["next_offset"] is None
    assert len(set(found(whole))) == len(found(whole)) == 13
    seen, offset = [], 0
    while offset is not None:
        page = await several(client, *names, limit=4, offset=offset)
        seen += found(page)
        offset = page["next_offset"]
        assert len(seen) <= 13
    assert seen == found(whole)


async def test_a_collection_goes_by_the_name_that_was_asked_for(client: Client) -> None:
    answer = await several(client, "animals", "fruit", limit=2)
    assert [name for name, _ in found(answer)] == ["animals", "fruit"]
    body = {"collections": ["pets", "animals"], "query": "cat"}
    error = (await client.post("/v1/search", body)).refused(400, "invalid_value")
    assert error["param"] == "collections[1]"
    assert "animals" in error["message"]


async def test_a_vector_searches_collections_of_its_width_alone(client: Client) -> None:
    query = {"vector": toy_vector("pear").tolist()}
    answer = await several(client, "pets", "fruit", query=query)
    assert ("fruit", "pear") in found(answer)[:2]
    assert len(found(answer)) == 6
    body = {"collections": ["pets", "narrow"], "query": query}
    error = (await client.post("/v1/search", body)).refused(400, "invalid_value")
    assert error["param"] == "query.vector"
    assert "narrow" in error["message"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"limit": 1}, [("pets", "cat")]),
        ({"limit": 1, "offset": 1}, [("fruit", "cats")]),
        ({"query": "pear", "mode": "lexical"}, [("fruit", "pear"), ("fruit", "pearcat")]),
        ({"filter": {"field": "id", "in": ["dog", "pear"]}, "mode": "dense"},
         [("pets", "dog"), ("fruit", "pear")]),
        ({"score_threshold": 0.9, "mode": "dense"}, [("pets", "cat"), ("fruit", "cats")]),
        ({"rerank": {"model": JUDGE}, "score_threshold": 1.5}, [("fruit", "cats")]),
        ({"boost": [{"filter": {"field": "id", "eq": "catdog"}, "weight": 10}], "limit": 1},
         [("pets", "catdog")]),
    ],
)  # fmt: skip
async def test_each_field_holds_in_each_collection(
    client: Client, fields: dict[str, Any], expected: list[Any]
) -> None:
    assert found(await several(client, "pets", "fruit", **fields)) == expected


async def test_k_is_that_of_the_fusion_over_collections_too(client: Client) -> None:
    answer = await several(client, "pets", "fruit", fusion={"k": 1}, limit=1)
    assert answer["results"][0]["score"] == pytest.approx(1 / 2)


async def test_what_results_carry_holds_for_several_too(client: Client) -> None:
    wanted = {"text": False, "metadata": False, "vector": True, "highlight": True, "context": 1}
    answer = await several(client, "pets", limit=1, **{"with": wanted})
    [result] = answer["results"]
    assert set(result["document"]) == {"id", "title"}
    [chunk] = result["chunks"]
    assert {"vector", "highlights", "before", "after"} <= set(chunk)
    assert "text" not in chunk


async def test_collections_without_results_are_no_hindrance(client: Client) -> None:
    answer = await several(client, "empty", "pets")
    assert {name for name, _ in found(answer)} == {"pets"}
    assert (await several(client, "empty"))["results"] == []


async def test_sixteen_collections_can_be_searched_and_others_meanwhile(running: Running) -> None:
    client = running.client
    names = [f"many{number}" for number in range(16)]
    for name in names:
        (await client.post("/v1/collections", {"name": name})).ok(201)
        await client.store(name, id=name, text="cat")
    answers = await asyncio.gather(*(several(client, *names, limit=16) for _ in range(4)))
    for answer in answers:
        assert found(answer) == [(name, name) for name in names]


def test_the_field_that_one_collection_has_not_is_proved() -> None:
    inherited = set(BatchBody.model_fields["searches"].annotation.__args__[0].model_fields)
    assert set(SeveralBody.model_fields) - inherited == {"collections"}


async def test_a_key_must_open_each_of_the_collections(client: Client, running: Running) -> None:
    client = running.client
    admin = await first_key(client)
    for name in ("mine", "other"):
        (await client.post("/v1/collections", {"name": name}, headers=bearing(admin))).ok(201)
    key = (await make(client, admin, scopes=["read"], collections=["mine"]))["key"]
    for collections, status in (
        (["mine"], 200),
        (["mine", "other"], 403),
        (["other"], 403),
        (["mine", "missing"], 403),
    ):
        body = {"collections": collections, "query": "cat"}
        answer = await client.post("/v1/search", body, headers=bearing(key))
        assert answer.status == status, collections
    for collections, status in ((["mine", "other"], 200), (["mine", "missing"], 404)):
        body = {"collections": collections, "query": "cat"}
        answer = await client.post("/v1/search", body, headers=bearing(admin))
        assert answer.status == status, collections
