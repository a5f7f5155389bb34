"""`memoryd backup`, `memoryd restore` and `memoryd db upgrade`, over embedded databases and not."""

import asyncio
import itertools
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from polling import until
from servers import Databases
from shell import Said, end, run, start
from toys import ToyLoader
from wire import Client

from memoryd.app import listen, open_memory
from memoryd.config import Settings
from memoryd.errors import DatabaseError
from memoryd.postgres.server import app_url, run_server
from memoryd.storage.database import open_database
from memoryd.storage.migrate import Branch, head, lacking, render_downgrade

DOCUMENTS = "/v1/collections/default/documents"
TEXTS = {"a": "The cat is black.", "b": "A red apple.", "c": "The dog saw a fish, and a bird."}
SCHEMAS: dict[Branch, str] = {"collection": "c_1", "shared": "memoryd"}

# What a collection holds, to the last bit of its vectors.
ROWS = """
SELECT d.external_id, d.version, d.text, d.metadata::text, v.embedding::text
FROM c_1.documents d JOIN c_1.vectors_1 v ON v.document_id = d.id ORDER BY 1
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that the user of Postgres can pass, which pytest's own is not for root."""
    path = Path(tempfile.mkdtemp(prefix="memoryd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def serving(data_dir: Path, models_dir: Path) -> AsyncIterator[Client]:
    """Serve a data directory from this process, with the toy model."""
    settings = Settings(port=(0,), data_dir=data_dir, models_dir=models_dir, model="toy")
    async with (
        open_memory(settings, ToyLoader(models_dir)) as (memory, server),
        listen(memory) as [url],
        Client(url) as client,
    ):
        assert server is not None
        server.announce(url)
        yield client


async def store(client: Client, texts: dict[str, str]) -> None:
    documents = [{"id": id_, "text": text} for id_, text in texts.items()]
    answer = (await client.post(DOCUMENTS, {"documents": documents})).ok()
    assert {outcome["status"] for outcome in answer["documents"]} == {"stored"}


async def found(client: Client, query: str) -> list[tuple[str, float]]:
    path = "/v1/collections/default/search"
    results = (await client.post(path, {"query": query})).ok()["results"]
    return [(result["document"]["id"], result["score"]) for result in results]


async def documents_in(data_dir: Path, models_dir: Path) -> set[str]:
    async with serving(data_dir, models_dir) as client:
        page = (await client.get(DOCUMENTS)).ok()
        return {document["id"] for document in page["documents"]}


async def make_documents(data_dir: Path, models_dir: Path, texts: dict[str, str] = TEXTS) -> None:
    async with serving(data_dir, models_dir) as client:
        await store(client, texts)


async def execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def fetch(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def ask(data_dir: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return rows of a database that nobody serves."""
    async with run_server(data_dir) as server:
        return await fetch(server.dsn, sql)


async def memoryd(command: str, *arguments: str | Path, data_dir: Path) -> Said:
    return await run(*command.split(), *map(str, arguments), "--data-dir", str(data_dir))


async def well(command: str, *arguments: str | Path, data_dir: Path) -> Said:
    said = await memoryd(command, *arguments, data_dir=data_dir)
    assert said.status == 0, said.err
    return said


async def test_what_is_backed_up_while_memoryd_serves_is_restored_elsewhere(
    place: Path, models_dir: Path
) -> None:
    source, copy, file = place / "data", place / "copy", place / "it.dump"
    async with serving(source, models_dir) as client:
        await store(client, TEXTS)
        dsn = app_url(source).replace("//app@", "//memoryd@")
        index = "CREATE INDEX nearby ON c_1.vectors_1 USING hnsw (embedding halfvec_cosine_ops)"
        await execute(dsn, f"SET search_path TO public; {index}")
        before, rows = await found(client, "cat"), await fetch(dsn, ROWS)
        said = await well("backup", file, data_dir=source)
        assert "1 collection with 3 documents" in said.out
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        await store(client, {"late": "A lemon."})
    said = await well("restore", file, data_dir=copy)
    assert "1 collection with 3 documents" in said.out
    async with serving(copy, models_dir) as client:
        dsn = app_url(copy).replace("//app@", "//memoryd@")
        assert await found(client, "cat") == before
        assert await fetch(dsn, ROWS) == rows
        [[definition]] = await fetch(
            dsn, "SELECT indexdef FROM pg_indexes WHERE indexname = 'nearby'"
        )
        assert "USING hnsw" in definition
        await store(client, {"new": "A green pear."})
        made = (await client.post("/v1/collections", {"name": "another"})).ok(201)
        assert made["name"] == "another"
        assert len(await found(client, "pear")) == 4


async def test_a_backup_needs_no_server(place: Path, models_dir: Path) -> None:
    await make_documents(place / "data", models_dir)
    told = (await well("backup", place / "it.dump", "--json", data_dir=place / "data")).json
    assert (told["collections"], told["documents"], told["api_keys"]) == (1, 3, 0)
    assert told["file"] == str(place / "it.dump")
    assert told["bytes"] == (place / "it.dump").stat().st_size
    assert told["revision"] == head("shared")
    assert not (place / "data" / "postgres" / "postmaster.pid").exists()


async def test_a_file_that_is_there_stays_unless_it_may_be_replaced(
    place: Path, models_dir: Path
) -> None:
    file = place / "it.dump"
    file.write_text("precious")
    await make_documents(place / "data", models_dir)
    said = await memoryd("backup", file, data_dir=place / "data")
    assert said.status == 1
    assert "--force" in said.err
    assert file.read_text() == "precious"
    await well("backup", file, "--force", data_dir=place / "data")
    assert file.read_bytes().startswith(b"PGDMP")


async def test_a_backup_that_fails_leaves_no_file_and_the_old_one(
    place: Path, models_dir: Path
) -> None:
    file = place / "it.dump"
    file.write_text("precious")
    said = await memoryd("backup", file, "--force", data_dir=place / "none")
    assert said.status == 1
    assert "there is no database" in said.err
    async with run_server(place / "data"):
        pass
    said = await memoryd("backup", file, "--force", data_dir=place / "data")
    assert said.status == 1
    assert "nothing to back up" in said.err
    assert file.read_text() == "precious"
    assert set(os.listdir(place)) == {"it.dump", "data"}  # noqa: PTH208 - in an async function


@pytest.mark.parametrize(
    ("target", "expected"), [("", "is no file"), ("none/it.dump", "there is no directory")]
)
async def test_a_path_where_no_file_can_be_is_named(
    place: Path, models_dir: Path, target: str, expected: str
) -> None:
    await make_documents(place / "data", models_dir)
    said = await memoryd("backup", place / target, "--force", data_dir=place / "data")
    assert said.status == 1
    assert expected in said.err


async def wait_for_a_lock(connection: asyncpg.Connection) -> None:
    """Return as soon as someone waits for what this connection has locked."""
    async with asyncio.timeout(15):
        for _ in itertools.count():
            if await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                return
            await asyncio.sleep(0.01)


async def test_collections_deleted_meanwhile_do_not_fail_a_backup(
    place: Path, models_dir: Path
) -> None:
    source, file = place / "data", place / "it.dump"
    async with serving(source, models_dir) as client:
        await store(client, TEXTS)
        (await client.post("/v1/collections", {"name": "doomed"})).ok(201)
        dsn = app_url(source).replace("//app@", "//memoryd@")
        connection = await asyncpg.connect(dsn)
        async with connection.transaction():
            await connection.execute(
                "DROP SCHEMA c_2 CASCADE; DELETE FROM memoryd.collections WHERE id = 2"
            )
            backup = asyncio.create_task(memoryd("backup", file, data_dir=source))
            await wait_for_a_lock(connection)
        await connection.close()
        said = await backup
    assert said.status == 0, said.err
    assert "1 collection with 3 documents" in said.out


async def test_a_database_that_holds_something_is_not_replaced_unasked(
    place: Path, models_dir: Path
) -> None:
    source, other, file = place / "data", place / "other", place / "it.dump"
    await make_documents(source, models_dir)
    await make_documents(other, models_dir, {"mine": "A horse."})
    await well("backup", file, data_dir=source)
    said = await memoryd("restore", file, data_dir=other)
    assert said.status == 1
    assert "1 collection with 1 document:" in said.err
    assert "--replace" in said.err
    assert await documents_in(other, models_dir) == {"mine"}


async def test_what_is_replaced_can_be_restored_again(place: Path, models_dir: Path) -> None:
    source, other, file = place / "data", place / "other", place / "it.dump"
    await make_documents(source, models_dir)
    await make_documents(other, models_dir, {"mine": "A horse."})
    await well("backup", file, data_dir=source)
    told = (await well("restore", file, "--replace", "--json", data_dir=other)).json
    assert told["documents"] == 3
    assert await documents_in(other, models_dir) == set(TEXTS)
    kept = Path(told["replaced"]["file"])
    assert kept.parent == other / "backups"
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    await well("restore", kept, "--replace", data_dir=other)
    assert await documents_in(other, models_dir) == {"mine"}
    assert await ask(other, "SELECT count(*) FROM pg_database") == [(4,)]


async def test_an_empty_default_collection_makes_way(place: Path, models_dir: Path) -> None:
    source, other, file = place / "data", place / "other", place / "it.dump"
    await make_documents(source, models_dir)
    await well("backup", file, data_dir=source)
    async with serving(other, models_dir):
        pass
    await well("restore", file, data_dir=other)
    assert await documents_in(other, models_dir) == set(TEXTS)


async def test_a_database_that_is_served_is_left_alone(place: Path, models_dir: Path) -> None:
    source, file = place / "data", place / "it.dump"
    async with serving(source, models_dir) as client:
        await store(client, TEXTS)
        await well("backup", file, data_dir=source)
        for command in (("restore", file, "--replace"), ("db upgrade",)):
            said = await memoryd(*map(str, command), data_dir=source)
            assert said.status == 1
            assert f"is in use by memoryd (process {os.getpid()}): stop it first" in said.err
        assert len(await found(client, "cat")) == 3


async def test_tables_of_ones_own_are_in_the_backup(place: Path, models_dir: Path) -> None:
    source, copy, file = place / "data", place / "copy", place / "it.dump"
    async with serving(source, models_dir):
        await execute(app_url(source), "CREATE TABLE notes AS SELECT '[1,2]'::vector AS note")
        await well("backup", file, data_dir=source)
    said = await memoryd("restore", file, data_dir=source)
    assert "1 table of your own" in said.err
    await well("restore", file, data_dir=copy)
    async with run_server(copy) as server:
        assert await fetch(server.app_dsn, "SELECT note::text FROM notes") == [("[1,2]",)]
        await execute(server.app_dsn, "DROP TABLE notes; CREATE TABLE more (x vector(3))")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await fetch(server.app_dsn, "SELECT name FROM memoryd.collections")


Spoil = Callable[[bytes], bytes]
UNREADABLE: list[tuple[Spoil, str]] = [
    (lambda _: b"", "no backup"),
    (lambda _: b"SELECT 1; -- not in the custom format", "no backup"),
    (lambda whole: whole[:40], "cut short or damaged"),
    (lambda whole: whole[: len(whole) // 8], "cut short or damaged"),
    (lambda whole: whole[: len(whole) // 2], "cut short or damaged"),
    (lambda whole: whole[:-1], "cut short or damaged"),
    (lambda whole: whole[:-500] + bytes(500), "cut short or damaged"),
]


async def test_a_file_that_is_no_whole_backup_changes_nothing(
    place: Path, models_dir: Path
) -> None:
    source, other, file = place / "data", place / "other", place / "it.dump"
    await make_documents(source, models_dir, {str(n): f"{os.urandom(999)!r}" for n in range(60)})
    await make_documents(other, models_dir, {"mine": "A horse."})
    await well("backup", file, data_dir=source)
    whole = file.read_bytes()
    for spoil, expected in UNREADABLE:
        file.write_bytes(spoil(whole))
        said = await memoryd("restore", file, "--replace", data_dir=other)
        assert said.status == 1
        assert f"cannot restore {file}: it is {expected}" in said.err
    assert await ask(other, "SELECT count(*) FROM pg_database") == [(4,)]
    assert await documents_in(other, models_dir) == {"mine"}


async def test_a_file_that_is_not_there_is_named(place: Path) -> None:
    said = await memoryd("restore", place / "none.dump", data_dir=place / "data")
    assert said.status == 1
    assert f"cannot read {place}/none.dump: No such file" in said.err
    assert not (place / "data").exists()


NEWER = {
    "UPDATE memoryd.alembic_version SET version_num = 'shared_9999'": "shared_9999",
    "UPDATE memoryd.collections SET revision = 'collection_9999'": "collection_9999",
}


@pytest.mark.parametrize("change", NEWER)
async def test_a_newer_schema_is_refused_and_left_untouched(
    place: Path, models_dir: Path, change: str
) -> None:
    data, copy, file = place / "data", place / "copy", place / "it.dump"
    await make_documents(data, models_dir)
    async with run_server(data) as server:
        await execute(server.dsn, change)
        rows = await fetch(server.dsn, ROWS)
        with pytest.raises(DatabaseError, match="newer memoryd"):
            async with open_database(server.dsn, max_connections=2):
                pass
    for command in ("db upgrade", "db upgrade --check", "db upgrade --no-backup"):
        said = await memoryd(command, data_dir=data)
        assert said.status == 1
        assert f"newer memoryd (its {NEWER[change].split('_')[0]} schema" in said.err
    assert not (data / "backups").exists()
    assert await ask(data, ROWS) == rows
    await well("backup", file, data_dir=data)
    said = await memoryd("restore", file, data_dir=copy)
    assert said.status == 1
    assert f"made by a newer memoryd (its {NEWER[change].split('_')[0]} schema" in said.err
    assert not copy.exists()


async def test_a_backup_of_something_else_is_refused(
    place: Path, models_dir: Path, databases: Databases
) -> None:
    programs = databases.server.postmaster.binaries
    dump = [str(programs / "pg_dump"), "--format=custom", f"--dbname={databases.dsn('template1')}"]
    with (place / "it.dump").open("wb") as file:
        process = await asyncio.create_subprocess_exec(*dump, stdout=file)
    assert await process.wait() == 0
    said = await memoryd("restore", place / "it.dump", data_dir=place / "data")
    assert said.status == 1
    assert "isn't memoryd's" in said.err
    assert not (place / "data").exists()


async def test_a_restore_that_is_killed_leaves_what_was_there(
    place: Path, models_dir: Path
) -> None:
    source, other, file = place / "data", place / "other", place / "it.dump"
    await make_documents(source, models_dir)
    async with run_server(source) as server:
        # Long to restore, for its index is made in order of a function that sleeps.
        await execute(server.dsn, "CREATE TABLE c_1.slow AS SELECT 1 AS x")
        await execute(
            server.dsn,
            "CREATE FUNCTION c_1.sleep(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(10 * (SELECT count(*) FROM pg_database"
            " WHERE datname = 'memoryd_new')); RETURN x; END $$;"
            "CREATE INDEX ON c_1.slow (c_1.sleep(x))",
        )
    await make_documents(other, models_dir, {"mine": "A horse."})
    await well("backup", file, data_dir=source)
    for number in (signal.SIGKILL, signal.SIGTERM):
        restoring = await start("restore", str(file), "--replace", "--data-dir", str(other))
        kept = other / "backups"
        seen = len(list(kept.glob("*.dump"))) if kept.exists() else 0
        await until(lambda: kept.exists() and len(list(kept.glob("*.dump"))) > seen)  # noqa: B023 - it ends within the turn
        await asyncio.sleep(1)
        restoring.send_signal(number)
        said = await end(restoring)
        assert said.status == (-9 if number == signal.SIGKILL else 143)
        assert await documents_in(other, models_dir) == {"mine"}


async def set_back(data_dir: Path) -> None:
    """Take the database to its first revisions, with the documents that it holds."""
    async with run_server(data_dir) as server:
        for branch, schema in SCHEMAS.items():
            sql = render_downgrade(branch, schema, head(branch), f"{branch}_0001")
            if sql.strip():
                await execute(server.dsn, sql)
        await execute(
            server.dsn,
            "UPDATE memoryd.alembic_version SET version_num = 'shared_0001';"
            "UPDATE memoryd.collections SET revision = 'collection_0001'",
        )


async def make_older(data_dir: Path, models_dir: Path) -> None:
    await make_documents(data_dir, models_dir)
    await set_back(data_dir)


async def test_an_upgrade_is_told_and_done_after_a_backup(place: Path, models_dir: Path) -> None:
    data = place / "data"
    await make_older(data, models_dir)
    pending = [{"branch": "shared", "revision": "shared_0001", "schemas": 1}]
    pending[0]["lacking"] = list(lacking("shared", "shared_0001"))
    if behind := lacking("collection", "collection_0001"):
        pending += [{"branch": "collection", "revision": "collection_0001", "schemas": 1}]
        pending[1]["lacking"] = list(behind)

    said = await memoryd("db upgrade", "--check", "--json", data_dir=data)
    assert said.status == 1
    assert said.json == {"pending": pending, "backup": None}
    said = await memoryd("db upgrade --check", data_dir=data)
    assert f"(at shared_0001): {', '.join(pending[0]['lacking'])} pending" in said.out
    assert not (data / "backups").exists()

    told = (await well("db upgrade", "--json", data_dir=data)).json
    assert told["pending"] == pending
    assert (told["backup"]["revision"], told["backup"]["documents"]) == ("shared_0001", 3)
    assert (await well("db upgrade --check", data_dir=data)).out == "the database is up to date\n"
    assert await documents_in(data, models_dir) == set(TEXTS)
    restored = (await well("restore", told["backup"]["file"], "--json", data_dir=place / "b")).json
    assert (restored["revision"], restored["documents"]) == (head("shared"), 3)
    assert await documents_in(place / "b", models_dir) == set(TEXTS)


async def test_an_upgrade_can_do_without_a_backup(place: Path, models_dir: Path) -> None:
    await make_older(place / "data", models_dir)
    said = await well("db upgrade --no-backup", data_dir=place / "data")
    assert "the shared schema (at shared_0001): shared_0002" in said.out
    assert said.out.endswith(" done\n")
    assert not (place / "data" / "backups").exists()
    assert await documents_in(place / "data", models_dir) == set(TEXTS)


async def test_memoryd_upgrades_when_it_starts_after_a_backup_of_which_three_are_kept(
    place: Path, models_dir: Path
) -> None:
    data = place / "data"
    await make_documents(data, models_dir)
    seen: list[Path] = []
    for _ in range(4):
        await set_back(data)
        assert await documents_in(data, models_dir) == set(TEXTS)
        kept = sorted((data / "backups").glob("before-upgrade-*.dump"))
        seen = [*seen, kept[-1]]
    assert kept == seen[-3:]
    assert await documents_in(data, models_dir) == set(TEXTS)
    assert sorted((data / "backups").iterdir()) == kept


async def test_memoryd_does_not_start_its_upgrade_if_the_backup_fails(
    place: Path, models_dir: Path
) -> None:
    data = place / "data"
    await make_older(data, models_dir)
    (data / "backups").write_text("in the way")
    said = await run("serve", "--data-dir", str(data), "--models-dir", str(models_dir))
    assert said.status == 1
    assert "cannot back up the database before its upgrade: cannot write" in said.err
    assert "memoryd db upgrade --no-backup" in said.err
    assert await ask(data, "SELECT version_num FROM memoryd.alembic_version") == [("shared_0001",)]


async def test_a_data_directory_of_another_postgres_is_told_the_way(place: Path) -> None:
    (place / "postgres").mkdir()
    (place / "postgres" / "PG_VERSION").write_text("17\n")
    for command in (("backup", place / "it.dump"), ("db upgrade",)):
        said = await memoryd(*map(str, command), data_dir=place)
        assert said.status == 1
        assert "is a database of PostgreSQL 17, and this memoryd runs PostgreSQL 18" in said.err
        assert "`memoryd backup` of the version that made it" in said.err
    assert [path.name for path in (place / "postgres").iterdir()] == ["PG_VERSION"]
    assert not (place / "it.dump").exists()


async def test_a_postgres_of_ones_own_is_backed_up_and_restored_both_ways(
    place: Path,
    models_dir: Path,
    databases: Databases,
    empty_database_name: str,
) -> None:
    own = databases.dsn(empty_database_name)
    await execute(own, "CREATE TABLE public.theirs (x int); CREATE SCHEMA other")
    data, file = place / "data", place / "it.dump"
    await make_documents(data, models_dir)
    rows = await ask(data, ROWS)
    await well("backup", file, data_dir=data)

    told = (await well("restore", file, "--json", "--database-url", own, data_dir=data)).json
    assert told["documents"] == 3
    assert await fetch(own, ROWS) == rows
    said = await memoryd("restore", file, "--database-url", own, data_dir=data)
    assert said.status == 1
    assert "holds memoryd's tables already" in said.err
    said = await memoryd("restore", file, "--replace", "--database-url", own, data_dir=data)
    assert "its own database alone" in said.err

    back = place / "back.dump"
    await well("backup", back, "--database-url", own, data_dir=data)
    await well("restore", back, data_dir=place / "copy")
    assert await ask(place / "copy", ROWS) == rows
    assert await ask(place / "copy", "SELECT to_regclass('public.theirs')::text") == [(None,)]
    assert await documents_in(place / "copy", models_dir) == set(TEXTS)


async def test_a_password_is_not_told_of_a_server_that_does_not_answer(place: Path) -> None:
    url = "postgresql://me:hush@127.0.0.1:1/none"
    said = await memoryd("backup", place / "it.dump", "--database-url", url, data_dir=place)
    assert said.status == 1
    assert "cannot connect to the database" in said.err
    assert "hush" not in said.err
