"""How many documents there are, and how many of each value of a field."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from memoryd.documents.filters import Filter, MetadataField
from memoryd.documents.types import Collection
from memoryd.storage.database import Database
from memoryd.storage.filters import PLAN_FOR_ARGUMENTS, compile_filter, compile_value
from memoryd.storage.tables import collection_schema

Scalar: TypeAlias = str | int | float | bool | None

# A path of `$[*]` has the elements of a list (and of anything else the thing itself: such is the
# lax mode, so that it never fails: https://www.postgresql.org/docs/current/functions-json.html).
_FOUND = (
    "SELECT value FROM stored WHERE jsonb_typeof(value) NOT IN ('array', 'object')"
    " UNION ALL SELECT item.value FROM stored CROSS JOIN LATERAL"
    " (SELECT DISTINCT element AS value FROM jsonb_path_query(stored.value, '$[*]') AS element"
    " WHERE jsonb_typeof(element) NOT IN ('array', 'object')) AS item"
    " WHERE jsonb_typeof(stored.value) = 'array'"
)
_SHOWN = (
    "CASE jsonb_typeof(found.value) WHEN 'number' THEN to_jsonb(trim_scale(found.value::numeric))"
    " ELSE found.value END"
)
_ORDER = (
    "jsonb_typeof(found.value), CASE jsonb_typeof(found.value)"
    " WHEN 'string' THEN found.value #>> '{}' END COLLATE \"C\", found.value"
)


@dataclass(frozen=True)
class Facet:
    """Be a value, and the number of documents that have it."""

    value: Scalar
    count: int


async def count_stored(
    database: Database, collection: Collection, wanted: Filter | None = None
) -> int:
    """Return how many stored documents are `wanted`; None: all."""
    arguments: list[Any] = []
    stored = _select_stored("count(*)", collection, wanted, arguments)
    [row] = await _fetch(database, stored, arguments)
    return int(row["count"])


async def count_values(
    database: Database,
    collection: Collection,
    field: MetadataField | None,
    *,
    limit: int,
    wanted: Filter | None = None,
) -> list[Facet]:
    """Return the `limit` most frequent values of a field in stored documents that are `wanted`.

    None is the documents' tags. An element of a list is a value, which a document has once;
    objects, and lists in lists, are none. Numbers that are equal are one, which has no zeros at
    its end. Those that are as frequent come as booleans, null, numbers, strings, the least first.
    """
    arguments: list[Any] = []
    value = "to_jsonb(documents.tags)" if field is None else compile_value(field, arguments)
    stored = _select_stored(f"{value} AS value", collection, wanted, arguments)
    rows = await _fetch(
        database,
        f"WITH stored AS MATERIALIZED ({stored}), found AS ({_FOUND})"
        f" SELECT {_SHOWN} AS value, count(*) AS count FROM found GROUP BY found.value"
        f" ORDER BY count DESC, {_ORDER} LIMIT {limit:d}",
        arguments,
    )
    return [Facet(row["value"], row["count"]) for row in rows]


def _select_stored(
    columns: str, collection: Collection, wanted: Filter | None, arguments: list[Any]
) -> str:
    """Return the statement that reads stored documents; `arguments` get those of the filter."""
    condition = "true" if wanted is None else compile_filter(wanted, arguments)
    return (
        f"SELECT {columns} FROM {collection_schema(collection.number)}.documents"
        f" WHERE documents.version > 0 AND {condition}"
    )


async def _fetch(
    database: Database, statement: str, arguments: Sequence[Any]
) -> list[asyncpg.Record]:
    async with database.snapshot(PLAN_FOR_ARGUMENTS) as connection:
        return await connection.fetch(statement, *arguments)
