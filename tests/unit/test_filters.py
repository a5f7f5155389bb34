"""What a filter's JSON means, and how each fault in it is told."""

import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from memoryd.documents.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_KEYS,
    MAX_VALUES,
    And,
    Condition,
    Filter,
    MetadataField,
    Not,
    Or,
    OwnField,
    parse_filter,
)
from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError, UnknownFieldError

YEAR = MetadataField(("year",))
NOON = "2025-01-31T12:00:00Z"


def condition(operator: str, operand: Any, field: Any = "year") -> dict[str, Any]:
    return {"field": field, operator: operand}


def nested(depth: int) -> dict[str, Any]:
    value = condition("eq", 1)
    for level in range(depth - 1):
        word = ("not", "and", "or")[level % 3]
        value = {word: value if word == "not" else [value]}
    return value


def refusal(value: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        parse_filter(value)
    assert caught.value.param is not None
    assert caught.value.message.startswith(caught.value.param)
    return caught.value


# --- What is meant ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "operand", "meant"),
    [
        ("eq", 1, Condition(YEAR, "in", (1,))),
        ("eq", None, Condition(YEAR, "in", (None,))),
        ("ne", "x", Not(Condition(YEAR, "in", ("x",)))),
        ("gt", 1, Condition(YEAR, "gt", (1,))),
        ("gte", 1.5, Condition(YEAR, "gte", (1.5,))),
        ("lt", "x", Condition(YEAR, "lt", ("x",))),
        ("lte", -1, Condition(YEAR, "lte", (-1,))),
        ("in", [1, "x", True, None], Condition(YEAR, "in", (1, "x", True, None))),
        ("nin", [1], Not(Condition(YEAR, "in", (1,)))),
        ("any", ["a"], Condition(YEAR, "any", ("a",))),
        ("all", ["a", "b"], Condition(YEAR, "all", ("a", "b"))),
        ("none", ["a"], Not(Condition(YEAR, "any", ("a",)))),
        ("in", [], Condition(YEAR, "in")),
        ("exists", True, Condition(YEAR, "exists")),
        ("exists", False, Not(Condition(YEAR, "exists"))),
        ("prefix", "a%", Condition(YEAR, "prefix", ("a%",))),
        ("contains", "", Condition(YEAR, "contains", ("",))),
    ],
)
def test_each_operator_is_read(operator: str, operand: Any, meant: Filter) -> None:
    assert parse_filter(condition(operator, operand)) == meant


def test_all_that_one_object_says_is_asked() -> None:
    value = {
        "or": [condition("eq", 1), condition("eq", 2)],
        "field": "year",
        "gte": 1,
        "lt": 3,
        "not": condition("eq", 3),
        "and": [condition("eq", 4)],
    }
    assert parse_filter(value) == And(
        (
            Condition(YEAR, "gte", (1,)),
            Condition(YEAR, "lt", (3,)),
            And((Condition(YEAR, "in", (4,)),)),
            Or((Condition(YEAR, "in", (1,)), Condition(YEAR, "in", (2,)))),
            Not(Condition(YEAR, "in", (3,))),
        )
    )


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("lang", MetadataField(("lang",))),
        ("a.b.c", MetadataField(("a", "b", "c"))),
        (r"a\.b.c", MetadataField(("a.b", "c"))),
        (r"a\\.b", MetadataField(("a\\", "b"))),
        (r"a\\\.b", MetadataField(("a\\.b",))),
        (" ", MetadataField((" ",))),
        ("a\nb", MetadataField(("a\nb",))),
        ("0", MetadataField(("0",))),
        ("title", OwnField("title")),
        ("id", OwnField("id")),
        ("metadata.title", MetadataField(("title",))),
        ("metadata.x.y", MetadataField(("x", "y"))),
        ("metadata.metadata.x", MetadataField(("metadata", "x"))),
        (r"metadata\.x", MetadataField(("metadata.x",))),
        ("metadata", MetadataField(("metadata",))),
        ("title.x", MetadataField(("title", "x"))),
        ("Title", MetadataField(("Title",))),
        ("external_id", MetadataField(("external_id",))),
    ],
)
def test_a_path_names_its_field(path: str, field: Any) -> None:
    assert parse_filter(condition("eq", "x", path)) == Condition(field, "in", ("x",))


def test_tags_are_asked_for_their_elements() -> None:
    tags = OwnField("tags")
    assert parse_filter(condition("any", ["a"], "tags")) == Condition(tags, "any", ("a",))
    assert parse_filter(condition("exists", True, "tags")) == Condition(tags, "exists")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (NOON, datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31t12:00:00z", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31T14:30:00+02:30", datetime(2025, 1, 31, 12, tzinfo=UTC)),
        ("2025-01-31T12:00:00.5-00:00", datetime(2025, 1, 31, 12, 0, 0, 500_000, UTC)),
        ("2025-01-31T12:00:00.123456789Z", datetime(2025, 1, 31, 12, 0, 0, 123_456, UTC)),
    ],
)
def test_times_are_read_as_rfc_3339(text: str, time: datetime) -> None:
    assert parse_filter(condition("gt", text, "created_at")) == Condition(
        OwnField("created_at"), "gt", (time,)
    )


