import asyncio
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from filter_oracle import HOSTILE, escaped, of
from servers import Running
from wire import Client

DEFAULT = "/v1/collections/default"
COUNT, FACETS, DOCUMENTS = f"{DEFAULT}/count", f"{DEFAULT}/facets", f"{DEFAULT}/documents"


async def fill(client: Client, *metadata: dict[str, Any], **fields: Any) -> None:
    batch = [
        {"id": f"{n}", "text": "cat", "metadata": each, **fields} for n, each in enumerate(metadata)
    ]
    outcomes = (await client.post(DOCUMENTS, {"documents": batch})).ok()["documents"]
    assert {outcome["status"] for outcome in outcomes} == {"stored"}


async def count(client: Client, **body: Any) -> int:
    answer = (await client.post(COUNT, body)).ok()
    assert set(answer) == {"count"}
    number: int = answer["count"]
    return number


async def facets(client: Client, field: str, **body: Any) -> list[tuple[Any, int]]:
    answer = (await client.post(FACETS, {"field": field, **body})).ok()
    assert set(answer) == {"facets"}
    assert all(set(facet) == {"value", "count"} for facet in answer["facets"])
    return [(facet["value"], facet["count"]) for facet in answer["facets"]]


# --- Count -----------------------------------------------------------------------------------


async def test_what_a_filter_keeps_is_counted_and_without_one_all(client: Client) -> None:
    assert await count(client) == 0
    await fill(client, {"x": 1}, {"x": 2}, {"x": "1"}, {})
    assert await count(client) == 4
    assert await count(client, filter=None) == 4
    assert await count(client, filter=of("eq", 1)) == 1
    assert await count(client, filter=of("ne", 1)) == 3
    assert await count(client, filter=of("in", ["0", "3"], "id")) == 2


async def test_documents_that_wait_are_not_counted(running: Running) -> None:
    client = running.client
    await fill(client, {"x": 1}, tags=["a"])
    async with running.memory.database.connection() as connection:
        await connection.execute(
            "INSERT INTO c_1.documents (external_id, version, content_hash, title, text, metadata,"
            " tags, created_at, updated_at)"
            " VALUES ('waiting', 0, '', '', '', '{\"x\": 1}', '{a}', now(), now())"
        )
    assert await count(client) == 1
    assert await count(client, filter=of("eq", 1)) == 1
    assert await facets(client, "x") == [(1, 1)]
    assert await facets(client, "tags") == [("a", 1)]


FILTERS: list[dict[str, Any]] = [
    of("eq", 1),
    of("gte", 2),
    of("any", [1, "a"]),
    of("contains", "a"),
    {"not": of("exists", True)},
    of("prefix", "1", "id"),
    {"or": [of("eq", None), of("eq", True)]},
    {"and": [of("lt", 3), {"not": of("in", [0, 2])}]},
]
VALUES: list[Any] = [
    0,
    1,
    2,
    3,
    1.0,
    "a",
    "1",
    "ba",
    True,
    False,
    None,
    [1, 2],
    ["a"],
    [],
    {"x": 1},
]


@pytest.mark.parametrize("asked", FILTERS, ids=str)
async def test_a_filter_counts_what_it_lists_and_deletes(client: Client, asked: Any) -> None:
    await fill(client, *({"x": value} for value in VALUES), {})
    listed = (await client.get(f"{DOCUMENTS}?limit=100&filter={quote(orjson.dumps(asked))}")).ok()
    number = len(listed["documents"])
    assert 0 < number < len(VALUES) + 1
    assert await count(client, filter=asked) == number
    deletion = {"filter": asked}
    trial = await client.post(f"{DOCUMENTS}/delete", {**deletion, "dry_run": True})
    assert trial.ok() == {"deleted": number}
    assert (await client.post(f"{DOCUMENTS}/delete", deletion)).ok() == {"deleted": number}
    assert await count(client, filter=asked) == 0
    assert await count(client) == len(VALUES) + 1 - number


# --- Facets ----------------------------------------------------------------------------------


async def test_values_are_counted_by_type_the_most_frequent_first_then_by_value(
    client: Client,
) -> None:
    values = [2, 2.0, 2, "2", "b", "B", "ä", "a", "a", True, False, None, 10, 9, -1.5, True, True]
    await fill(client, *({"x": value} for value in values), {})
    assert await facets(client, "x", limit=20) == [
        (True, 3),
        (2, 3),
        ("a", 2),
        (False, 1),
        (None, 1),
        (-1.5, 1),
        (9, 1),
        (10, 1),
        ("2", 1),
        ("B", 1),
        ("b", 1),
        ("ä", 1),
    ]
    types = [type(value) for value, _ in await facets(client, "x", limit=4)]
    assert types == [bool, int, str, bool]


async def test_numbers_are_shown_as_json_has_them(client: Client) -> None:
    numbers = [-1e300, -(2**63), -0.5, 5e-324, 1, 2**53 + 1, 2**64 - 1, 1.5e300]
    await fill(client, {"x": numbers}, {"x": 1.0})
    found = await facets(client, "x")
    assert found == [(1, 2), *((number, 1) for number in numbers if number != 1)]
    assert isinstance(found[0][0], int)


