"""Boosts: what raises or lowers a score beside the query, checked and made objects.

A list of boosts is part of a search. Each is worth something between 0 and 1 for a document:

- `{"field": "published_at", "decay": "exp", "scale": "30d", "weight": 0.2}` goes by how near a
  field is to `origin`: 1 up to `offset` from it (0 where that isn't given), ½ at `scale` beyond.
  With t = (distance - offset) / scale, `exp` is ½^t, `gauss` ½^(t²), and `linear` 1 - t / 2 or 0.
- `{"filter": {"field": "lang", "eq": "en"}, "weight": 0.1}` is 1 for documents that pass a filter,
  as filters.py describes it, and 0 for others.

`weight` is between -1 and 10; a negative one lowers. Fields are those of filters. Where `scale` is
a duration (a number with s, m, h, d or w: `"12h"`), so is `offset`, the field is `created_at`,
`updated_at` or a string of the metadata that is an RFC 3339 time, or its date alone, which is its
midnight in UTC; `origin` is written as these are, and now unless given. Where `scale` is a number,
so are `offset`, `origin`, which must be given, and the field. A field that a document lacks, or
that is of another type, is worth 0.

The sum of weight · worth raises a score by that part of it: by 0.2 it becomes 1.2 times as high,
a negative score 0.8 times as low. It goes to 0 at most: nothing gets to the other side, where
what is less relevant would be higher.

The curves are Elasticsearch's, at its default decay of 0.5
(https://www.elastic.co/guide/en/elasticsearch/reference/8.17/query-dsl-function-score-query.html).
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

import numpy as np

from memoryd.documents.filters import Filter, MetadataField, OwnField, parse_field, parse_filter
from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError, UnknownFieldError
from memoryd.vectors.rankings import Scores

MAX_BOOSTS = 16
MIN_WEIGHT, MAX_WEIGHT = -1.0, 10.0

Curve: TypeAlias = Callable[[float], float]
"""What a distance is worth, 0 being the origin and 1 where it is worth ½."""


class Fields(Protocol):
    """Be what boosts read of a document."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """As JSON is read."""

    @property
    def created_at(self) -> datetime:
        """With its zone."""

    @property
    def updated_at(self) -> datetime:
        """With its zone."""


@dataclass(frozen=True)
class DecayBoost:
    """Prefer what is near to a number; times are seconds since 1970."""

    field: OwnField | MetadataField
    curve: Curve
    is_time: bool
    origin: float | None
    """None: now."""
    scale: float
    offset: float
    weight: float


@dataclass(frozen=True)
class FilterBoost:
    """Prefer what passes a filter."""

    wanted: Filter
    weight: float


Boost: TypeAlias = DecayBoost | FilterBoost


def _exponential(distance: float) -> float:
    return math.exp2(-distance)


def _gaussian(distance: float) -> float:
    return math.exp2(-distance * distance)


def _linear(distance: float) -> float:
    return max(0.0, 1 - distance / 2)


_CURVES: dict[str, Curve] = {"exp": _exponential, "gauss": _gaussian, "linear": _linear}
_OF_DECAYS = ("field", "decay", "scale", "origin", "offset", "weight")
_OF_FILTERS = ("filter", "weight")

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", re.ASCII)
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:[0-5]\d))?", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- Parsing ---------------------------------------------------------------------------------


def parse_boosts(value: Any, *, at: str = "boost") -> tuple[Boost, ...]:
    """Return the boosts that a JSON value says; `at` is where it stands in the request.

    Raises InvalidInputError for what can't be asked, UnknownFieldError for a key that doesn't
    exist, MissingFieldError for one that is absent, TooLargeError over a limit, and what
    `parse_filter` raises; `param` and the message name the place, such as `boost[1].scale`.
    """
    if not isinstance(value, list):
        raise _fault(at, "must be a list of boosts")
    if len(value) > MAX_BOOSTS:
        raise TooLargeError(f"{at}: there can be {MAX_BOOSTS} boosts at most", at)
    return tuple(_parse(item, f"{at}[{index}]") for index, item in enumerate(value))


def _parse(value: Any, at: str) -> Boost:
    if not isinstance(value, dict):
        raise _fault(at, "must be an object")
    if "filter" in value:
        _check_keys(value, _OF_FILTERS, at)
        return FilterBoost(
            parse_filter(value["filter"], at=f"{at}.filter"), _parse_weight(value, at)
        )
    _check_keys(value, _OF_DECAYS, at)
    return _parse_decay(value, at)


def _check_keys(asked: dict[str, Any], known: Collection[str], at: str) -> None:
    for key in asked:
        if key not in known:
            path = f"{at}.{json.dumps(key)[1:-1]}"
            raise UnknownFieldError(
                f"{path} is unknown: a boost has {', '.join(_OF_DECAYS)}; or filter and weight",
                path,
            )


def _parse_weight(asked: dict[str, Any], at: str) -> float:
    weight = _number(_require(asked, "weight", at), f"{at}.weight")
    if not MIN_WEIGHT <= weight <= MAX_WEIGHT:
        raise _fault(f"{at}.weight", f"must be between {MIN_WEIGHT:g} and {MAX_WEIGHT:g}")
    return weight


def _parse_decay(asked: dict[str, Any], at: str) -> DecayBoost:
    field = parse_field(_require(asked, "field", at), f"{at}.field")
    if isinstance(field, OwnField) and field.name not in ("created_at", "updated_at"):
        raise _fault(f"{at}.field", f"{field.name} is neither a time nor a number")
    scale = _require(asked, "scale", at)
    is_time = isinstance(field, OwnField) or isinstance(scale, str)
    read_distance = _duration if is_time else _number
    offset = asked.get("offset")
    boost = DecayBoost(
        field,
        _parse_curve(_require(asked, "decay", at), f"{at}.decay"),
        is_time,
        _parse_origin(asked, at, is_time),
        scale=read_distance(scale, f"{at}.scale"),
        offset=0.0 if offset is None else read_distance(offset, f"{at}.offset"),
        weight=_parse_weight(asked, at),
    )
    _check_distances(boost, at)
    return boost


def _check_distances(boost: DecayBoost, at: str) -> None:
    if boost.scale <= 0:
        raise _fault(f"{at}.scale", "must be above 0")
    if boost.offset < 0:
        raise _fault(f"{at}.offset", "can't be negative")


def _parse_curve(value: Any, at: str) -> Curve:
    if not isinstance(value, str) or value not in _CURVES:
        raise _fault(at, f"must be one of {', '.join(_CURVES)}")
    return _CURVES[value]


def _parse_origin(asked: dict[str, Any], at: str, is_time: bool) -> float | None:
    if not is_time:
        return _number(_require(asked, "origin", at), f"{at}.origin")
    if asked.get("origin") is None:
        return None
    origin = _read_time(asked["origin"])
    if origin is None:
        raise _fault(f"{at}.origin", "must be an RFC 3339 time, such as 2025-01-31T12:00:00Z")
    return origin


def _require(asked: dict[str, Any], key: str, at: str) -> Any:
    if asked.get(key) is None:
        raise MissingFieldError(f"{at}.{key} is required", f"{at}.{key}")
    return asked[key]


def _number(value: Any, at: str) -> float:
    number = _read_number(value)
    if number is None:
        raise _fault(at, "must be a number")
    return number


def _duration(value: Any, at: str) -> float:
    """Return the seconds of a duration."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise _fault(at, "must be a duration: a number with s, m, h, d or w, such as 30d")
    return float(match[1]) * _UNITS_S[match[2]]


