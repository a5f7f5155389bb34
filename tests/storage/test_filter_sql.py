"""Filters on the real Postgres, against what plain Python says of the same documents."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
import pytest_asyncio

from memoryd.documents.filters import parse_filter
from memoryd.documents.types import Chunking
from memoryd.storage.collections import create_collection
from memoryd.storage.database import Database
from memoryd.storage.filters import compile_filter

EPOCH = datetime(2025, 1, 31, 12, tzinfo=UTC)
MISSING = object()
ORDERS = ["gt", "gte", "lt", "lte"]
LISTS = ["in", "nin", "any", "all", "none"]


@dataclass(frozen=True)
class Doc:
    """Be what a filter sees of a document."""

    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    tags: tuple[str, ...] = ()
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH


def select(columns: str, condition: str) -> str:
    return f"SELECT {columns} FROM public.documents WHERE {condition}"  # noqa: S608 - it is tested


@dataclass(frozen=True)
class Table:
    """Be a table `documents` with the columns that the real one has, and no constraints."""

    database: Database

    async def add(self, docs: Sequence[Doc]) -> None:
        """Write documents."""
        async with self.database.connection() as connection:
            await connection.executemany(
                "INSERT INTO public.documents"
                " (external_id, metadata, title, tags, created_at, updated_at)"
                " VALUES ($1, $2, $3, $4, $5, $6)",
                [(d.id, d.metadata, d.title, d.tags, d.created_at, d.updated_at) for d in docs],
            )
            await connection.execute("ANALYZE public.documents")

    async def index(self) -> None:
        """Make the indexes that filters are written for."""
        async with self.database.connection() as connection:
            await connection.execute(
                "CREATE INDEX by_metadata ON public.documents"
                " USING gin (metadata jsonb_path_ops);"
                " CREATE INDEX by_tags ON public.documents USING gin (tags);"
                " CREATE UNIQUE INDEX by_id ON public.documents (external_id);"
            )

    async def find(self, value: Any, *settings: str) -> list[str]:
        """Return the ids that the filter keeps, having seen that it says yes or no of each."""
        arguments: list[Any] = [""]  # a filter's are never the first of a statement
        condition = compile_filter(parse_filter(value), arguments)
        async with self.database.transaction() as connection:
            for setting in settings:
                await connection.execute(f"SET LOCAL {setting}")
            rows = await connection.fetch(
                select("external_id", f"external_id > $1 AND {condition}"), *arguments
            )
            said = await connection.fetch(
                select(f"external_id, {condition} AS holds", "external_id > $1"), *arguments
            )
        assert {row["holds"] for row in said} <= {True, False}
        found = sorted(row["external_id"] for row in rows)
        assert found == sorted(row["external_id"] for row in said if row["holds"])
        return found

    async def plan(self, value: Any) -> str:
        """Return how Postgres finds what the filter keeps, where it can without reading all."""
        arguments: list[Any] = []
        condition = compile_filter(parse_filter(value), arguments)
        async with self.database.transaction() as connection:
            await connection.execute("SET LOCAL enable_seqscan = off")
            rows = await connection.fetch(f"EXPLAIN {select('external_id', condition)}", *arguments)
        return "\n".join(row[0] for row in rows)


@pytest_asyncio.fixture
async def table(database: Database) -> Table:
    await create_collection(
        database,
        name="kb",
        model="toy",
        dimensions=4,
        precision="half",
        chunking=Chunking(),
        language="english",
        metadata={},
    )
    async with database.connection() as connection:
        await connection.execute(
            "CREATE TABLE public.documents AS SELECT * FROM c_1.documents WITH NO DATA"
        )
    return Table(database)


def of(operator: str, operand: Any, path: str = "x") -> dict[str, Any]:
    return {"field": path, operator: operand}


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
                "UPDATE public.documents SET metadata = ('{\"x\": ' || $2::text || '}')::jsonb"
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

HOSTILE = [
    *["'", '"', "''", "\\", "\\'", "\\\\", "$1", "$2::text", "%", "_", "%s", "%(x)s", "{0}", "{x}"],
    *["' OR true --", "'); DROP TABLE public.documents; --", "/*", "*/", ";", "--", "$$", "$a$"],
    *[
        "E'\\x41'",
        "\x01",
        "\x7f",
        "\n",
        "\r\n",
        "\t",
        " ",
        "  ",
        "a b",
        "\u2028",
        "\ufeff",
        "\uffff",
    ],
    *[
        "é",
        "e\u0301",
        "ß",
        "İ",
        "数据",
        "😀",
        "👩\u200d👧",
        "\U0010ffff",
        "null",
        "true",
        "1",
        "NaN",
    ],
    *["{a,b}", "{}", "[]", '"a"', "$.x", "$.**", "@", "?", "?|", "::jsonb", "documents.metadata"],
    *[
        "__proto__",
        "metadata",
        "field",
        "eq",
        "and",
        "0",
        "-1",
        "last",
        "a.b",
        "a.",
        ".",
        "..",
        "\\.",
    ],
]


def escaped(*keys: str) -> str:
    return "metadata." + ".".join(key.replace("\\", "\\\\").replace(".", "\\.") for key in keys)


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

KEYS = ["a", "b", "a.b", "tags", "title", "0", '"', "$1", "é\\", " "]
PATHS = {escaped(*keys): keys for keys in [(key,) for key in KEYS] + [("a", "b"), ("b", "a", "0")]}
SCALARS: list[Any] = [
    *[None, True, False, 0, 1, -1, 1.0, 1.5, 0.1, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63],
    *[float(2**63), 2**64 - 1, -(2**63), 1e300, -1e300, 5e-324, 0.30000000000000004, 0.3, 1e22],
    *["", "a", "A", "b", "ab", "a%", "%", "_", "1", "true", "null", "Z", "ä", "z", "é", "e\u0301"],
    *["😀", "\uffff", "a\\", "'", '"', "[]"],
]
ASKED = [*SCALARS, 10**22, -(10**300), "nowhere"]
OWN_TEXTS = ["", "a", "B", "ab", "ä", "%", "😀"]
TIMES = [EPOCH + timedelta(seconds=number / 2) for number in range(5)]
PADDING = [f"nowhere {number}" for number in range(100)]


def some_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if kind < 0.55 or depth > 2:
        return rng.choice(SCALARS)
    if kind < 0.8:
        return [some_value(rng, depth + 2) for _ in range(rng.randrange(4))]
    return some_object(rng, depth + 1)


def some_object(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    keys = rng.sample(KEYS, rng.randrange(1, len(KEYS)))
    return {key: some_value(rng, depth) for key in keys}


def some_docs(rng: random.Random, count: int) -> list[Doc]:
    return [
        Doc(
            f"{rng.choice(OWN_TEXTS)}/{number}",
            some_object(rng),
            rng.choice(OWN_TEXTS),
            tuple(rng.sample(OWN_TEXTS, rng.randrange(4))),
            rng.choice(TIMES),
            rng.choice(TIMES),
        )
        for number in range(count)
    ]


def some_list(rng: random.Random, values: Sequence[Any]) -> list[Any]:
    few = rng.choices(values, k=rng.choice([0, 1, 1, 2, 2, 5]))
    return few + PADDING if rng.random() < 0.2 else few


def some_condition(rng: random.Random) -> dict[str, Any]:
    kind = rng.random()
    if kind < 0.08:
        operator = rng.choice(["any", "all", "none"])
        return of(operator, some_list(rng, OWN_TEXTS), "tags")
    if kind < 0.16:
        times = [time.isoformat() for time in TIMES]
        operator = rng.choice([*ORDERS, "eq", "ne", "in"])
        operand: Any = rng.choice(times) if operator != "in" else rng.sample(times, 2)
        return of(operator, operand, rng.choice(["created_at", "updated_at"]))
    if kind < 0.24:
        operator = rng.choice([*ORDERS, "eq", "ne", "in", "nin", "prefix", "contains"])
        listed = operator in LISTS
        operand = some_list(rng, OWN_TEXTS) if listed else rng.choice(OWN_TEXTS)
        return of(operator, operand, "title")
    return {**some_question(rng), **some_question(rng), "field": rng.choice(list(PATHS))}


def some_question(rng: random.Random) -> dict[str, Any]:
    operator = rng.choice([*ORDERS, *LISTS, "eq", "ne", "exists", "prefix", "contains"])
    if operator in LISTS:
        return {operator: some_list(rng, ASKED)}
    if operator == "exists":
        return {operator: rng.random() < 0.5}
    if operator in ORDERS:
        return {operator: rng.choice([v for v in ASKED if type(v) in (str, int, float)])}
    if operator in ("prefix", "contains"):
        return {operator: rng.choice([v for v in ASKED if isinstance(v, str)])}
    return {operator: rng.choice(ASKED)}


def some_filter(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    if depth > 2 or rng.random() < 0.5:
        return some_condition(rng)
    if rng.random() < 0.3:
        return {"not": some_filter(rng, depth + 1)}
    parts = [some_filter(rng, depth + 1) for _ in range(rng.randrange(1, 4))]
    return {rng.choice(["and", "or"]): parts}


def holds(doc: Doc, asked: dict[str, Any]) -> bool:
    said = [answer(key, field_of(doc, asked), asked[key]) for key in asked if key in ANSWERED]
    if "and" in asked:
        said.append(all(holds(doc, part) for part in asked["and"]))
    if "or" in asked:
        said.append(any(holds(doc, part) for part in asked["or"]))
    if "not" in asked:
        said.append(not holds(doc, asked["not"]))
    return all(said)


ANSWERED = {*ORDERS, *LISTS, "eq", "ne", "exists", "prefix", "contains"}


def field_of(doc: Doc, asked: dict[str, Any]) -> Any:
    path = asked["field"]
    if path not in PATHS:
        own = getattr(doc, path)
        return list(own) if path == "tags" else own.isoformat() if path.endswith("_at") else own
    value: Any = doc.metadata
    for key in PATHS[path]:
        value = value.get(key, MISSING) if isinstance(value, dict) else MISSING
    return value


def comparable(value: Any) -> tuple[str, Any]:
    """Return what two values that are equal have in common, and no others."""
    if type(value) in (int, float):
        has_64_bits = type(value) is int and -(2**63) <= value < 2**64
        return "number", Decimal(str(value if has_64_bits else float(value)))
    return type(value).__name__, value


def answer(operator: str, value: Any, operand: Any) -> bool:
    match operator:
        case "ne" | "nin" | "none":
            return not answer({"ne": "eq", "nin": "in", "none": "any"}[operator], value, operand)
        case "exists":
            return (value is not MISSING) is operand
        case "eq" | "in":
            operands = operand if operator == "in" else [operand]
            return comparable(value) in map(comparable, operands)
        case "any" | "all":
            elements = value if isinstance(value, list) else [value]
            found = [comparable(part) in map(comparable, elements) for part in operand]
            return any(found) if operator == "any" else value is not MISSING and all(found)
        case "prefix":
            return isinstance(value, str) and value.startswith(operand)
        case "contains":
            return isinstance(value, str) and operand in value
    (kind, left), (other, right) = comparable(value), comparable(operand)
    if kind != other or kind not in ("number", "str"):
        return False
    return bool(
        {"gt": left > right, "gte": left >= right, "lt": left < right}.get(operator, left <= right)
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_indexed", [False, True])
async def test_postgres_finds_what_plain_python_finds(
    table: Table, seed: int, is_indexed: bool
) -> None:
    rng = random.Random(seed)  # noqa: S311 # it makes documents, not secrets
    docs = some_docs(rng, 150)
    await table.add(docs)
    settings = ["plan_cache_mode = force_generic_plan"]
    if is_indexed:
        await table.index()
        settings = ["plan_cache_mode = force_custom_plan", "enable_seqscan = off"]
    kept = []
    for _ in range(300):
        asked = some_filter(rng)
        expected = sorted(doc.id for doc in docs if holds(doc, asked))
        found = await table.find(asked, *settings)
        assert sorted(found) == expected, orjson.dumps(asked)
        kept.append(len(found))
    assert sum(0 < count < len(docs) for count in kept) > len(kept) / 3


# --- Plans -----------------------------------------------------------------------------------

MANY = list(range(10_000))


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (of("eq", 1), "by_metadata"),
        (of("eq", None, "x.y"), "by_metadata"),
        (of("in", [1, "a"]), "by_metadata"),
        (of("any", [1, "a"]), "by_metadata"),
        (of("all", [1, "a"]), "by_metadata"),
        ({"field": "x", "eq": 1, "gt": 0}, "by_metadata"),
        ({"or": [of("eq", 1), of("eq", 2)]}, "by_metadata"),
        (of("any", ["a"], "tags"), "by_tags"),
        (of("all", ["a", "b"], "tags"), "by_tags"),
        (of("eq", "a", "id"), "by_id"),
        (of("in", ["a", "b"], "id"), "by_id"),
        (of("in", list(map(str, MANY)), "id"), "by_id"),
        (of("prefix", "a", "id"), "by_id"),
        (of("gt", "a", "id"), "by_id"),
    ],
)
async def test_an_index_serves_what_it_can(table: Table, value: Any, index: str) -> None:
    await table.add([Doc(str(number), {"x": number}, "", (str(number),)) for number in range(99)])
    await table.index()
    assert index in await table.plan(value)


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
