r"""Filters: what a client's JSON asks of documents, checked and made a tree.

A filter is an object. `{"field": "year", "gte": 2023, "lt": 2026}` is a condition; `and` and `or`
hold lists of filters, `not` holds one; all that one object says must hold.

Fields are keys of the metadata, dotted for nesting: `author.name` is `name` in the object `author`
(lists are not entered). `\.` is a dot that belongs to a key, `\\` a backslash; an empty key can't
be named. The bare names `id`, `title`, `tags`, `created_at` and `updated_at` are the document's
own; `metadata.` before a path says that the metadata's are meant: `metadata.tags`.

Values are equal where they are of one JSON type and equal as such: 1 is 1.0 but not "1" nor true.
Numbers compare as the decimals that they are written as, integers of more than 64 bits as the
nearest double (documents are read so too); strings by code point. null equals null; a key whose
value is null exists, a missing one equals nothing and matches `ne`, `nin`, `none`, `not` alone.

- `eq`, `ne`, `in`, `nin` take the field's value whole: a list equals no value.
- `any`, `all`, `none` take the field's list by its elements: one of them, each, or none of the
  values is among those. A value that is no list counts as a list of itself.
- `gt`, `gte`, `lt`, `lte` compare with a number or a string; `prefix` and `contains` look at
  strings, and take each character as itself.
- A list of values may be empty: nothing is in it, and `all` of it holds where the field exists.
- The document's own times take RFC 3339 times, cut to the microsecond.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import NoneType
from typing import Any, Literal, TypeAlias, TypeVar

from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError, UnknownFieldError

MAX_DEPTH = 16
"""Of filters in filters; the outermost is at depth 1."""
MAX_CONDITIONS = 256
"""Of objects that name a field."""
MAX_VALUES = 10_000
"""Of one list."""
MAX_KEYS = 16
"""Of a field's path: metadata is nested no deeper."""

T = TypeVar("T")

Value: TypeAlias = str | int | float | bool | datetime | None
"""Integers have 64 bits at most; a datetime is UTC, and stands with the document's own times."""
OwnName = Literal["id", "title", "tags", "created_at", "updated_at"]
Operator = Literal["in", "any", "all", "gt", "gte", "lt", "lte", "prefix", "contains", "exists"]


@dataclass(frozen=True)
class OwnField:
    """Be what every document has."""

    name: OwnName


@dataclass(frozen=True)
class MetadataField:
    """Be a key of the metadata, found by the keys from the outermost object on."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """Ask one thing of a field.

    `in`, `any` and `all` have any number of distinct values, `exists` none, others one. `eq` is
    `in` one value; what says no (`ne`, `nin`, `none`, `exists: false`) is `Not` of its opposite.
    """

    field: OwnField | MetadataField
    operator: Operator
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class And:
    """Ask that all parts hold; there is at least one."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True)
class Or:
    """Ask that one of the parts holds; there is at least one."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True)
class Not:
    """Ask that a filter doesn't hold."""

    negated: "Filter"


Filter: TypeAlias = Condition | And | Or | Not

_OPPOSITES = {"ne": "eq", "nin": "in", "none": "any"}
_COMBINERS: dict[str, type[And | Or]] = {"and": And, "or": Or}
_SINGLE: dict[str, Operator] = {"eq": "in", "gt": "gt", "gte": "gte", "lt": "lt", "lte": "lte"}
_TEXTUAL: dict[str, Operator] = {"prefix": "prefix", "contains": "contains"}
_LISTED: dict[str, Operator] = {"in": "in", "any": "any", "all": "all"}
_OPERATORS = (*_SINGLE, *_TEXTUAL, *_LISTED, *_OPPOSITES, "exists")

_OF_TIMES = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists")
_OF_TEXTS = (*_OF_TIMES, "prefix", "contains")
_OF_OWN: dict[OwnName, tuple[str, ...]] = {
    "id": _OF_TEXTS,
    "title": _OF_TEXTS,
    "tags": ("any", "all", "none", "exists"),
    "created_at": _OF_TIMES,
    "updated_at": _OF_TIMES,
}
_KEY = re.compile(r"(?:[^\\.]|\\[\\.])+")
_PATH = re.compile(rf"{_KEY.pattern}(?:\.{_KEY.pattern})*")
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    NoneType: "null",
}


def parse_filter(value: Any, *, at: str = "filter") -> Filter:
    """Return the filter that a JSON value says; `at` is where it stands in the request.

    Raises InvalidInputError for what can't be asked, UnknownFieldError for an operator that
    doesn't exist, MissingFieldError for a condition without field or operator, and TooLargeError
    over a limit; `param` and the message name the place, such as `filter.and[1].gte`.
    """
    return _parse(value, at, 1, itertools.count(1))


def _parse(value: Any, at: str, depth: int, numbers: Iterator[int]) -> Filter:
    """Return the filter at `depth`; each condition takes one of `numbers`."""
    asked: dict[str, Any] = _expect(dict, value, at)
    if depth > MAX_DEPTH:
        raise TooLargeError(f"{at}: filters can be nested {MAX_DEPTH} deep at most", at)
    parts = _conditions(asked, at, numbers)
    for word, combine in _COMBINERS.items():
        if word in asked:
            parts.append(combine(_parts(asked[word], f"{at}.{word}", depth, numbers)))
    if "not" in asked:
        parts.append(Not(_parse(asked["not"], f"{at}.not", depth + 1, numbers)))
    if not parts:
        raise MissingFieldError(f"{at}: must have field and an operator, or and, or, not", at)
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _parts(value: Any, at: str, depth: int, numbers: Iterator[int]) -> tuple[Filter, ...]:
    parts = _expect(list, value, at)
    if not parts:
        raise _fault(at, "must have at least one filter")
    return tuple(
        _parse(part, f"{at}[{index}]", depth + 1, numbers) for index, part in enumerate(parts)
    )


