"""Filters as people type them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryd.cli.filters import read_filters
from memoryd.documents.filters import parse_filter
from memoryd.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("team=sec", {"field": "team", "any": ["sec"]}),
        ("team!=sec", {"field": "team", "none": ["sec"]}),
        ("year=2023", {"field": "year", "any": [2023]}),
        ('year="2023"', {"field": "year", "any": ["2023"]}),
        ("year>2023", {"field": "year", "gt": 2023}),
        ("year>=2023", {"field": "year", "gte": 2023}),
        ("year<-2.5e3", {"field": "year", "lt": -2500.0}),
        ("year<=2023", {"field": "year", "lte": 2023}),
        (" author.name = Ada Lovelace ", {"field": "author.name", "any": ["Ada Lovelace"]}),
        ("is_draft=false", {"field": "is_draft", "any": [False]}),
        ("owner=null", {"field": "owner", "any": [None]}),
        ("formula=a=b>c", {"field": "formula", "any": ["a=b>c"]}),
        ("note=", {"field": "note", "any": [""]}),
        ("note=[1]", {"field": "note", "any": ["[1]"]}),
        ("ratio=NaN", {"field": "ratio", "any": ["NaN"]}),
        ("version=1.2.3", {"field": "version", "any": ["1.2.3"]}),
        ("id=42", {"field": "id", "eq": "42"}),
        ("id!=42", {"field": "id", "ne": "42"}),
        ('title="1984"', {"field": "title", "eq": "1984"}),
        ("title>=M", {"field": "title", "gte": "M"}),
        ("tags=2023", {"field": "tags", "any": ["2023"]}),
        ("tags!=auth", {"field": "tags", "none": ["auth"]}),
        ("metadata.tags=2023", {"field": "metadata.tags", "any": [2023]}),
        (
            "created_at>=2025-01-31T12:00:00Z",
            {"field": "created_at", "gte": "2025-01-31T12:00:00Z"},
        ),
        (' {"field": "year", "gte": 2023}', {"field": "year", "gte": 2023}),
        ('{"not": {"field": "a=b", "eq": 1}}', {"not": {"field": "a=b", "eq": 1}}),
    ],
)
def test_what_is_typed_means_a_filter_of_the_api(text: str, meant: Any) -> None:
    assert read_filters([text]) == meant
    assert parse_filter(meant)


def test_all_that_is_typed_must_hold() -> None:
    assert read_filters([]) is None
    assert read_filters(["team=sec", "year>=2023", '{"field": "x", "exists": true}']) == {
        "and": [
            {"field": "team", "any": ["sec"]},
            {"field": "year", "gte": 2023},
            {"field": "x", "exists": True},
        ]
    }


@pytest.mark.parametrize("text", ["", "team", "=sec", ">=3", "team:sec", " = ", "team sec"])
def test_what_is_no_condition_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^--filter: .* must be like 'team=sec'"):
        read_filters(["year=2023", text])


def test_what_is_no_json_is_refused_by_its_place() -> None:
    with pytest.raises(InvalidInputError, match=r"^--filter: \{'field': 1\} is not JSON: .*char"):
        read_filters(["{'field': 1}"])


@given(st.text(), st.text())
def test_any_text_is_a_filter_or_is_refused(one: str, other: str) -> None:
    for text in (one, f"{one}={other}", f"a>={other}"):
        try:
            read_filters([text])
        except InvalidInputError as error:
            assert error.message.startswith("--filter: ")  # noqa: PT017 - some are refused, some not
