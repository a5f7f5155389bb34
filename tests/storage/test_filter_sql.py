"""Filters on the real Postgres, against what plain Python says of the same documents."""

import random
from datetime import timedelta
from typing import Any

import orjson
import pytest
import pytest_asyncio
from filter_oracle import (
    EPOCH,
    HOSTILE,
    LISTS,
    ORDERS,
    PATHS,
    Doc,
    escaped,
    holds,
    of,
    some_docs,
    some_filter,
)
from filter_table import Table, make_table

from memoryd.documents.filters import parse_filter
from memoryd.documents.types import FieldType
from memoryd.storage.database import Database
from memoryd.storage.filters import compile_filter


@pytest_asyncio.fixture
async def table(database: Database) -> Table:
    return await make_table(database)


# --- Rules, one by one -----------------------------------------------------------------------

VALUES = {
    "int": 1,
    "double": 1.5,
    "one": "1",
    "text": "abc",
    "upper": "B",
    "umlaut": "ä",
    "emoji": "😀",
    "empty": "",
    "true": True,
    "null": None,
    "list": [1, "abc", None],
    "lists": [["abc"], {"x": 1}],
    "none": [],
    "object": {"y": "abc", "1": 1},
}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (of("eq", 1), "int"),
        (of("eq", 1.0), "int"),
        (of("eq", "1"), "one"),
        (of("eq", True), "true"),
        (of("eq", False), ""),
        (of("eq", None), "null"),
        (of("eq", "abc"), "text"),
        (of("in", [1, "abc", None]), "int null text"),
        (of("in", []), ""),
        (of("any", ["abc"]), "list text"),
        (of("any", [None, 1.0]), "int list null"),
        (of("any", []), ""),
        (of("all", ["abc", 1]), "list"),
        (of("all", ["abc", "abc"]), "list text"),
        (of("all", []), " ".join(sorted(VALUES))),
        (of("exists", True), " ".join(sorted(VALUES))),
        (of("exists", False), "missing"),
        (of("gt", 1), "double"),
        (of("gte", 1), "double int"),
        (of("lt", 2), "double int"),
        (of("gte", "B"), "emoji text umlaut upper"),
        (of("gt", "abc"), "emoji umlaut"),
        (of("gt", "ä"), "emoji"),
        (of("lte", "1"), "empty one"),
        (of("prefix", "a"), "text"),
        (of("prefix", ""), "emoji empty one text umlaut upper"),
        (of("contains", "bc"), "text"),
        (of("contains", "%"), ""),
        (of("prefix", "_"), ""),
        (of("eq", "abc", "x.y"), "object"),
        (of("eq", 1, "x.1"), "object"),
        (of("eq", 1, "x.0"), ""),
        (of("exists", True, "x.0"), ""),
        ({"field": "x", "gte": 1, "lt": 1.5}, "int"),
        ({"and": [of("exists", True), of("gt", 1)]}, "double"),
        ({"or": [of("eq", 1), of("exists", False)]}, "int missing"),
        ({"not": {"not": of("gt", 1)}}, "double"),
    ],
)
async def test_a_filter_keeps_what_it_says(table: Table, value: Any, kept: str) -> None:
    await table.add([Doc(name, {"x": value}) for name, value in VALUES.items()] + [Doc("missing")])
    assert await table.find(value) == kept.split()
    everything = sorted([*VALUES, "missing"])
    assert await table.find({"not": value}) == [
        name for name in everything if name not in kept.split()
    ]


async def test_own_fields_and_metadata_of_their_names_stay_apart(table: Table) -> None:
    later = EPOCH + timedelta(microseconds=1)
    own = Doc("own", {}, "Title", ("a", "b"), EPOCH, later)
    meta = {"id": "own", "title": "Title", "tags": ["a"], "created_at": "2025-01-31T12:00:00Z"}
    await table.add([own, Doc("meta", meta, "", (), later, later)])
    for path, operators in {
        "id": [of("eq", "own", ""), of("prefix", "ow", ""), of("in", ["own", "x"], "")],
        "title": [of("eq", "Title", ""), of("contains", "itl", ""), of("gt", "T", "")],
        "tags": [of("any", ["a", "z"], ""), of("all", ["a"], "")],
        "created_at": [of("eq", "2025-01-31T12:00:00Z", "")],
    }.items():
        for asked in operators:
            assert await table.find({**asked, "field": path}) == ["own"]
            assert await table.find({**asked, "field": f"metadata.{path}"}) == ["meta"]
    assert await table.find(of("all", ["a", "b"], "tags")) == ["own"]
    assert await table.find(of("none", ["a"], "tags")) == ["meta"]
    assert await table.find(of("gt", "2025-01-31T14:00:00+02:00", "created_at")) == ["meta"]
    assert await table.find(of("lte", "2025-01-31T12:00:00.000001Z", "updated_at")) == [
        "meta",
        "own",
    ]
    for path in ("id", "title", "tags", "created_at", "updated_at"):
        assert await table.find(of("exists", True, path)) == ["meta", "own"]
        assert await table.find(of("exists", False, path)) == []


async def test_times_at_the_ends_of_the_calendar_can_be_asked(table: Table) -> None:
    await table.add([Doc("a")])
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        assert await table.find(of("ne", text, "created_at")) == ["a"]
        assert await table.find({"field": "created_at", "in": [text]}) == []
    assert await table.find(of("gt", "0001-01-01T00:00:00Z", "created_at")) == ["a"]
    assert await table.find(of("lt", "9999-12-31T23:59:59.999999Z", "created_at")) == ["a"]