def _conditions(asked: dict[str, Any], at: str, numbers: Iterator[int]) -> list[Filter]:
    operators = [key for key in asked if key not in (*_COMBINERS, "not", "field")]
    for key in operators:
        _check_operator(key, at)
    if not operators and "field" not in asked:
        return []
    if next(numbers) > MAX_CONDITIONS:
        raise TooLargeError(f"{at}: a filter can have {MAX_CONDITIONS} conditions at most", at)
    if "field" not in asked:
        raise MissingFieldError(f"{at}.field is required beside {operators[0]}", f"{at}.field")
    field = parse_field(asked["field"], f"{at}.field")
    if not operators:
        raise MissingFieldError(f"{at}: field needs one of {', '.join(_OPERATORS)}", at)
    return [_condition(field, key, asked[key], f"{at}.{key}") for key in operators]


def _check_operator(key: str, at: str) -> None:
    if key in _OPERATORS:
        return
    path = f"{at}.{json.dumps(key)[1:-1]}"
    known = ", ".join(_OPERATORS)
    raise UnknownFieldError(
        f'{path} is no operator: a condition is {{"field": "…"}} with some of {known}', path
    )


def parse_field(value: Any, at: str) -> OwnField | MetadataField:
    """Return the field that a path names.

    Raises InvalidInputError where it is no path, TooLargeError where it has too many keys; `at`
    is where it stands in the request.
    """
    path = _string(value, at)
    own = next((name for name in _OF_OWN if name == path), None)
    if own is not None:
        return OwnField(own)
    keys = _split(path.removeprefix("metadata."), at)
    if len(keys) > MAX_KEYS:
        raise TooLargeError(f"{at}: a path can have {MAX_KEYS} keys at most", at)
    return MetadataField(keys)


def _split(path: str, at: str) -> tuple[str, ...]:
    """Return the keys of a path, without the backslashes that protect dots and backslashes."""
    if not _PATH.fullmatch(path):
        raise _fault(
            at, r"must be keys with dots between, and \. or \\ for a dot or backslash in a key"
        )
    return tuple(re.sub(r"\\(.)", r"\1", key) for key in _KEY.findall(path))


def _condition(field: OwnField | MetadataField, operator: str, operand: Any, at: str) -> Filter:
    if isinstance(field, OwnField) and operator not in _OF_OWN[field.name]:
        raise _fault(at, f"{field.name} takes {', '.join(_OF_OWN[field.name])}")
    if operator in _OPPOSITES:
        return Not(_condition(field, _OPPOSITES[operator], operand, at))
    if operator == "exists":
        exists = Condition(field, "exists")
        return exists if _expect(bool, operand, at) else Not(exists)
    if operator in _TEXTUAL:
        return Condition(field, _TEXTUAL[operator], (_string(operand, at),))
    read = _reader(field, operator)
    if operator in _SINGLE:
        return Condition(field, _SINGLE[operator], (read(operand, at),))
    values = _expect(list, operand, at)
    if len(values) > MAX_VALUES:
        raise TooLargeError(f"{at}: {len(values)} values are more than {MAX_VALUES}", at)
    read_values = (read(item, f"{at}[{index}]") for index, item in enumerate(values))
    return Condition(field, _LISTED[operator], _distinct(read_values))


def _reader(field: OwnField | MetadataField, operator: str) -> Callable[[Any, str], Value]:
    """Return what checks a value that stands with `operator`."""
    if isinstance(field, OwnField):
        return _time if field.name in ("created_at", "updated_at") else _string
    return _scalar if operator in ("eq", *_LISTED) else _ordered


def _distinct(values: Iterable[Value]) -> tuple[Value, ...]:
    """Leave out what equals another."""

    def identity(value: Value) -> tuple[bool, Any]:
        is_number = type(value) in (int, float)  # true is none, though Python takes it for 1
        return is_number, Decimal(str(value)) if is_number else value

    return tuple({identity(value): value for value in values}.values())


def _scalar(value: Any, at: str) -> Value:
    if value is None or isinstance(value, bool):
        return value
    return _ordered(value, at, "a string, a number, true, false or null")


def _ordered(value: Any, at: str, wanted: str = "a number or a string") -> Value:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, at)
    return _string(value, at, wanted)


def _number(value: float, at: str) -> int | float:
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _fault(at, "must be a number that a double can hold, up to 1.8e308")
    return number


def _string(value: Any, at: str, wanted: str = "") -> str:
    text = _expect(str, value, at, wanted)
    if _UNSTORABLE.search(text):
        raise _fault(at, "must be text without NUL and lone surrogates")
    return text


def _time(value: Any, at: str) -> datetime:
    text = _string(value, at)
    if not _TIME.fullmatch(text):
        raise _fault(at, "must be an RFC 3339 time, such as 2025-01-31T12:00:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:  # such as February 30, or before the year 1
        raise _fault(at, f"there is no time {text}") from error


def _expect(kind: type[T], value: Any, at: str, wanted: str = "") -> T:
    if type(value) is not kind:
        told = _KINDS.get(type(value), "that")
        raise _fault(at, f"must be {wanted or _KINDS[kind]}, not {told}")
    return value


def _fault(at: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{at}: {message}", at)
