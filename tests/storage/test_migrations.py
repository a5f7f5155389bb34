import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from schemas import describe
from servers import Databases
from sqlalchemy.ext.asyncio import create_async_engine

from memoryd.documents.types import Chunking, Collection
from memoryd.errors import DatabaseError, MemorydError
from memoryd.storage import collections
from memoryd.storage.database import Database, open_database
from memoryd.storage.migrate import (
    ADVISORY_LOCK,
    head,
    migrations_directory,
    render_downgrade,
    render_upgrade,
)
from memoryd.storage.tables import collection_schema, describe_collection, shared

Branch = Literal["shared", "collection"]


async def make(database: Database, name: str, **options: Any) -> Collection:
    given = {"model": "toy", "dimensions": 16, "precision": "half"} | options
    given |= {"chunking": Chunking(), "language": "english", "metadata": {}}
    return await collections.create_collection(database, name=name, **given)


async def names_in(connection: asyncpg.Connection, schema: str) -> set[str]:
    return {row[1] for row in await describe(connection, schema)}


@pytest.mark.parametrize("branch", ["shared", "collection"])
async def test_down_and_up_again_gives_the_same_schema(
    databases: Databases, empty_database_name: str, branch: Branch
) -> None:
    connection = await asyncpg.connect(databases.dsn(empty_database_name))
    schema = "memoryd" if branch == "shared" else "c_1"
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(render_upgrade(branch, schema, None))
    first = await describe(connection, schema)
    assert len(first) > 10
    await connection.execute(render_downgrade(branch, schema, head(branch), None))
    assert await describe(connection, schema) == []
    await connection.execute(render_upgrade(branch, schema, None))
    assert await describe(connection, schema) == first
    await connection.close()


@pytest.mark.parametrize("branch", ["shared", "collection"])
async def test_every_revision_can_be_stepped_back_and_forth(
    databases: Databases, empty_database_name: str, branch: Branch
) -> None:
    connection = await asyncpg.connect(databases.dsn(empty_database_name))
    schema = "memoryd" if branch == "shared" else "c_1"
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(render_upgrade(branch, schema, None))
    newest = await describe(connection, schema)
    scripts = ScriptDirectory(str(migrations_directory()))
    for script in scripts.iterate_revisions(f"{branch}@head", f"{branch}@base"):
        older = script.down_revision
        assert older is None or isinstance(older, str)
        await connection.execute(render_downgrade(branch, schema, head(branch), older))
        await connection.execute(render_upgrade(branch, schema, older))
        assert await describe(connection, schema) == newest
    await connection.close()


def differences(connection: sa.Connection, metadata: sa.MetaData, schema: str) -> list[Any]:
    def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "schema" or name == schema

    def is_described(_object: Any, name: str | None, kind: str, *_rest: Any) -> bool:
        return not (kind == "table" and name == "alembic_version")

    options = {
        "compare_type": True,
        "include_schemas": True,
        "include_name": is_ours,
        "include_object": is_described,
        "target_metadata": metadata,
    }
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, metadata))


@pytest_asyncio.fixture
async def compare(dsn: str) -> AsyncIterator[Any]:
    # With the role's own search_path, `memoryd` would be the default schema, without a name.
    settings = {"search_path": "public"}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(dsn, server_settings=settings),
    )

    async def run(metadata: sa.MetaData, schema: str) -> list[Any]:
        async with engine.connect() as connection:
            return await connection.run_sync(differences, metadata, schema)

    yield run
    await engine.dispose()


async def test_the_shared_schema_is_as_described(compare: Any) -> None:
    assert await compare(shared, "memoryd") == []


@pytest.mark.parametrize(("precision", "dimensions"), [("half", 384), ("full", 7)])
async def test_a_collections_schema_is_as_described(
    database: Database, compare: Any, precision: str, dimensions: int
) -> None:
    made = await make(database, "kb", precision=precision, dimensions=dimensions)
    schema = collection_schema(made.number)
    assert await compare(describe_collection(schema, precision, dimensions), schema) == []


