"""Indexes of a collection's declared fields, made and dropped while others read and write.

An index is named by a hash of its definition. So one whose definition is no longer the one that
`compile_filter` writes is dropped too, and made anew.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from memoryd.documents.filters import MetadataField, parse_field
from memoryd.documents.types import Collection, FieldType
from memoryd.storage.database import Connection, Database
from memoryd.storage.filters import describe_index
from memoryd.storage.tables import collection_schema

_PREFIX = "documents_field_"


@dataclass(frozen=True)
class _Index:
    name: str
    """Of the index, and of the statistics of its expression."""
    expression: str
    condition: str


async def sync_field_indexes(database: Database, collection: Collection) -> None:
    """Make the indexes of declared fields that are missing, and drop those of others.

    One that was left half-made is made again. Raises NotFoundError where the collection is deleted
    meanwhile. No two callers may be about one collection at once.
    """
    async with database.connection_apart() as connection:
        declared = {index.name: index for index in await _declared(connection, collection)}
        found = await _find_indexes(connection, collection)
        for name, is_valid in found.items():
            if name not in declared or not is_valid:
                await _drop(connection, collection, name)
        missing = [index for name, index in declared.items() if not found.get(name)]
        for index in missing:
            await _create(connection, collection, index)
        if missing:
            await connection.execute(f"ANALYZE {collection_schema(collection.number)}.documents")


async def _create(connection: Connection, collection: Collection, index: _Index) -> None:
    """Make an index, and statistics of the same: Postgres uses none of an index of some rows."""
    schema = collection_schema(collection.number)
    await connection.execute(
        f"CREATE STATISTICS IF NOT EXISTS {schema}.{index.name}"
        f" ON ({index.expression}) FROM {schema}.documents"
    )
    await connection.execute(
        f"CREATE INDEX CONCURRENTLY {index.name} ON {schema}.documents (({index.expression}))"
        f" WHERE {index.condition}"
    )


async def _drop(connection: Connection, collection: Collection, name: str) -> None:
    schema = collection_schema(collection.number)
    await connection.execute(f"DROP STATISTICS IF EXISTS {schema}.{name}")
    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.{name}")


async def _find_indexes(connection: Connection, collection: Collection) -> dict[str, bool]:
    """Return the names of what there is, and whether it is a valid index, or only a part of one."""
    rows = await connection.fetch(
        "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
        " WHERE indrelid = to_regclass($1) AND starts_with(relname, $2)"
        " UNION ALL SELECT stxname, false FROM pg_statistic_ext"
        " WHERE stxrelid = to_regclass($1) AND starts_with(stxname, $2) ORDER BY indisvalid",
        f"{collection_schema(collection.number)}.documents",
        _PREFIX,
    )
    return {row["relname"]: row["indisvalid"] for row in rows}  # the valid one is the last


async def _declared(connection: Connection, collection: Collection) -> list[_Index]:
    """Return the indexes that there should be; two paths of one key share theirs."""
    return [
        _describe(kind, await _quote(connection, _keys(path)))
        for path, kind in collection.indexed_fields.items()
    ]


def _keys(path: str) -> Sequence[str]:
    field = parse_field(path, "indexed_fields")
    assert isinstance(field, MetadataField)  # noqa: S101 - others are refused where it is declared
    return field.keys


async def _quote(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Return keys as literals, since an index's definition takes no arguments."""
    literals: list[str] = await connection.fetchval(
        "SELECT array_agg(quote_literal(key) || '::text' ORDER BY place)"
        " FROM unnest($1::text[]) WITH ORDINALITY AS keys (key, place)",
        keys,
    )
    return literals


def _describe(kind: FieldType, keys: Sequence[str]) -> _Index:
    expression, condition = describe_index(keys, kind)
    digest = hashlib.sha256(f"{expression} {condition}".encode()).hexdigest()[:16]
    return _Index(f"{_PREFIX}{digest}", expression, condition)
