"""A collection's own table of documents, filled and asked without the API."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from filter_oracle import Doc

from memoryd.documents.filters import parse_filter
from memoryd.documents.types import Chunking, Collection, FieldType
from memoryd.storage.collections import create_collection
from memoryd.storage.database import Database
from memoryd.storage.field_indexes import sync_field_indexes
from memoryd.storage.filters import compile_filter


def select(columns: str, condition: str) -> str:
    """Return a statement over the documents."""
    return f"SELECT {columns} FROM c_1.documents WHERE {condition}"  # noqa: S608 - it is tested


@dataclass(frozen=True)
class Table:
    """Be the table of the documents of a collection."""

    database: Database
    collection: Collection

    async def add(self, docs: Sequence[Doc]) -> None:
        """Write documents."""
        async with self.database.connection() as connection:
            await connection.executemany(
                "INSERT INTO c_1.documents"
                " (external_id, metadata, title, tags, created_at, updated_at, version, text,"
                " content_hash) VALUES ($1, $2, $3, $4, $5, $6, 1, '', '')",
                [(d.id, d.metadata, d.title, d.tags, d.created_at, d.updated_at) for d in docs],
            )
            await connection.execute("ANALYZE c_1.documents")

    async def declare(self, fields: dict[str, FieldType]) -> None:
        """Make the indexes of these fields, and drop others."""
        await sync_field_indexes(self.database, replace(self.collection, indexed_fields=fields))

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

    async def explain(self, value: Any, *settings: str, rest: str = "") -> str:
        """Return how Postgres finds what the filter keeps."""
        arguments: list[Any] = []
        condition = compile_filter(parse_filter(value), arguments)
        async with self.database.transaction() as connection:
            for setting in settings:
                await connection.execute(f"SET LOCAL {setting}")
            statement = f"EXPLAIN {select('*', condition)} {rest}"
            rows = await connection.fetch(statement, *arguments)
        return "\n".join(row[0] for row in rows)


async def make_table(database: Database) -> Table:
    """Make a collection with nothing in it."""
    collection = await create_collection(
        database,
        name="kb",
        model="toy",
        dimensions=4,
        precision="half",
        chunking=Chunking(),
        language="english",
        metadata={},
    )
    return Table(database, collection)
