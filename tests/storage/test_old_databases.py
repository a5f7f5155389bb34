"""Databases of earlier memoryds, with rows in them, which must migrate without loss."""

import io
from typing import Any

import asyncpg
import numpy as np
import pytest
import pytest_asyncio
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from schemas import describe
from servers import Databases

from memoryd.documents.types import Chunk, Chunking, Collection, Draft
from memoryd.storage import acceptance, collections, dense, documents
from memoryd.storage import chunks as stored_chunks
from memoryd.storage.acceptance import Terms
from memoryd.storage.database import Database, open_database
from memoryd.storage.migrate import head, migrations_directory, render_downgrade

OLD_SHARED, OLD_COLLECTION = "shared_0002", "collection_0001"

# As the memoryd of those revisions wrote them.
COLLECTIONS = """
INSERT INTO memoryd.collections (name, model, dimensions, precision, chunking, language, metadata,
  revision, vector_table, created_at, updated_at) VALUES
  ('full of it', 'toy', 3, 'half', '{"max_tokens": 64, "overlap_tokens": 16}', 'english',
   '{"a": [1, null]}', 'collection_0001', 1, '2025-01-01Z', '2025-01-02Z'),
  ('empty', 'other', 5, 'full', '{"max_tokens": 256, "overlap_tokens": 32}', 'german',
   '{}', 'collection_0001', 1, '2025-02-01Z', '2025-02-02Z');
INSERT INTO memoryd.aliases SELECT 'live', id FROM memoryd.collections WHERE name = 'empty';
INSERT INTO memoryd.api_keys (secret_hash, name, scopes, collection_ids, created_at)
  VALUES ('x', 'key', '{read}', '{1}', '2025-01-01Z');
"""
VECTORS = """
CREATE TABLE {schema}.vectors_1 (chunk_id bigint PRIMARY KEY
  REFERENCES {schema}.chunks ON DELETE CASCADE, document_id bigint NOT NULL,
  embedding {type} NOT NULL);
CREATE INDEX vectors_1_document_id_idx ON {schema}.vectors_1 (document_id);
ALTER TABLE {schema}.vectors_1 ALTER COLUMN embedding SET STORAGE PLAIN;
"""
DOCUMENTS = """
INSERT INTO c_1.documents (external_id, version, content_hash, title, text, mime_type, language,
  metadata, tags, chunk_count, created_at, updated_at)
  SELECT 'd' || n, n, decode(lpad(to_hex(n), 32, '0'), 'hex'), 'Title ' || n, repeat('word ', n),
  'text/plain', NULL, jsonb_build_object('n', n), ARRAY['x', 'y' || n], n % 4, '2025-03-01Z',
  '2025-03-02Z' FROM generate_series(1, 40) n;
DELETE FROM c_1.documents WHERE external_id = 'd7';
INSERT INTO c_1.chunks (document_id, position, start_char, end_char, token_count, hash, text)
  SELECT d.id, p, p * 5, p * 5 + 4, 7, decode(lpad(to_hex(d.id * 10 + p), 32, '0'), 'hex'),
  'chunk ' || d.id || ' ' || p FROM c_1.documents d, generate_series(0, d.chunk_count - 1) p;
INSERT INTO c_1.vectors_1 SELECT id, document_id, ARRAY[1, document_id, position]::real[]::halfvec
  FROM c_1.chunks;
"""


def render_until(revision: str, schema: str) -> str:
    """Return the SQL of all revisions up to that one."""
    buffer = io.StringIO()
    options = {"as_sql": True, "output_buffer": buffer, "schema": schema}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    scripts = ScriptDirectory(str(migrations_directory()))
    with Operations.context(context):
        for script in reversed(list(scripts.iterate_revisions(revision, "base"))):
            script.module.upgrade()
    return buffer.getvalue()


async def rows_of(connection: asyncpg.Connection, *tables: str) -> dict[str, list[str]]:
    """Return the rows of each table as text, whatever the order of their columns."""
    found = {}
    for table in tables:
        rows = await connection.fetch(f"SELECT to_jsonb(t)::text AS row FROM {table} t")  # noqa: S608 - a name of ours
        found[table] = sorted(row["row"] for row in rows)
    return found


SCHEMAS = ("memoryd", "c_1", "c_2")
TABLES = (
    *("memoryd.collections", "memoryd.aliases", "memoryd.api_keys"),
    *("c_1.documents", "c_1.chunks", "c_1.vectors_1"),
    *("c_2.documents", "c_2.chunks", "c_2.vectors_1"),
)


@pytest.fixture
def old_dsn(databases: Databases, empty_database_name: str) -> str:
    return databases.dsn(empty_database_name)


@pytest_asyncio.fixture
async def old(old_dsn: str) -> Any:
    """Give a connection to a database as the last released memoryd left it."""
    connection = await asyncpg.connect(old_dsn)
    await connection.execute(
        "SET search_path TO public; CREATE SCHEMA memoryd; CREATE SCHEMA c_1; CREATE SCHEMA c_2;"
        "CREATE TABLE memoryd.alembic_version (version_num varchar(32) PRIMARY KEY);"
    )
    await connection.execute("INSERT INTO memoryd.alembic_version VALUES ($1)", OLD_SHARED)
    await connection.execute(render_until(OLD_SHARED, "memoryd") + COLLECTIONS)
    for schema, kind in (("c_1", "halfvec(3)"), ("c_2", "vector(5)")):
        await connection.execute(render_until(OLD_COLLECTION, schema))
        await connection.execute(VECTORS.format(schema=schema, type=kind))
    await connection.execute(DOCUMENTS)
    yield connection
    await connection.close()