def test_a_list_keeps_one_of_those_that_are_equal() -> None:
    for value, kept in [
        ([1, 1.0, True, "1", 1], [1.0, True, "1"]),
        (
            [2**63, float(2**63)],
            [2**63, float(2**63)],
        ),  # the double is written 9.223372036854776e18
        ([0, -0.0, False, None], [0, False, None]),
    ]:
        meant = parse_filter(condition("all", value))
        assert isinstance(meant, Condition)
        assert list(meant.values) == kept
        assert [type(a) is bool for a in meant.values] == [type(a) is bool for a in kept]


def test_integers_beyond_64_bits_are_read_as_documents_are() -> None:
    for number in (10**25, -(2**63) - 1, 2**64):
        meant = parse_filter(condition("gt", number))
        assert isinstance(meant, Condition)
        [read] = meant.values
        assert type(read) is float
        assert read == float(number)
    for number in (2**64 - 1, -(2**63)):
        assert parse_filter(condition("gt", number)) == Condition(YEAR, "gt", (number,))


# --- What is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "param", "told"),
    [
        (None, "filter", "must be an object, not null"),
        ([], "filter", "must be an object, not a list"),
        ("x", "filter", "must be an object, not a string"),
        ({"and": {}}, "filter.and", "must be a list, not an object"),
        ({"and": []}, "filter.and", "at least one"),
        ({"or": []}, "filter.or", "at least one"),
        ({"or": None}, "filter.or", "must be a list, not null"),
        ({"or": [nested(1), 5]}, "filter.or[1]", "must be an object, not a number"),
        ({"not": [nested(1)]}, "filter.not", "must be an object, not a list"),
        ({"not": {"and": [condition("gt", None)]}}, "filter.not.and[0].gt", "a number or a string"),
        (condition("eq", 1, None), "filter.field", "must be a string, not null"),
        (condition("eq", 1, ["a"]), "filter.field", "must be a string, not a list"),
        (condition("eq", 1, ""), "filter.field", "keys with dots between"),
        (condition("eq", 1, "a..b"), "filter.field", "keys with dots between"),
        (condition("eq", 1, ".a"), "filter.field", "keys with dots between"),
        (condition("eq", 1, "a."), "filter.field", "keys with dots between"),
        (condition("eq", 1, "metadata."), "filter.field", "keys with dots between"),
        (condition("eq", 1, r"a\b"), "filter.field", r"\. or \\ for a dot or backslash"),
        (condition("eq", 1, "a\\"), "filter.field", r"\. or \\ for a dot or backslash"),
        (condition("eq", 1, "a\0"), "filter.field", "NUL"),
        (condition("eq", 1, "a\ud800"), "filter.field", "surrogates"),
        (condition("eq", [1]), "filter.eq", "true, false or null, not a list"),
        (condition("eq", {}), "filter.eq", "true, false or null, not an object"),
        (condition("ne", [1]), "filter.ne", "true, false or null, not a list"),
        (condition("eq", "a\0b"), "filter.eq", "NUL"),
        (condition("eq", "\udfff"), "filter.eq", "surrogates"),
        (condition("eq", float("nan")), "filter.eq", "a double can hold"),
        (condition("lt", float("inf")), "filter.lt", "a double can hold"),
        (condition("lt", -(10**400)), "filter.lt", "a double can hold"),
        (condition("lt", 10**5_000), "filter.lt", "a double can hold"),
        (condition("gt", True), "filter.gt", "must be a number or a string, not a boolean"),
        (condition("gte", None), "filter.gte", "must be a number or a string, not null"),
        (condition("lt", [1]), "filter.lt", "must be a number or a string, not a list"),
        (condition("lte", {}), "filter.lte", "must be a number or a string, not an object"),
        (condition("in", 1), "filter.in", "must be a list, not a number"),
        (condition("nin", "x"), "filter.nin", "must be a list, not a string"),
        (condition("any", None), "filter.any", "must be a list, not null"),
        (condition("all", {}), "filter.all", "must be a list, not an object"),
        (condition("none", True), "filter.none", "must be a list, not a boolean"),
        (condition("in", [1, [2]]), "filter.in[1]", "true, false or null, not a list"),
        (condition("any", ["a", "b\0"]), "filter.any[1]", "NUL"),
        (condition("exists", 1), "filter.exists", "must be a boolean, not a number"),
        (condition("exists", None), "filter.exists", "must be a boolean, not null"),
        (condition("prefix", 5), "filter.prefix", "must be a string, not a number"),
        (condition("contains", ["a"]), "filter.contains", "must be a string, not a list"),
        (condition("contains", "\0"), "filter.contains", "NUL"),
        (condition("eq", datetime(2025, 1, 1, tzinfo=UTC)), "filter.eq", "must be a string"),
        (condition("eq", "auth", "tags"), "filter.eq", "tags takes any, all, none, exists"),
        (condition("any", [1], "tags"), "filter.any[0]", "must be a string, not a number"),
        (condition("any", ["a"], "id"), "filter.any", "id takes eq, ne"),
        (condition("eq", 5, "id"), "filter.eq", "must be a string, not a number"),
        (condition("eq", None, "title"), "filter.eq", "must be a string, not null"),
        (condition("prefix", "2025", "created_at"), "filter.prefix", "created_at takes eq, ne"),
        (condition("gt", 1738324800, "created_at"), "filter.gt", "must be a string, not a number"),
        (condition("in", [NOON, "x"], "updated_at"), "filter.in[1]", NOON),
        *[
            (condition("gt", text, "created_at"), "filter.gt", NOON)
            for text in (
                *["2025-01-31", "2025-01-31T12:00:00", "2025-01-31 12:00:00Z", "now", ""],
                *["20250131T120000Z", "2025-W05-5T12:00:00Z", "2025-01-31T12:00Z", f" {NOON}"],
                *["2025-01-31T12:00:00+0100", "\uff12025-01-31T12:00:00Z", f"{NOON}\n"],
            )
        ],
        *[
            (condition("gt", text, "created_at"), "filter.gt", f"no time {text}")
            for text in (
                *["2025-02-30T12:00:00Z", "2025-01-31T24:00:01Z", "2025-01-31T12:00:60Z"],
                *["2025-01-31T12:00:00+24:00", "0001-01-01T00:00:00+01:00", "0000-01-01T00:00:00Z"],
                "9999-12-31T23:59:59-01:00",
            )
        ],
    ],
)
def test_what_can_not_be_asked_is_refused_at_its_place(value: Any, param: str, told: str) -> None:
    error = refusal(value)
    assert type(error) is InvalidInputError
    assert error.param == param
    assert told in error.message


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"field": "year", "gtee": 1}, "filter.gtee"),
        ({"field": "year", "eq": 1, "$lt": 5}, "filter.$lt"),
        ({"lang": "en"}, "filter.lang"),
        ({"and": [{"must": []}]}, "filter.and[0].must"),
        ({"": 1}, "filter."),
        ({"a\0\ud800é": 1}, r"filter.a\u0000\ud800\u00e9"),
    ],
)
def test_an_unknown_operator_is_named_with_those_that_exist(value: Any, param: str) -> None:
    error = refusal(value)
    assert isinstance(error, UnknownFieldError)
    assert error.param == param
    assert "eq, gt, gte" in error.message
    error.message.encode()


