"""Filters as SQL over a collection's table `documents`.

This is written by hand, not with SQLAlchemy's expressions: it goes into statements that are, whose
parameters come before and after, and Core numbers those of a whole statement from $1 on. There are
few forms. Nothing of a filter is in their text: keys and values alike are arguments.

Every form is true or false, never NULL, so that NOT is right; and none casts a stored value, so
that none can fail. Containment (`@>`) is used wherever it says exactly what is asked, since an
index over the metadata (GIN, jsonb_path_ops) serves it: with a scalar or a list of scalars below
keys of objects it does. (The exception of `[1] @> 1` is for outermost values alone:
https://www.postgresql.org/docs/current/datatype-json.html#JSON-CONTAINMENT) Comparisons have the
expressions of `describe_index`, which declared fields are indexed by.

All of it needs plans that are made for the arguments: see `PLAN_FOR_ARGUMENTS`.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from memoryd.documents.filters import (
    And,
    Condition,
    Filter,
    MetadataField,
    Not,
    Operator,
    Or,
    OwnName,
    Value,
)
from memoryd.documents.types import FieldType

PLAN_FOR_ARGUMENTS = "SET LOCAL plan_cache_mode = force_custom_plan"
"""To execute in a transaction before statements that have filters.

Else Postgres may keep one plan for all arguments after a few executions: one that knows no keys, so
no index of a declared field, and no value, so not how many rows it keeps.
"""

# From here on a row's value is looked up in a hash table of the values: comparing it with each
# costs 0.1 µs a value, but an index serves that alone.
_MANY_VALUES = 64

# An index entry can have 2,704 bytes at most (a third of a page: BTMaxItemSize in PostgreSQL's
# nbtree.h): of a string, its beginning is indexed, in 1,024 bytes of UTF-8 at most.
_INDEXED_CHARACTERS = 256

_METADATA = "documents.metadata"
_COLUMNS: dict[OwnName, tuple[str, str]] = {
    "id": ('documents.external_id COLLATE "C"', "text"),
    "title": ('documents.title COLLATE "C"', "text"),
    "created_at": ("documents.created_at", "timestamptz"),
    "updated_at": ("documents.updated_at", "timestamptz"),
}
_ORDERS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# What the beginnings of two strings say, where the strings stand so.
_BEGINNINGS: dict[Operator, Operator] = {
    "gt": "gte",
    "gte": "gte",
    "lt": "lte",
    "lte": "lte",
    "prefix": "prefix",
}


def describe_index(keys: Sequence[str], kind: FieldType) -> tuple[str, str]:
    """Return what an index on a field of the metadata has, and the condition of its rows.

    `keys` are SQL: literals, or the arguments of a filter.
    """
    value = _value(keys)
    is_of_kind = f"coalesce(jsonb_typeof({value}) = '{kind}', false)"  # false where it is missing
    return (value if kind == "number" else _beginning(_text(keys))), is_of_kind


def compile_filter(wanted: Filter, arguments: list[Any]) -> str:
    """Return a condition in parentheses for rows of `documents`, which must be called that.

    `arguments` are those that the statement has so far, `$1` first; those of the filter are
    appended, and all go to asyncpg with the statement:

        arguments: list[Any] = [after]
        condition = compile_filter(wanted, arguments)
        rows = await connection.fetch(
            f"SELECT … FROM c_1.documents WHERE id > $1 AND {condition}", *arguments
        )
    """
    match wanted:
        case And(parts):
            return "(" + " AND ".join(compile_filter(part, arguments) for part in parts) + ")"
        case Or(parts):
            return "(" + " OR ".join(compile_filter(part, arguments) for part in parts) + ")"
        case Not(negated):
            return f"(NOT {compile_filter(negated, arguments)})"
    if isinstance(wanted.field, MetadataField):
        return f"({_of_metadata(wanted, wanted.field.keys, arguments)})"
    if wanted.operator == "exists":
        return "(true)"
    if wanted.field.name == "tags":
        return f"({_of_tags(wanted, arguments)})"
    return f"({_of_column(wanted, *_COLUMNS[wanted.field.name], arguments)})"


def compile_value(field: MetadataField, arguments: list[Any]) -> str:
    """Return the jsonb value of a field of `documents`, NULL where it is missing."""
    return _value([_bind(key, "text", arguments) for key in field.keys])


def _value(path: Sequence[str]) -> str:
    return f"({' -> '.join([_METADATA, *path])})"


def _bind(value: Any, kind: str, arguments: list[Any]) -> str:
    arguments.append(value)
    return f"${len(arguments)}::{kind}"


def _of_column(wanted: Condition, column: str, kind: str, arguments: list[Any]) -> str:
    if wanted.operator != "in":
        return _compare(column, wanted.operator, wanted.values[0], kind, arguments)
    values = _bind(wanted.values, f"{kind}[]", arguments)
    if len(wanted.values) < _MANY_VALUES:
        return f"{column} = ANY({values})"
    return f"{column} IN (SELECT unnest({values}))"


def _compare(left: str, operator: Operator, value: Value, kind: str, arguments: list[Any]) -> str:
    right = _bind(value, kind, arguments)
    if operator == "prefix":
        return f"starts_with({left}, {right})"
    if operator == "contains":
        return f"strpos({left}, {right}) > 0"
    return f"{left} {_ORDERS[operator]} {right}"


def _of_tags(wanted: Condition, arguments: list[Any]) -> str:
    if len(wanted.values) >= _MANY_VALUES:
        return _among_many(wanted, "to_jsonb(documents.tags)", arguments)
    operator = "&&" if wanted.operator == "any" else "@>"
    return f"documents.tags {operator} {_bind(wanted.values, 'text[]', arguments)}"


def _of_metadata(wanted: Condition, keys: Sequence[str], arguments: list[Any]) -> str:
    if 0 < len(wanted.values) < _MANY_VALUES and wanted.operator in ("in", "any", "all"):
        return _contained(wanted, keys, arguments)
    path = [_bind(key, "text", arguments) for key in keys]
    value, is_number = describe_index(path, "number")
    match wanted.operator, wanted.values:
        case ("exists", _) | ("all", ()):
            return f"{value} IS NOT NULL"
        case (("in" | "any" | "all"), _):
            return _among_many(wanted, value, arguments)
        case _, (str(operand),):
            return _of_string(path, wanted.operator, operand, arguments)
    comparison = _compare(value, wanted.operator, wanted.values[0], "jsonb", arguments)
    return f"{is_number} AND {comparison}"


def _of_string(path: Sequence[str], operator: Operator, operand: str, arguments: list[Any]) -> str:
    """Compare the string, and first its beginning where an index can serve that."""
    beginning, is_string = describe_index(path, "string")
    conditions = [is_string]
    if operator in _BEGINNINGS:
        cut = operand[:_INDEXED_CHARACTERS]
        conditions.append(_compare(beginning, _BEGINNINGS[operator], cut, "text", arguments))
    conditions.append(_compare(_text(path), operator, operand, "text", arguments))
    return " AND ".join(conditions)


def _text(path: Sequence[str]) -> str:
    *outer, last = path
    return f'({" -> ".join([_METADATA, *outer])} ->> {last}) COLLATE "C"'


def _beginning(text: str) -> str:
    return f'left({text}, {_INDEXED_CHARACTERS}) COLLATE "C"'


def _contained(wanted: Condition, keys: Sequence[str], arguments: list[Any]) -> str:
    """Say that the metadata contains one of some objects that hold nothing but the path."""
    alternatives = [_nested(keys, operand) for operand in _alternatives(wanted)]
    if len(alternatives) == 1:
        return f"{_METADATA} @> {_bind(alternatives[0], 'jsonb', arguments)}"
    return f"{_METADATA} @> ANY({_bind(alternatives, 'jsonb[]', arguments)})"


def _alternatives(wanted: Condition) -> list[Any]:
    """Return what the field may be, or may have the elements of."""
    values = list(wanted.values)
    if wanted.operator == "all":
        return [values, *(values if len(values) == 1 else ())]
    return [*values, *([value] for value in values if wanted.operator == "any")]


def _nested(keys: Sequence[str], value: Any) -> Any:
    return reduce(lambda inner, key: {key: inner}, reversed(keys), value)


def _among_many(wanted: Condition, value: str, arguments: list[Any]) -> str:
    """Say how a JSON value stands to many values, in time that doesn't grow with these.

    `coalesce` answers for a missing value, and keeps Postgres from making a join of it, which might
    read all the values for each row.
    """
    values = f"(SELECT jsonb_array_elements({_bind(wanted.values, 'jsonb', arguments)}))"
    if wanted.operator == "in":
        return f"coalesce({value} IN {values}, false)"
    found = (
        f"(SELECT count(DISTINCT item.value) FROM jsonb_array_elements({value} || '[]'::jsonb)"
        f" AS item WHERE coalesce(item.value IN {values}, false))"
    )
    return f"{found} >= {len(wanted.values) if wanted.operator == 'all' else 1:d}"