async def test_an_element_of_a_list_counts_once_in_a_document_and_objects_do_not(
    client: Client,
) -> None:
    values = [["a", "a", "b"], ["a", 1, None, None], "a", [["a"], {"a": 1}], {"a": "a"}, [], ["1"]]
    await fill(client, *({"x": value} for value in values))
    assert await facets(client, "x") == [("a", 3), (None, 1), (1, 1), ("1", 1), ("b", 1)]


async def test_paths_lead_into_objects_and_not_into_lists(client: Client) -> None:
    await fill(
        client,
        {"a": {"b": {"0": "deep"}}, "a.b": "dotted"},
        {"a": {"b": ["zeroth"]}},
        {"a": [{"b": "inside"}], "tags": ["own"]},
        tags=["t", "u", "t"],
    )
    assert await facets(client, "a.b.0") == [("deep", 1)]
    assert await facets(client, "a.b") == [("zeroth", 1)]
    assert await facets(client, r"a\.b") == [("dotted", 1)]
    assert await facets(client, "metadata.a.b") == [("zeroth", 1)]
    assert await facets(client, "tags") == [("t", 3), ("u", 3)]
    assert await facets(client, "metadata.tags") == [("own", 1)]
    assert await facets(client, "nowhere") == []


async def test_a_filter_says_which_documents_count(client: Client) -> None:
    await fill(client, *({"x": n % 3, "even": n % 2 == 0} for n in range(9)), tags=["t"])
    assert await facets(client, "x", filter=None) == [(0, 3), (1, 3), (2, 3)]
    even = of("eq", True, "even")
    assert await facets(client, "x", filter=even) == [(0, 2), (2, 2), (1, 1)]
    assert await facets(client, "tags", filter=even) == [("t", 5)]
    for value, number in await facets(client, "x", filter=even):
        assert await count(client, filter={"and": [even, of("eq", value)]}) == number


async def test_ten_values_come_unless_more_or_fewer_are_wanted(client: Client) -> None:
    await fill(client, {"x": list(range(1_100))}, {"x": 7})
    assert await facets(client, "x") == [(7, 2), *((n, 1) for n in range(10) if n != 7)]
    assert await facets(client, "x", limit=1) == [(7, 2)]
    assert len(await facets(client, "x", limit=1_000)) == 1_000


async def test_text_of_any_kind_is_a_value_and_a_key(client: Client) -> None:
    await fill(client, {text: text for text in HOSTILE}, {"x": HOSTILE})
    assert {value for value, _ in await facets(client, "x", limit=1_000)} == set(HOSTILE)
    for text in HOSTILE:
        assert await facets(client, escaped(text)) == [(text, 1)]


# --- What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        (COUNT, {"filters": {}}, 400, "unknown_field", "filters"),
        (COUNT, {"filter": []}, 400, "invalid_value", "filter"),
        (COUNT, {"filter": {}}, 400, "missing_field", "filter"),
        (COUNT, {"filter": {"field": "x", "eqq": 1}}, 400, "unknown_field", "filter.eqq"),
        (COUNT, {"filter": of("in", [0] * 10_001)}, 413, "too_large", "filter.in"),
        (COUNT, [], 400, "invalid_value", None),
        (FACETS, {}, 400, "missing_field", "field"),
        (FACETS, {"field": 1}, 400, "invalid_value", "field"),
        (FACETS, {"field": ""}, 400, "invalid_value", "field"),
        (FACETS, {"field": "a..b"}, 400, "invalid_value", "field"),
        (FACETS, {"field": "id"}, 400, "invalid_value", "field"),
        (FACETS, {"field": "title"}, 400, "invalid_value", "field"),
        (FACETS, {"field": "created_at"}, 400, "invalid_value", "field"),
        (FACETS, {"field": ".".join("x" * 17)}, 413, "too_large", "field"),
        (FACETS, {"field": "x", "limit": 0}, 400, "invalid_value", "limit"),
        (FACETS, {"field": "x", "limit": 1_001}, 400, "invalid_value", "limit"),
        (FACETS, {"field": "x", "limit": "5"}, 400, "invalid_value", "limit"),
        (FACETS, {"field": "x", "limit": None}, 400, "invalid_value", "limit"),
        (FACETS, {"field": "x", "missing": True}, 400, "unknown_field", "missing"),
        (FACETS, {"field": "x", "filter": of("gt", None)}, 400, "invalid_value", "filter.gt"),
        (COUNT.replace("default", "none"), {}, 404, "not_found", "collection"),
        (FACETS.replace("default", "none"), {"field": "x"}, 404, "not_found", "collection"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_told(
    shared_client: Client, path: str, body: Any, status: int, code: str, param: str | None
) -> None:
    error = (await shared_client.post(path, body)).refused(status, code)
    assert error["param"] == param


@pytest.mark.parametrize(("path", "body"), [(COUNT, {}), (FACETS, {"field": "x"})])
async def test_what_takes_the_database_too_long_is_given_up(
    running: Running, path: str, body: Any
) -> None:
    # A statement that is over its time ends so too.
    cancel = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database() AND query LIKE '%c_1.documents%version > 0%'"
    )
    database = running.memory.database
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE c_1.documents")
        asking = asyncio.create_task(running.client.post(path, body))
        async with database.connection() as other, asyncio.timeout(10):
            while not await other.fetchval(cancel):  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
        answer = await asking
    assert answer.refused(503, "overloaded")["message"].startswith("the database took too long")
    assert "Retry-After" in answer.headers
    (await running.client.post(path, body)).ok()