@pytest.mark.parametrize(
    ("value", "param", "told"),
    [
        ({}, "filter", "field and an operator, or and, or, not"),
        ({"or": [{}]}, "filter.or[0]", "field and an operator"),
        ({"not": {}}, "filter.not", "field and an operator"),
        ({"field": "year"}, "filter", "field needs one of eq"),
        ({"field": "year", "not": nested(1)}, "filter", "field needs one of eq"),
        ({"eq": 1}, "filter.field", "required beside eq"),
    ],
)
def test_half_a_condition_is_refused(value: Any, param: str, told: str) -> None:
    error = refusal(value)
    assert isinstance(error, MissingFieldError)
    assert error.param == param
    assert told in error.message


def test_the_place_begins_where_the_filter_stands() -> None:
    with pytest.raises(InvalidInputError, match=r"^searches\[2\]\.filter\.gt: ") as caught:
        parse_filter(condition("gt", None), at="searches[2].filter")
    assert caught.value.param == "searches[2].filter.gt"


# --- Limits ----------------------------------------------------------------------------------


def many(count: int) -> dict[str, Any]:
    """Return a filter of so many conditions, in two lists."""
    return {
        "and": [condition("eq", number) for number in range(count // 2)],
        "or": [condition("gt", number) | {"lt": 9} for number in range(count - count // 2)],
    }


@pytest.mark.parametrize(
    ("value", "over", "limit"),
    [
        (nested(MAX_DEPTH), nested(MAX_DEPTH + 1), "16 deep"),
        (many(MAX_CONDITIONS), many(MAX_CONDITIONS + 1), "256 conditions"),
        (
            condition("in", list(range(MAX_VALUES))),
            condition("in", [0] * (MAX_VALUES + 1)),
            "10001 values are more than 10000",
        ),
        (
            condition("eq", 1, ".".join("k" * MAX_KEYS)),
            condition("eq", 1, ".".join("k" * (MAX_KEYS + 1))),
            "16 keys",
        ),
    ],
)
def test_each_limit_can_be_reached_and_not_passed(value: Any, over: Any, limit: str) -> None:
    parse_filter(value)
    error = refusal(over)
    assert isinstance(error, TooLargeError)
    assert limit in error.message


def test_a_filter_that_is_too_deep_for_python_is_refused_before() -> None:
    assert isinstance(refusal(nested(sys.getrecursionlimit() * 3)), TooLargeError)


def test_a_path_of_many_characters_is_read_in_one_pass() -> None:
    assert isinstance(refusal(condition("eq", 1, "k." * 500_000 + "k")), TooLargeError)
    assert type(refusal(condition("eq", 1, "k" * 1_000_000 + "\\"))) is InvalidInputError