async def test_numbers_that_only_postgres_can_hold_are_compared_exactly(table: Table) -> None:
    await table.add([Doc(name) for name in ("huge", "tiny", "near")])
    async with table.database.connection() as connection:
        for name, number in {
            "huge": "-1e131071",
            "tiny": "1e-16000",
            "near": "9007199254740993.00000000000000000001",
        }.items():
            await connection.execute(
                "UPDATE c_1.documents SET metadata = ('{\"x\": ' || $2::text || '}')::jsonb"
                " WHERE external_id = $1",
                name,
                number,
            )
    assert await table.find(of("lt", -1e308)) == ["huge"]
    assert await table.find({"field": "x", "gt": 0, "lt": 5e-324}) == ["tiny"]
    assert await table.find(of("gt", 9007199254740993)) == ["near"]
    assert await table.find(of("gt", 9007199254740994)) == []
    for operator in ("prefix", "contains", "gt"):
        assert await table.find(of(operator, "1")) == []


# --- Hostile text ----------------------------------------------------------------------------


async def test_text_is_taken_as_itself_in_keys_and_values(table: Table) -> None:
    docs = [
        Doc(f"{number:03}", {text: {text: [text], "v": f"<{text}>"}}, f"<{text}>", (text,))
        for number, text in enumerate(HOSTILE)
    ]
    await table.add(docs)
    for doc, text in zip(docs, HOSTILE, strict=True):
        inner, outer = escaped(text, text), escaped(text, "v")
        for value in (
            of("exists", True, escaped(text)),
            of("any", [text], inner),
            of("all", [text], inner),
            of("any", [*HOSTILE, *(f"no {other}" for other in HOSTILE)], inner),
            of("eq", f"<{text}>", outer),
            of("prefix", f"<{text}", outer),
            of("contains", f"{text}>", outer),
            of("gte", f"<{text}>", outer),
            of("eq", f"<{text}>", "title"),
            of("prefix", f"<{text}>", "title"),
            of("any", [text], "tags"),
        ):
            assert await table.find(value) == [doc.id], value
        holding = {other.id for other in docs if text in other.title}
        assert set(await table.find(of("contains", text, "title"))) == holding


def test_nothing_of_a_filter_is_in_the_sql() -> None:
    def compiled(text: str) -> str:
        fields = [escaped(text), escaped(text, text), escaped("k", text)]
        value = {
            "and": [
                {
                    "field": path,
                    **dict.fromkeys([*ORDERS, "eq", "ne", "prefix", "contains"], text),
                    **{operator: [text] for operator in LISTS},
                }
                for path in fields
            ]
        }
        return compile_filter(parse_filter(value), [])

    assert len({compiled(text) for text in HOSTILE}) == 1
    assert set(compiled("☃")) <= set(map(chr, range(32, 127)))


# --- Against plain Python --------------------------------------------------------------------

# By the second path of a key, its other type is declared too.
DECLARED: dict[str, FieldType] = {
    **dict.fromkeys([path.removeprefix("metadata.") for path in PATHS[:2]], "number"),
    **dict.fromkeys([*PATHS[:4], PATHS[7], PATHS[-1]], "string"),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_indexed", [False, True])
async def test_postgres_finds_what_plain_python_finds(
    table: Table, seed: int, is_indexed: bool
) -> None:
    rng = random.Random(seed)  # noqa: S311 # it makes documents, not secrets
    docs = some_docs(rng, 150)
    await table.add(docs)
    settings = ["plan_cache_mode = force_generic_plan", "enable_bitmapscan = off"]
    if is_indexed:
        await table.declare(DECLARED)
        settings = ["plan_cache_mode = force_custom_plan", "enable_seqscan = off"]
    kept = []
    for _ in range(300):
        asked = some_filter(rng)
        expected = sorted(doc.id for doc in docs if holds(doc, asked))
        found = await table.find(asked, *settings)
        assert sorted(found) == expected, orjson.dumps(asked)
        kept.append(len(found))
    assert sum(0 < count < len(docs) for count in kept) > len(kept) / 3


# --- Long lists ------------------------------------------------------------------------------

MANY = list(range(10_000))


@pytest.mark.parametrize("plans", ["force_generic_plan", "force_custom_plan"])
async def test_thousands_of_values_cost_no_more_than_a_few(table: Table, plans: str) -> None:
    docs = [Doc(f"{n:05}", {"x": n, "y": [n, "z"]}, str(n), (str(n), "z")) for n in range(20_000)]
    await table.add(docs)
    texts = list(map(str, MANY))
    # Comparing each with each takes many times as long.
    settings = ["statement_timeout = '6s'", f"plan_cache_mode = {plans}"]
    for value in (
        of("in", MANY),
        of("any", MANY, "y"),
        of("in", texts, "title"),
        of("in", [doc.id for doc in docs[:10_000]], "id"),
        of("any", texts, "tags"),
    ):
        assert await table.find(value, *settings) == [doc.id for doc in docs[:10_000]]
    assert await table.find(of("all", MANY, "y"), *settings) == []


async def test_a_long_list_is_found_in_a_long_list(table: Table) -> None:
    lists = {f"{n}": MANY[::-1] for n in range(10)} | {"less": MANY[1:] + MANY[1:2]}
    await table.add([Doc(name, {"x": values}) for name, values in lists.items()])
    limit = "statement_timeout = '3s'"
    assert await table.find(of("all", MANY), limit) == sorted(lists.keys() - {"less"})
    assert await table.find(of("none", MANY), limit) == []


def test_strings_are_ordered_by_code_point_whatever_the_database_prefers() -> None:
    for path in ("x", "id", "title"):
        for operator in ORDERS:
            assert 'COLLATE "C"' in compile_filter(parse_filter(of(operator, "a", path)), [])