async def test_the_comparison_sees_what_differs(
    database: Database, connection: asyncpg.Connection, compare: Any
) -> None:
    made = await make(database, "kb", dimensions=16)
    schema = collection_schema(made.number)
    [[change]] = await compare(describe_collection(schema, "half", 17), schema)
    assert change[0] == "modify_type"
    assert (await compare(describe_collection(schema, "full", 16), schema))[0][0][0] == (
        "modify_type"
    )
    await connection.execute(f"DROP INDEX {schema}.chunks_1_document_id_position_idx")
    await connection.execute(f"ALTER TABLE {schema}.documents ADD extra int")
    described = describe_collection(schema, "half", 16)
    kinds = {change[0] for change in await compare(described, schema)}
    assert kinds == {"add_index", "remove_column"}


@pytest.mark.parametrize(("precision", "dimensions"), [("half", 384), ("full", 7)])
async def test_the_described_tables_are_the_migrated_ones_to_the_last_name(
    database: Database, connection: asyncpg.Connection, precision: str, dimensions: int
) -> None:
    """Compare names, collations and identities too, which Alembic doesn't."""
    made = await make(database, "kb", precision=precision, dimensions=dimensions)
    migrated = await describe(connection, collection_schema(made.number))
    metadata = describe_collection("described", precision, dimensions)
    await connection.execute("CREATE SCHEMA described; SET search_path TO public")
    statements: list[sa.schema.ExecutableDDLElement] = [
        sa.schema.CreateSequence(sa.Sequence("chunk_ids", schema="described"))
    ]
    for table in metadata.sorted_tables:
        statements += [sa.schema.CreateTable(table), *map(sa.schema.CreateIndex, table.indexes)]
    for statement in statements:
        sql = str(statement.compile(dialect=sa.dialects.postgresql.dialect()))
        await connection.execute(sql)
    # How a column is stored is set by memoryd and is not in the description.
    for column in (
        "vectors_1 ALTER embedding SET STORAGE PLAIN",
        "lexical_1 ALTER frequencies SET STORAGE MAIN",
    ):
        await connection.execute(f"ALTER TABLE described.{column}")
    described = [
        tuple(part.replace("described.", f"{collection_schema(made.number)}.") for part in row)
        for row in await describe(connection, "described")
    ]
    assert described == migrated


async def test_opening_again_changes_nothing(
    dsn: str, database: Database, connection: asyncpg.Connection
) -> None:
    made = await make(database, "kb")
    before = await describe(connection, "memoryd")
    async with open_database(dsn, max_connections=2) as again:
        assert await collections.find_collection(again, "kb") == made
    assert await describe(connection, "memoryd") == before


async def open_and_close(dsn: str) -> None:
    async with open_database(dsn, max_connections=2):
        pass


async def test_a_newer_shared_schema_is_refused(dsn: str, connection: asyncpg.Connection) -> None:
    await connection.execute("UPDATE memoryd.alembic_version SET version_num = 'shared_9999'")
    with pytest.raises(DatabaseError, match=r"newer memoryd.*shared_9999.*install that version"):
        await open_and_close(dsn)
    assert await connection.fetchval("SELECT version_num FROM memoryd.alembic_version") == (
        "shared_9999"
    )


async def test_a_newer_collection_is_refused(
    dsn: str, database: Database, connection: asyncpg.Connection
) -> None:
    await make(database, "kb")
    await connection.execute("UPDATE memoryd.collections SET revision = 'collection_9999'")
    with pytest.raises(DatabaseError, match=r"newer memoryd.*collection_9999"):
        await open_and_close(dsn)


async def set_back(connection: asyncpg.Connection, made: Collection) -> None:
    """Take an (empty) collection back to before its first revision, as one interrupted would be."""
    schema = collection_schema(made.number)
    await connection.execute(f"DROP TABLE {schema}.vectors_1")
    await connection.execute(render_downgrade("collection", schema, head("collection"), None))
    unset = "UPDATE memoryd.collections SET revision = '' WHERE id = $1"
    await connection.execute(unset, made.number)