def _fault(at: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{at}: {message}", at)


# --- What they are worth ---------------------------------------------------------------------


def value_of(boost: DecayBoost, document: Fields, now: datetime) -> float:
    """Return what `boost` is worth for `document`, from 0 to 1; `now` names its zone."""
    found = _find(boost.field, document)
    position = _read_time(found) if boost.is_time else _read_number(found)
    if position is None:
        return 0.0
    origin = _seconds(now) if boost.origin is None else boost.origin
    distance = max(0.0, abs(position - origin) - boost.offset)
    return boost.curve(distance / boost.scale)


def apply_boosts(scores: Scores, sums: Scores) -> Scores:
    """Return `scores` (n,) raised by `sums` (n,) of weight · worth."""
    return np.asarray(scores * np.maximum(0, 1 + np.sign(scores) * sums))


def _find(field: OwnField | MetadataField, document: Fields) -> Any:
    if isinstance(field, OwnField):
        return document.created_at if field.name == "created_at" else document.updated_at
    value: Any = document.metadata
    for key in field.keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _read_number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _read_time(value: Any) -> float | None:
    """Return the seconds since 1970 of a time, as a datetime or as it is written."""
    if isinstance(value, datetime):
        return _seconds(value)
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return None
    try:
        time = datetime.fromisoformat(value.upper())
    except ValueError:  # such as February 30
        return None
    return _seconds(time if time.tzinfo else time.replace(tzinfo=UTC))


def _seconds(time: datetime) -> float:
    return (time - _EPOCH).total_seconds()