async def store(database: Database, collection: Collection, id_: str) -> None:
    async with database.transaction() as connection:
        draft = Draft("new text", id=id_)
        await acceptance.accept(connection, collection, [draft], Terms())
        document = await documents.lock_document(connection, collection, id_)
        made = stored_chunks.Embedding(
            collection.active,
            [Chunk(0, "new text", b"hash")],
            [],
            [stored_chunks.Embedded(0, np.ones(collection.dimensions, dtype=np.float32))],
        )
        await documents.write_document(
            connection, collection, document.number, document.version, draft, b"h", 1, [made]
        )


async def test_an_old_database_migrates_with_all_its_rows(
    old_dsn: str, old: asyncpg.Connection
) -> None:
    newest_chunk = await old.fetchval("SELECT max(id) FROM c_1.chunks")
    async with open_database(old_dsn, max_connections=2) as database:
        collection = await collections.find_collection(database, "full of it")
        assert (collection.model, collection.dimensions, collection.precision) == ("toy", 3, "half")
        assert collection.chunking == Chunking(64, 16, "auto")
        assert collection.metadata == {"a": [1, None]}
        assert len(collection.generations) == 1
        found = await documents.list_documents(database, collection, after=0, limit=100)
        assert [document.id for document in found] == [f"d{n}" for n in range(1, 41) if n != 7]
        assert [document.chunk_count for document in found] == [
            document.version % 4 for document in found
        ]
        assert all(document.status == "stored" for document in found)
        one = await documents.read_document(database, collection, "d5")
        assert (one.text, one.title, one.tags) == ("word " * 5, "Title 5", ["x", "y5"])
        chunks = await stored_chunks.list_chunks(database, collection, one, after=-1, limit=10)
        assert [(c.position, c.text, c.token_count) for c in chunks] == [
            (0, f"chunk {one.number} 0", 7)
        ]
        query = np.array([1, one.number, 0], dtype=np.float32)
        async with database.snapshot() as connection:
            found, _ = await dense.search_dense(
                connection,
                collection,
                query,
                depth=1,
                wanted=None,
                settings=dense.DenseSettings(),
            )
        assert found.chunks.tolist() == [chunks[0].number]

        await store(database, collection, "new")
        new = await documents.require_document(database, collection, "new")
        [chunk] = await stored_chunks.list_chunks(database, collection, new, after=-1, limit=2)
        assert chunk.number == newest_chunk + 1
        other = await collections.find_collection(database, "live")
        assert (other.name, other.model, other.precision) == ("empty", "other", "full")
        await store(database, other, "first")


async def test_a_migrated_database_goes_back_without_loss(
    old_dsn: str, old: asyncpg.Connection
) -> None:
    before = await rows_of(old, *TABLES)
    shapes = [await describe(old, schema) for schema in SCHEMAS]
    assert len(before["c_1.documents"]) == 39
    assert len(before["c_1.vectors_1"]) > 50
    async with open_database(old_dsn, max_connections=2):
        pass
    migrated = await old.fetchval("SELECT version_num FROM memoryd.alembic_version")
    assert migrated == head("shared")
    for schema in ("c_1", "c_2"):
        sql = render_downgrade("collection", schema, head("collection"), OLD_COLLECTION)
        await old.execute(sql)
    await old.execute(render_downgrade("shared", "memoryd", head("shared"), OLD_SHARED))
    await old.execute("UPDATE memoryd.collections SET revision = $1", OLD_COLLECTION)
    await old.execute("UPDATE memoryd.alembic_version SET version_num = $1", OLD_SHARED)
    assert await rows_of(old, *TABLES) == before
    assert [await describe(old, schema) for schema in SCHEMAS] == shapes
    # What it writes then has numbers that are free.
    await old.execute(
        "INSERT INTO c_1.chunks (document_id, position, start_char, end_char, token_count, hash,"
        " text) SELECT id, 9, 0, 1, 1, '', 'x' FROM c_1.documents LIMIT 1"
    )
    async with open_database(old_dsn, max_connections=2) as database:
        collection = await collections.find_collection(database, "full of it")
        assert len(await documents.list_documents(database, collection, after=0, limit=99)) == 39


async def test_an_interrupted_migration_of_an_old_database_goes_on(
    old_dsn: str, old: asyncpg.Connection
) -> None:
    before = await rows_of(old, "c_1.vectors_1", "c_2.vectors_1")
    await old.execute("CREATE TABLE c_2.drafts (in_the_way int)")
    with pytest.raises(Exception, match="drafts"):
        async with open_database(old_dsn, max_connections=2):
            pass
    revisions = "SELECT revision FROM memoryd.collections ORDER BY id"
    found = [row[0] for row in await old.fetch(revisions)]
    assert found == [head("collection"), OLD_COLLECTION]
    await old.execute("DROP TABLE c_2.drafts")
    async with open_database(old_dsn, max_connections=2):
        pass
    assert await rows_of(old, "c_1.vectors_1", "c_2.vectors_1") == before