async def test_an_interrupted_migration_goes_on_where_it_stopped(
    dsn: str, database: Database, connection: asyncpg.Connection
) -> None:
    done, behind = await make(database, "done"), await make(database, "behind")
    expected = await names_in(connection, collection_schema(done.number))
    await connection.execute("INSERT INTO c_1.documents (external_id, version, content_hash,"
        " title, text, metadata, tags, created_at, updated_at)"
        " VALUES ('a', 1, '', '', 'x', '{}', '{}', now(), now())")  # fmt: skip
    await set_back(connection, behind)
    await open_and_close(dsn)
    schema = collection_schema(behind.number)
    assert await names_in(connection, schema) == expected - {
        name for name in expected if name.startswith("vectors_1")
    }
    revisions = await connection.fetch("SELECT DISTINCT revision FROM memoryd.collections")
    assert [row[0] for row in revisions] == [head("collection")]
    assert await connection.fetchval("SELECT count(*) FROM c_1.documents") == 1


async def test_a_collection_that_fails_to_migrate_leaves_those_before_it_migrated(
    dsn: str, database: Database, connection: asyncpg.Connection
) -> None:
    first, second = await make(database, "first"), await make(database, "second")
    for made in (first, second):
        await set_back(connection, made)
    blocker = collection_schema(second.number)
    await connection.execute(f"CREATE TABLE {blocker}.chunks (in_the_way int)")
    with pytest.raises(DatabaseError, match="chunks"):
        await open_and_close(dsn)
    revisions = "SELECT revision FROM memoryd.collections ORDER BY id"
    found = [row[0] for row in await connection.fetch(revisions)]
    assert found == [head("collection"), ""]
    assert await names_in(connection, blocker) == {"chunks"}
    await connection.execute(f"DROP TABLE {blocker}.chunks")
    await open_and_close(dsn)
    assert {row[0] for row in await connection.fetch(revisions)} == {head("collection")}


async def test_making_a_collection_waits_for_a_migration(
    database: Database, connection: asyncpg.Connection
) -> None:
    await connection.execute("SELECT pg_advisory_lock($1)", ADVISORY_LOCK)
    making = asyncio.create_task(make(database, "kb"))
    await asyncio.sleep(0.3)
    assert not making.done()
    assert await connection.fetchval("SELECT count(*) FROM memoryd.collections") == 0
    await connection.execute("SELECT pg_advisory_unlock($1)", ADVISORY_LOCK)
    assert (await making).name == "kb"


async def test_a_migration_waits_for_a_collection_that_is_being_made(
    dsn: str, connection: asyncpg.Connection
) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock_shared($1)", ADVISORY_LOCK)
        opening = asyncio.create_task(open_and_close(dsn))
        await asyncio.sleep(0.3)
        assert not opening.done()
    await opening


async def test_many_memoryds_opening_one_new_database_migrate_it_once(
    databases: Databases, empty_database_name: str
) -> None:
    dsn = databases.dsn(empty_database_name)
    await asyncio.gather(*(open_and_close(dsn) for _ in range(6)))
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT version_num FROM memoryd.alembic_version")
    assert [row[0] for row in rows] == [head("shared")]
    await connection.close()


async def test_a_collection_that_is_deleted_leaves_nothing_behind(
    database: Database, connection: asyncpg.Connection
) -> None:
    left = (
        "SELECT (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_class),"
        " (SELECT count(*) FROM pg_type), (SELECT count(*) FROM pg_constraint),"
        " (SELECT count(*) FROM memoryd.collections), (SELECT count(*) FROM memoryd.aliases)"
    )
    before = await connection.fetchrow(left)
    made = await make(database, "kb")
    await collections.move_alias(database, made, "live")
    assert await connection.fetchrow(left) != before
    await collections.delete_collection(database, made)
    assert await connection.fetchrow(left) == before


async def test_a_collection_that_fails_to_be_made_leaves_nothing_behind(
    database: Database, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE SCHEMA c_1; CREATE TABLE c_1.documents (x int)")
    with pytest.raises(MemorydError):
        await make(database, "kb")
    assert await connection.fetchval("SELECT count(*) FROM memoryd.collections") == 0
