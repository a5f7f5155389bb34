"""What a list of boosts means, what each is worth, and how each fault is told."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoryd.documents.boosts import (
    MAX_BOOSTS,
    DecayBoost,
    FilterBoost,
    apply_boosts,
    parse_boosts,
    value_of,
)
from memoryd.documents.filters import parse_filter
from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError, UnknownFieldError

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
LONG_AGO = datetime(1990, 1, 1, tzinfo=UTC)

RECENT = {"field": "published_at", "decay": "exp", "scale": "30d", "weight": 0.2}
NEAR_40 = {"field": "price", "decay": "gauss", "scale": 10, "origin": 40, "weight": 1}
ENGLISH = {"filter": {"field": "lang", "eq": "en"}, "weight": -0.5}


@dataclass(frozen=True)
class Stored:
    """Be of a document what boosts read."""

    metadata: dict[str, Any] = field(default_factory=dict)
    created_at: datetime = LONG_AGO
    updated_at: datetime = LONG_AGO


def without(boost: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in boost.items() if name != key}


def worth(boost: dict[str, Any], document: Stored, now: datetime = NOW) -> float:
    (parsed,) = parse_boosts([boost])
    assert isinstance(parsed, DecayBoost)
    return value_of(parsed, document, now)


def published(value: Any) -> Stored:
    return Stored({"published_at": value})


def priced(value: Any) -> Stored:
    return Stored({"price": value})


# --- What is meant ---------------------------------------------------------------------------


def test_boosts_keep_their_order_weights_and_filters() -> None:
    recent, english = parse_boosts([RECENT, ENGLISH])
    assert recent.weight == 0.2
    assert english == FilterBoost(parse_filter({"field": "lang", "eq": "en"}), -0.5)
    assert parse_boosts([]) == ()


@pytest.mark.parametrize(
    ("decay", "at_0", "at_half_scale", "at_scale", "at_2_scales", "at_3_scales"),
    [
        ("exp", 1, 0.5**0.5, 0.5, 0.25, 0.125),
        ("gauss", 1, 0.5**0.25, 0.5, 0.0625, 0.5**9),
        ("linear", 1, 0.75, 0.5, 0, 0),
    ],
)
def test_each_curve_is_one_half_at_the_scale(
    decay: str,
    at_0: float,
    at_half_scale: float,
    at_scale: float,
    at_2_scales: float,
    at_3_scales: float,
) -> None:
    boost = NEAR_40 | {"decay": decay}
    expected = [at_0, at_half_scale, at_scale, at_2_scales, at_3_scales]
    assert [worth(boost, priced(price)) for price in (40, 45, 50, 60, 70)] == pytest.approx(
        expected
    )
    assert [worth(boost, priced(price)) for price in (40, 35, 30, 20, 10)] == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("45s", 45), ("1.5m", 90), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)],
)
def test_a_scale_is_a_number_with_its_unit(written: str, seconds: float) -> None:
    document = published((NOW - timedelta(seconds=seconds)).isoformat())
    assert worth(RECENT | {"scale": written}, document) == pytest.approx(0.5)


def test_up_to_the_offset_nothing_is_lost() -> None:
    recent = RECENT | {"scale": "10d", "offset": "5d"}
    ages = [worth(recent, published((NOW - days * DAY).isoformat())) for days in (0, 5, 15, 25)]
    assert ages == pytest.approx([1, 1, 0.5, 0.25])
    near = NEAR_40 | {"decay": "linear", "offset": 3}
    assert [worth(near, priced(price)) for price in (43, 37, 53)] == pytest.approx([1, 1, 0.5])


def test_times_are_measured_from_now_unless_an_origin_is_given() -> None:
    document = published("2025-01-31T12:00:00Z")
    now = datetime(2025, 1, 31, 12, tzinfo=UTC)
    assert worth(RECENT, document, now) == 1
    assert worth(RECENT, document, now + 30 * DAY) == pytest.approx(0.5)
    assert worth(RECENT, document, now - 30 * DAY) == pytest.approx(0.5)
    assert worth(RECENT | {"origin": "2025-01-31T12:00:00Z"}, document, NOW) == 1
    assert worth(RECENT | {"origin": "2025-01-01T12:00:00+00:00"}, document, NOW) == 0.5
    assert worth(RECENT | {"origin": None, "offset": None}, document, now) == 1


def test_a_number_may_be_near_to_0() -> None:
    assert worth(NEAR_40 | {"origin": 0}, priced(0)) == 1


@pytest.mark.parametrize(
    "written",
    [
        *["2025-06-01T12:00:00Z", "2025-06-01t12:00:00.000z", "2025-06-01T14:30:00+02:30"],
        *["2025-05-31T23:00:00-13:00"],
    ],
)
def test_a_time_is_told_by_its_offset(written: str) -> None:
    assert worth(RECENT, published(written)) == 1


def test_a_date_is_its_midnight() -> None:
    midnight = datetime(2025, 6, 1, tzinfo=timezone(timedelta(0)))
    assert worth(RECENT, published("2025-06-01"), midnight) == 1
    assert worth(RECENT | {"scale": "12h"}, published("2025-06-01")) == pytest.approx(0.5)
    assert worth(RECENT | {"origin": "2025-06-01"}, published("2025-06-01")) == 1


@pytest.mark.parametrize("name", ["created_at", "updated_at"])
def test_the_documents_own_times_count(name: str) -> None:
    boost = RECENT | {"field": name}
    document = Stored({name: "2025-06-01T12:00:00Z"})
    assert worth(boost, document) < 1e-6
    changed = Stored(**{name: NOW - 30 * DAY})  # type: ignore[arg-type] # both are times
    assert worth(boost, changed) == pytest.approx(0.5)
    assert worth(boost | {"field": f"metadata.{name}"}, document) == 1


def test_fields_are_paths_into_objects() -> None:
    document = Stored({"a": {"b": 40, "c": [{"b": 40}]}, "a.b": 50})
    assert worth(NEAR_40 | {"field": "a.b"}, document) == 1
    assert worth(NEAR_40 | {"field": r"a\.b"}, document) == pytest.approx(0.5)
    assert worth(NEAR_40 | {"field": "a.c.b"}, document) == 0
    assert worth(NEAR_40 | {"field": "a.b.c"}, document) == 0


@pytest.mark.parametrize(
    "value",
    [
        *[None, True, 40, ["2025-06-01"], {"at": "2025-06-01"}, "", "yesterday", "2025-06-01 "],
        *["2025-06-01T12:00:00", "2025-02-30", "20250601", "2025-06-01T25:00:00Z", "2025-W22"],
        *["0000-01-01", "2025-06-01T12:00:00+24:00"],
        "\u0662\u0660\u0662\u0665-06-01",
    ],
)
def test_what_is_no_time_is_worth_nothing(value: Any) -> None:
    assert worth(RECENT, published(value)) == 0
    assert worth(RECENT, Stored()) == 0


@pytest.mark.parametrize("value", [None, True, "40", [40], {"n": 40}, float("nan"), 10**400])
def test_what_is_no_number_is_worth_nothing(value: Any) -> None:
    assert worth(NEAR_40, priced(value)) == 0
    assert worth(NEAR_40, Stored()) == 0


@pytest.mark.parametrize("decay", ["exp", "gauss", "linear"])
@settings(deadline=None)
@given(
    price=st.floats(allow_nan=False, allow_infinity=False),
    origin=st.floats(allow_nan=False, allow_infinity=False),
    scale=st.floats(min_value=5e-324, allow_infinity=False),
)
def test_no_number_is_worth_less_than_0_or_more_than_1(
    decay: str, price: float, origin: float, scale: float
) -> None:
    boost = NEAR_40 | {"decay": decay, "origin": origin, "scale": scale}
    assert 0 <= worth(boost, priced(price)) <= 1


def test_the_first_and_the_last_time_are_far_away() -> None:
    for written in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        assert worth(RECENT, published(written)) < 1e-9


# --- What becomes of scores ------------------------------------------------------------------


def test_a_score_is_raised_by_a_part_of_itself() -> None:
    scores = apply_boosts(
        np.array([2.0, 2.0, -2.0, -2.0, 0.0]), np.array([0.2, -0.2, 0.2, -0.2, 5])
    )
    assert scores.tolist() == pytest.approx([2.4, 1.6, -1.6, -2.4, 0])


def test_no_boost_carries_a_score_over_0() -> None:
    scores = apply_boosts(np.array([2.0, 1.0, -1.0, -2.0]), np.array([-3.0, -1.0, 3.0, 30.0]))
    assert scores.tolist() == [0, 0, 0, 0]


numbers = st.floats(-100, 100)


@settings(deadline=None)
@given(lower=numbers, higher=numbers, part=st.floats(-16, 160), more=st.floats(0, 10))
def test_boosts_keep_the_order_of_scores_and_raise_them(
    lower: float, higher: float, part: float, more: float
) -> None:
    lower, higher = sorted((lower, higher))
    small, large, raised = apply_boosts(
        np.array([lower, higher, higher]), np.array([part, part, part + more])
    ).tolist()
    assert small <= large <= raised


# --- Faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boost", "param", "kind"),
    [
        ([], "boost[1]", InvalidInputError),
        (None, "boost[1]", InvalidInputError),
        ({}, "boost[1].field", MissingFieldError),
        (RECENT | {"sclae": "3d"}, "boost[1].sclae", UnknownFieldError),
        (ENGLISH | {"scale": "3d"}, "boost[1].scale", UnknownFieldError),
        (RECENT | {"filter": {"field": "a", "eq": 1}}, "boost[1].field", UnknownFieldError),
        *[
            (without(RECENT, key), f"boost[1].{key}", MissingFieldError)
            for key in ("field", "decay", "scale", "weight")
        ],
        (without(NEAR_40, "origin"), "boost[1].origin", MissingFieldError),
        (without(ENGLISH, "weight"), "boost[1].weight", MissingFieldError),
        *[
            (RECENT | {"field": path}, "boost[1].field", InvalidInputError)
            for path in ("", "a..b", 7, "id", "title", "tags")
        ],
        (RECENT | {"field": "a" + ".a" * 16}, "boost[1].field", TooLargeError),
        *[
            (RECENT | {"decay": decay}, "boost[1].decay", InvalidInputError)
            for decay in ("log", "", 1, ["exp"], {"exp": 1})
        ],
        *[
            (RECENT | {"scale": scale}, "boost[1].scale", InvalidInputError)
            for scale in ("", "30", "d", "30 d", "-3d", "1y", "1e3d", "0d", "0.0s", "1" * 400 + "d")
        ],
        (RECENT | {"scale": "1h30m"}, "boost[1].scale", InvalidInputError),
        (RECENT | {"scale": "\u0663d"}, "boost[1].scale", InvalidInputError),
        (RECENT | {"field": "created_at", "scale": 30}, "boost[1].scale", InvalidInputError),
        *[
            (NEAR_40 | {"scale": scale}, "boost[1].scale", InvalidInputError)
            for scale in (0, -1, True, [1], float("inf"), 10**400)
        ],
        (RECENT | {"offset": 3}, "boost[1].offset", InvalidInputError),
        (NEAR_40 | {"offset": "3d"}, "boost[1].offset", InvalidInputError),
        (NEAR_40 | {"offset": -1}, "boost[1].offset", InvalidInputError),
        *[
            (RECENT | {"origin": origin}, "boost[1].origin", InvalidInputError)
            for origin in ("now", "2025-02-30", "2025-01-31T12:00:00", 7, True)
        ],
        (NEAR_40 | {"origin": "2025-01-31"}, "boost[1].origin", InvalidInputError),
        *[
            (ENGLISH | {"weight": weight}, "boost[1].weight", InvalidInputError)
            for weight in (-1.01, 10.5, "1", True, float("nan"), float("inf"))
        ],
        (ENGLISH | {"filter": {"field": "a", "eqq": 1}}, "boost[1].filter.eqq", UnknownFieldError),
        (ENGLISH | {"filter": None}, "boost[1].filter", InvalidInputError),
    ],
)
def test_a_fault_is_told_with_its_place(
    boost: Any, param: str, kind: type[InvalidInputError]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_boosts([RECENT, boost])
    assert type(caught.value) is kind
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


@pytest.mark.parametrize("weight", [-1, 0, 10])
def test_the_outermost_weights_are_taken(weight: float) -> None:
    assert parse_boosts([RECENT | {"weight": weight}])[0].weight == weight


def test_there_can_be_so_many_boosts_and_no_more() -> None:
    assert len(parse_boosts([RECENT] * MAX_BOOSTS)) == MAX_BOOSTS
    with pytest.raises(TooLargeError) as caught:
        parse_boosts([RECENT] * (MAX_BOOSTS + 1), at="body.boost")
    assert caught.value.param == "body.boost"


@pytest.mark.parametrize("value", [None, RECENT, "exp", 1])
def test_boosts_are_a_list(value: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^boost: must be a list"):
        parse_boosts(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
keys = st.sampled_from(["field", "decay", "scale", "origin", "offset", "weight", "filter"])


@settings(deadline=None)
@given(boost=json_values | st.dictionaries(keys, json_values), changed=keys, value=json_values)
def test_any_json_is_a_boost_or_a_told_fault(boost: Any, changed: str, value: Any) -> None:
    for item in (boost, RECENT | {changed: value}, NEAR_40 | {changed: value}):
        param: str | None = "boost[0]"
        try:
            parse_boosts([item])
        except InvalidInputError as error:
            param = error.param
        assert param is not None
        assert param.startswith("boost[0]")
