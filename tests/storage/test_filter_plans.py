"""Which indexes serve filters, in plans that Postgres makes from what it knows of the documents."""

from typing import Any

import pytest
import pytest_asyncio
from filter_oracle import Doc, of
from filter_table import Table, make_table

from memoryd.documents.filters import parse_filter
from memoryd.storage.database import Database
from memoryd.storage.documents import list_documents
from memoryd.storage.facets import count_stored

METADATA = "documents_metadata_idx"
TAGS = "documents_tags_idx"
ID = "documents_external_id_key"
DOCS = 4_000


def some_doc(n: int) -> Doc:
    metadata = {
        "x": n,
        "kind": f"kind {n % 100}",
        "lang": "en",
        "list": [n, f"item {n}"],
        "deep": {"name": f"name {n:04}", "day": f"{n % 28 + 1:02}"},
    }
    return Doc(f"id {n:04}", metadata, f"title {n}", (f"tag {n}", "all"))


@pytest_asyncio.fixture
async def table(database: Database) -> Table:
    table = await make_table(database)
    # Rows in another order than their values: an index over these reads the table here and there.
    await table.add([some_doc(n * 1_237 % DOCS) for n in range(DOCS)])
    return table


async def indexes_of(table: Table, value: Any, rest: str = "") -> set[str]:
    """Return the names of the indexes that a plan for the filter reads."""
    planned = ("plan_cache_mode = force_custom_plan",)
    words = (await table.explain(value, *planned, rest=rest)).split()
    return {word for word in words if word.startswith("documents_")}


async def test_containment_and_ids_have_their_indexes(table: Table) -> None:
    texts = list(map(str, range(10_000)))
    for value, index in (
        (of("eq", 1), METADATA),
        (of("eq", 1.0), METADATA),
        (of("eq", "name 0001", "deep.name"), METADATA),
        (of("eq", None), METADATA),
        (of("eq", True), METADATA),
        (of("in", [1, "a"]), METADATA),
        (of("in", list(range(10))), METADATA),
        (of("any", [1, "item 2"], "list"), METADATA),
        (of("all", [1, "item 1"], "list"), METADATA),
        (of("all", ["item 1"], "list"), METADATA),
        ({"field": "x", "eq": 1, "gt": 0}, METADATA),
        ({"or": [of("eq", 1), of("eq", 2)]}, METADATA),
        ({"and": [of("eq", 1), {"not": of("eq", "en", "lang")}]}, METADATA),
        ({"and": [of("contains", "itl", "title"), of("eq", 1)]}, METADATA),
        (of("any", ["tag 1"], "tags"), TAGS),
        (of("all", ["tag 1", "all"], "tags"), TAGS),
        (of("eq", "id 0001", "id"), ID),
        (of("in", ["id 0001", "id 0002"], "id"), ID),
        (of("in", texts, "id"), ID),
        (of("prefix", "id 00", "id"), ID),
        ({"field": "id", "gte": "id 0001", "lt": "id 0009"}, ID),
    ):
        assert await indexes_of(table, value) == {index}, value
    both = {"or": [of("eq", 1), of("any", ["tag 2"], "tags"), of("eq", "id 0003", "id")]}
    assert await indexes_of(table, both) == {METADATA, TAGS, ID}


async def test_what_keeps_most_documents_reads_them_all(table: Table) -> None:
    assert await indexes_of(table, of("eq", "en", "lang")) == set()
    assert await indexes_of(table, of("ne", 1)) == set()
    assert await indexes_of(table, of("any", ["all"], "tags")) == set()


async def test_a_declared_field_has_an_index_for_comparisons(table: Table) -> None:
    numbers: list[Any] = [
        of("gt", 3_990),
        of("gte", 3_990),
        of("lt", 10),
        of("lte", 10.5),
        {"field": "x", "gte": 100, "lt": 120},
        {"and": [of("gt", 3_990), of("contains", "itl", "title")]},
    ]
    strings: list[Any] = [
        of("gt", "name 3990", "deep.name"),
        of("gte", "name 3990", "deep.name"),
        of("lt", "name 0010", "deep.name"),
        of("lte", "name 0010", "deep.name"),
        of("prefix", "name 00", "deep.name"),
        {"field": "deep.name", "gt": "name 0010", "lt": "name 0020"},
        of("gt", "name 399" + "9" * 300, "deep.name"),
    ]
    for value in numbers + strings:
        assert await indexes_of(table, value) == set(), value
    await table.declare({"x": "number"})
    [number] = {name for value in numbers for name in await indexes_of(table, value)}
    for value in strings:
        assert await indexes_of(table, value) == set(), value
    await table.declare({"x": "number", "deep.name": "string"})
    for value in numbers:
        assert await indexes_of(table, value) == {number}, value
    names = [await indexes_of(table, value) for value in strings]
    assert len(names[0]) == 1
    assert names == names[:1] * len(names)
    assert names[0] != {number}
    both = {"or": [numbers[0], strings[0]]}
    assert await indexes_of(table, both) == {number} | names[0]
    # Strings are no numbers, and other fields are none of these.
    assert await indexes_of(table, of("gt", "a", "x")) == set()
    assert await indexes_of(table, of("gt", 1, "deep.name")) == set()
    assert await indexes_of(table, of("gt", "27", "deep.day")) == set()


async def test_a_page_of_a_list_has_an_index_where_few_documents_are_wanted(table: Table) -> None:
    page = "AND id > 10 ORDER BY id LIMIT 51"
    for value, index in ((of("eq", 1), METADATA), (of("any", ["tag 1"], "tags"), TAGS)):
        assert await indexes_of(table, value, page) == {index}
    for value in (of("eq", "en", "lang"), of("gt", 0), of("exists", True)):
        assert await indexes_of(table, value, page) == {"documents_pkey"}


async def test_how_many_documents_a_comparison_keeps_is_known(table: Table) -> None:
    page = "AND id > 10 ORDER BY id LIMIT 51"
    await table.declare({"x": "number", "deep.name": "string"})
    for few, many in (
        (of("gt", 3_990), of("gt", 100)),
        (of("gt", "name 3990", "deep.name"), of("gt", "name 0100", "deep.name")),
    ):
        [index] = await indexes_of(table, few, page)
        assert index.startswith("documents_field_")
        assert await indexes_of(table, many, page) == {"documents_pkey"}


@pytest.mark.parametrize("name", ["count", "list"])
async def test_plans_are_made_for_the_values_however_often_a_filter_is_asked(
    table: Table, name: str
) -> None:
    for n in range(12):
        wanted = parse_filter({"field": "x", "gte": n, "lt": 2 * n})
        if name == "count":
            assert await count_stored(table.database, table.collection, wanted) == n
        else:
            found = await list_documents(
                table.database, table.collection, after=0, limit=50, wanted=wanted
            )
            assert len(found) == n
    async with table.database.connection() as connection:
        plans = await connection.fetch(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
            " WHERE starts_with(statement, 'SELECT') AND strpos(statement, $1) > 0",
            "coalesce(jsonb_typeof(",
        )
    assert list(map(tuple, plans)) == [(0, 12)]
