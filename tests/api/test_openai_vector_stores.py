"""POST /v1/vector_stores/{id}/search over memoryd's collections."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from servers import Running, Serve
from toys import toy_vector
from wire import Answer, Client

PETS = {
    "a": {"title": "Cats", "text": "cat cat cat"},
    "b": {"title": "", "text": "cat dog", "metadata": {"kind": "both"}},
    "c": {"title": "Dogs", "text": "dog dog dog dog"},
    "d": {"title": "Fruit", "text": "apple pear"},
}


@pytest_asyncio.fixture(scope="module")
async def pets(serve: Serve) -> AsyncIterator[Running]:
    """Give a server with a few documents in the collection `pets`, also called `animals`."""
    async with serve() as running:
        client = running.client
        (await client.post("/v1/collections", {"name": "pets"})).ok(201)
        (await client.post("/v1/collections/pets/aliases", {"alias": "animals"})).ok()
        for id_, document in PETS.items():
            await client.store("pets", id=id_, **document)
        yield running


@pytest.fixture
def client(pets: Running) -> Client:
    return pets.client


async def search(client: Client, query: Any = "cat", store: str = "pets", **fields: Any) -> Answer:
    return await client.post(f"/v1/vector_stores/{store}/search", {"query": query, **fields})


async def found(client: Client, query: Any = "cat", **fields: Any) -> list[str]:
    data = (await search(client, query, **fields)).ok()["data"]
    return [item["file_id"] for item in data]


async def test_the_answer_is_openais_page_of_chunks_with_their_files(client: Client) -> None:
    page = (await search(client)).ok()
    assert set(page) == {"object", "search_query", "data", "has_more", "next_page"}
    assert page["object"] == "vector_store.search_results.page"
    assert (page["search_query"], page["has_more"], page["next_page"]) == (["cat"], False, None)
    both = page["data"][1]
    assert both == {
        "file_id": "b",
        "filename": "b",
        "score": pytest.approx(toy_vector("cat") @ toy_vector("cat dog"), abs=1e-3),
        "attributes": {"kind": "both"},
        "content": [{"type": "text", "text": "cat dog"}],
    }
    assert page["data"][0]["filename"] == "Cats"


async def test_the_nearest_come_first_and_scores_are_cosines_from_0_to_1(client: Client) -> None:
    data = (await search(client)).ok()["data"]
    assert [item["file_id"] for item in data[:2]] == ["a", "b"]
    scores = [item["score"] for item in data]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


async def test_each_chunk_is_a_result_of_its_own(running: Running) -> None:
    chunking = {"max_tokens": 32, "overlap_tokens": 0}
    body = {"name": "long", "chunking": chunking}
    (await running.client.post("/v1/collections", body)).ok(201)
    await running.client.store("long", id="x", text="cat dog. " * 30)
    data = (await search(running.client, store="long")).ok()["data"]
    assert len(data) > 1
    assert {item["file_id"] for item in data} == {"x"}
    assert all(len(item["content"]) == 1 for item in data)


async def test_as_many_are_found_as_asked_for_and_ten_by_default(running: Running) -> None:
    for number in range(12):
        await running.client.store(id=str(number), text="cat " * (number + 1))
    assert len(await found(running.client, store="default")) == 10
    assert len(await found(running.client, store="default", max_num_results=None)) == 10
    assert len(await found(running.client, store="default", max_num_results=3)) == 3
    assert len(await found(running.client, store="default", max_num_results=50)) == 12


async def test_a_threshold_keeps_what_is_farther_away(client: Client) -> None:
    options = {"score_threshold": 0.6, "ranker": "auto"}
    assert await found(client, ranking_options=options) == ["a", "b"]
    assert await found(client, ranking_options={"score_threshold": 0.9}) == ["a"]
    for none in (None, {}, {"score_threshold": None}, {"score_threshold": 0}):
        assert len(await found(client, ranking_options=none)) == 4


async def test_several_queries_find_what_is_near_to_any_of_them(client: Client) -> None:
    assert set(await found(client, ["cat", "pear apple"], max_num_results=2)) == {"a", "d"}
    page = (await search(client, ["dog", "cat", "dog"])).ok()
    assert page["search_query"] == ["dog", "cat", "dog"]
    assert len(page["data"]) == 4
    assert {item["file_id"] for item in page["data"][:2]} == {"a", "c"}
    assert all(item["score"] > 0.99 for item in page["data"][:2])


async def test_a_collection_goes_by_its_alias_too(client: Client) -> None:
    assert (await found(client, store="animals"))[0] == "a"
    error = (await search(client, store="nobody")).refused(404, "not_found")
    assert "nobody" in error["message"]


async def test_attributes_are_what_typed_clients_can_parse(running: Running) -> None:
    plain = {"team": "sec", "year": 2025, "share": 0.5, "is_old": False}
    metadata = {**plain, "none": None, "tags": ["a", "b"], "at": {"city": "Köln"}}
    await running.client.store(id="x", text="cat", metadata=metadata)
    [item] = (await search(running.client, store="default")).ok()["data"]
    assert item["attributes"] == {**plain, "tags": '["a","b"]', "at": '{"city":"Köln"}'}


async def test_a_negative_cosine_is_the_score_0(real_client: Client) -> None:
    (await real_client.post("/v1/collections", {"name": "far"})).ok(201)
    await real_client.store("far", id="x", text="The quarterly tax report is due on Monday.")
    query = "purple elephants"
    found = await real_client.search(query, "far", mode="dense")
    assert found["results"][0]["score"] < 0
    for threshold in (None, 0):
        options = {"score_threshold": threshold}
        page = (await search(real_client, query, store="far", ranking_options=options)).ok()
        assert [item["score"] for item in page["data"]] == [0]


@pytest.mark.parametrize("value", [True, False, None])
async def test_a_query_is_searched_as_it_is_and_the_answer_says_so(
    client: Client, value: bool | None
) -> None:
    page = (await search(client, "cats, please", rewrite_query=value)).ok()
    assert page["search_query"] == ["cats, please"]


YEARS = {
    "x": {"year": 2023, "team": "sec", "is_old": True, "a.b": "dotted", "id": "own"},
    "y": {"year": 2024.5, "team": "ops", "is_old": False, "a": {"b": "nested"}},
    "z": {"year": "2024", "share": 12345678901234567},
}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (("eq", "team", "sec"), "x"),
        (("eq", "year", 2023.0), "x"),
        (("eq", "year", "2024"), "z"),
        (("eq", "is_old", True), "x"),
        (("eq", "share", 12345678901234567), "z"),
        (("eq", "share", 12345678901234568), ""),
        (("ne", "team", "sec"), "yz"),
        (("gt", "year", 2023), "y"),
        (("gte", "year", 2023), "xy"),
        (("lt", "year", 2024), "x"),
        (("lte", "year", 2024.5), "xy"),
        (("gte", "year", "2"), "z"),
        (("in", "team", ["ops", "sec", "hr"]), "xy"),
        (("in", "year", [2023, "2024"]), "xz"),
        (("in", "team", []), ""),
        (("nin", "team", ["ops"]), "xz"),
        (("eq", "a.b", "dotted"), "x"),
        (("eq", "id", "own"), "x"),
        (("eq", "missing", "sec"), ""),
        (("and", [("gte", "year", 2000), ("eq", "is_old", False)]), "y"),
        (("or", [("eq", "team", "sec"), ("eq", "year", "2024")]), "xz"),
        (("and", [("or", [("eq", "team", "sec"), ("eq", "team", "ops")]),
                  ("ne", "team", "sec")]), "y"),
    ],
)  # fmt: skip
async def test_filters_keep_what_has_the_attributes(
    years: Client, filters: tuple[Any, ...], expected: str
) -> None:
    assert "".join(sorted(await found(years, filters=filter_of(filters)))) == expected


def filter_of(short: tuple[Any, ...]) -> dict[str, Any]:
    if len(short) == 2:
        return {"type": short[0], "filters": list(map(filter_of, short[1]))}
    return {"type": short[0], "key": short[1], "value": short[2]}


@pytest_asyncio.fixture(scope="module")
async def years(serve: Serve) -> AsyncIterator[Client]:
    async with serve() as running:
        (await running.client.post("/v1/collections", {"name": "pets"})).ok(201)
        for id_, metadata in YEARS.items():
            await running.client.store("pets", id=id_, text="cat", metadata=metadata)
        yield running.client


async def test_filters_hold_for_each_of_several_queries(client: Client) -> None:
    filters = filter_of(("ne", "kind", "both"))
    assert "b" not in await found(client, ["cat", "cat dog"], filters=filters)


async def test_filters_are_nested_as_deep_as_memoryds_own(client: Client) -> None:
    innermost = '{"type": "eq", "key": "kind", "value": "both"}'
    for depth in (15, 16, 250, 500, 5_000):
        filters = '{"type": "or", "filters": [' * depth + innermost + "]}" * depth
        body = f'{{"query": "cat", "filters": {filters}}}'
        answer = await client.ask("POST", "/v1/vector_stores/pets/search", data=body)
        if depth == 15:
            assert [item["file_id"] for item in answer.ok()["data"]] == ["b"]
        else:
            assert answer.status in (400, 413), depth


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": None}, "query"),
        ({"query": ""}, "query"),
        ({"query": " \n"}, "query"),
        ({"query": 5}, "query"),
        ({"query": []}, "query"),
        ({"query": ["cat", ""]}, "query[1]"),
        ({"query": ["cat", 5]}, "query[1]"),
        ({"max_num_results": 0}, "max_num_results"),
        ({"max_num_results": 51}, "max_num_results"),
        ({"max_num_results": "5"}, "max_num_results"),
        ({"ranking_options": "auto"}, "ranking_options"),
        ({"ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
        ({"ranking_options": {"score_threshold": 1.5}}, "ranking_options.score_threshold"),
        ({"ranking_options": {"score_threshold": -0.1}}, "ranking_options.score_threshold"),
        ({"rewrite_query": "yes"}, "rewrite_query"),
        ({"filters": ["kind"]}, "filters"),
        ({"filters": {}}, "filters.type"),
        ({"filters": {"type": "near", "key": "kind", "value": "both"}}, "filters.type"),
        ({"filters": {"type": ["eq"], "key": "kind", "value": "both"}}, "filters.type"),
        ({"filters": {"type": "eq", "value": "both"}}, "filters.key"),
        ({"filters": {"type": "eq", "key": "", "value": "both"}}, "filters.key"),
        ({"filters": {"type": "eq", "key": "kind"}}, "filters.value"),
        ({"filters": {"type": "eq", "key": "kind", "value": None}}, "filters.value"),
        ({"filters": {"type": "eq", "key": "kind", "value": ["both"]}}, "filters.value"),
        ({"filters": {"type": "gt", "key": "year", "value": True}}, "filters.value"),
        ({"filters": {"type": "in", "key": "kind", "value": "both"}}, "filters.value"),
        ({"filters": {"type": "in", "key": "kind", "value": ["x", None]}}, "filters.value[1]"),
        ({"filters": {"type": "and", "filters": []}}, "filters.filters"),
        ({"filters": {"type": "or"}}, "filters.filters"),
        ({"filters": {"type": "or", "filters": [{"type": "eq"}]}}, "filters.filters[0].key"),
    ],
)
async def test_what_cannot_be_searched_is_refused_by_name(
    client: Client, fields: dict[str, Any], param: str
) -> None:
    body = {"query": "cat", **fields}
    error = (await client.post("/v1/vector_stores/pets/search", body)).refused(400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


async def test_a_query_is_needed_and_a_hundred_are_enough(client: Client) -> None:
    answer = await client.post("/v1/vector_stores/pets/search", {})
    assert answer.refused(400, "missing_field")["param"] == "query"
    assert (await search(client, ["cat"] * 101)).refused(413, "too_large")["param"] == "query"
    assert (await found(client, ["cat"] * 100))[0] == "a"


async def test_fields_that_are_unknown_and_any_content_type_are_taken(client: Client) -> None:
    headers = {"Content-Type": "text/plain", "OpenAI-Beta": "assistants=v2"}
    body = {"query": "cat", "filters": None, "x": 1, "ranking_options": {"y": 2}}
    answer = await client.post("/v1/vector_stores/pets/search", body, headers=headers)
    assert answer.ok()["data"][0]["file_id"] == "a"


async def test_openais_client_searches(client: Client) -> None:
    url = f"{client.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as by_openai:
        stores = by_openai.vector_stores
        page = await stores.search(
            "pets",
            query="cat dog dog",
            max_num_results=2,
            ranking_options={"ranker": "auto", "score_threshold": 0.5},
            rewrite_query=False,
        )
        assert [item.file_id for item in page.data] == ["b", "c"]
        best = page.data[0]
        assert (best.filename, best.attributes) == ("b", {"kind": "both"})
        assert (best.content[0].type, best.content[0].text) == ("text", "cat dog")
        expected = toy_vector("cat dog dog") @ toy_vector("cat dog")
        assert best.score == pytest.approx(expected, abs=1e-3)
        assert [item.file_id async for item in page] == ["b", "c"]
        with pytest.raises(openai.NotFoundError):
            await stores.search("nobody", query="cat")
        is_both: Any = {"type": "eq", "key": "kind", "value": "both"}
        page = await stores.search("pets", query="cat", filters=is_both)
        assert [item.file_id for item in page.data] == ["b"]
        either: Any = {"type": "or", "filters": [is_both, {**is_both, "type": "ne"}]}
        page = await stores.search("pets", query="cat", filters=either)
        assert len(page.data) == 4
        with pytest.raises(openai.BadRequestError) as refusal:
            await stores.search("pets", query="cat", filters={**is_both, "type": "near"})
        assert refusal.value.param == "filters.type"
