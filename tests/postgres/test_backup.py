"""pg_dump and pg_restore over real servers, one of them of an earlier major version."""

import asyncio
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest
from polling import until

from memoryd.config import Settings
from memoryd.documents.types import Chunking
from memoryd.errors import BackupError, DatabaseError, DataDirectoryError, PostgresError
from memoryd.memory.backups import Source, back_up, open_source, own_source
from memoryd.memory.restoring import restore_into_empty
from memoryd.postgres import access
from memoryd.postgres.access import Access, access_of, reach
from memoryd.postgres.accounts import find_account
from memoryd.postgres.backup import dump, read_archive, read_rows
from memoryd.postgres.backup_files import forget_old, name_kept, whole_file
from memoryd.postgres.binaries import PACKAGE, find_site
from memoryd.postgres.commands import run_as
from memoryd.postgres.directories import layout_of
from memoryd.postgres.lock import hold_lock
from memoryd.postgres.programs import Programs, own_programs, split_password
from memoryd.postgres.replacement import new_database, put_in_place
from memoryd.postgres.server import Server, run_server
from memoryd.storage.collections import create_collection
from memoryd.storage.database import open_database
from memoryd.storage.snapshots import exported_snapshot

EARLIER_MAJOR = 16
# Documents are counted before pg_dump runs; of vectors it alone reads.
LOCK_VECTORS = "LOCK TABLE c_1.vectors_1 IN ACCESS EXCLUSIVE MODE"


def ignore(*_told: object) -> None:
    """Take progress that nobody looks at."""


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that the user of Postgres can pass, which pytest's own is not for root."""
    path = Path(tempfile.mkdtemp(prefix="memoryd-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def source(postgres: Server, dsn: str) -> Source:
    """Give the way to a database with memoryd's schema."""
    url = dsn.replace("//memoryd@", "//postgres@")
    return Source(dsn, url, access_of(postgres).programs)


async def execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def fetch(dsn: str, sql: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def make_collection(dsn: str, name: str = "kb") -> None:
    async with open_database(dsn, max_connections=2) as database:
        await create_collection(
            database,
            name=name,
            model="toy",
            dimensions=16,
            precision="half",
            chunking=Chunking(),
            language="english",
            metadata={},
        )


@pytest.mark.parametrize(
    ("url", "address", "password"),
    [
        ("postgresql://me:a%40b@host:5433/db", "postgresql://me@host:5433/db", "a@b"),
        ("postgres://me@host/db?sslmode=require", "postgres://me@host/db?sslmode=require", None),
        ("postgresql:///db?host=/run&password=a%20b", "postgresql:///db?host=/run", "a b"),
        ("postgresql://me:x@one:1,two:2/db", "postgresql://me@one:1,two:2/db", "x"),
        ("postgresql://host/db", "postgresql://host/db", None),
    ],
)
def test_a_password_goes_into_the_environment(url: str, address: str, password: str | None) -> None:
    assert split_password(url) == (address, password)
    programs = own_programs(password)
    assert programs.popen_options["env"].get("PGPASSWORD") == password


async def test_a_program_that_is_missing_is_named(place: Path) -> None:
    with pytest.raises(PostgresError, match="cannot run pg_dump: No such file"):
        await Programs(place, {}).run("pg_dump")


async def test_a_program_that_fails_says_why(postgres: Server) -> None:
    programs = access_of(postgres).programs
    with pytest.raises(PostgresError, match=r"pg_restore failed: .*unrecognized option"):
        await programs.run("pg_restore", "--no-such-option")


async def test_a_backup_tells_what_it_has(source: Source, place: Path) -> None:
    await make_collection(source.dsn)
    await back_up(source, place / "it.dump", ignore)
    with (place / "it.dump").open("rb") as file:
        archive = await read_archive(source.programs, file)
        rows = await read_rows(source.programs, file, "memoryd", ["collections"])
    found = {(entry.kind, entry.schema, entry.name) for entry in archive.entries}
    assert ("TABLE DATA", "c_1", "documents") in found
    assert ("SCHEMA", "-", "c_1") in found
    assert {entry.owner for entry in archive.entries if entry.kind == "TABLE"} == {"memoryd"}
    assert archive.postgres_major == 18
    assert [(row["id"], row["name"], row["language"]) for row in rows] == [("1", "kb", "english")]


async def test_a_backup_is_of_one_moment(source: Source, place: Path) -> None:
    await make_collection(source.dsn)
    with (place / "it.dump").open("wb") as file:
        async with exported_snapshot(source.dsn) as snapshot:
            await make_collection(source.dsn, "late")
            await dump(source.programs, source.url, file, ignore, snapshot=snapshot.id)
    with (place / "it.dump").open("rb") as file:
        rows = await read_rows(source.programs, file, "memoryd", ["collections"])
    assert [row["name"] for row in rows] == ["kb"]
    assert snapshot.contents.collections == ("kb",)


async def test_a_full_disk_ends_a_backup(source: Source) -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: ASYNC230, PTH123 - a device that is always full
        async with exported_snapshot(source.dsn) as snapshot, asyncio.timeout(15):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                await dump(source.programs, source.url, full, ignore, snapshot=snapshot.id)


async def test_a_backup_that_is_canceled_ends_pg_dump_and_leaves_no_file(
    source: Source, connection: asyncpg.Connection, place: Path
) -> None:
    await make_collection(source.dsn)
    me = psutil.Process()

    def dumping() -> bool:
        return any(child.name() == "pg_dump" for child in me.children(recursive=True))

    async with connection.transaction():
        await connection.execute(LOCK_VECTORS)
        task = asyncio.create_task(back_up(source, place / "it.dump", ignore))
        await until(dumping)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        await until(lambda: not dumping())
    assert os.listdir(place) == []  # noqa: PTH208 - in an async function


def test_a_file_is_whole_and_private_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "it.dump"
    with pytest.raises(TypeError), whole_file(path) as file:
        file.write("no bytes")  # type: ignore[arg-type] # what fails
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_last_three_of_an_occasion_are_kept(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    paths = [name_kept(layout, occasion) for occasion in ("before-x",) * 5 + ("before-y",) * 2]
    for path in paths:
        path.touch()
    forget_old(paths[4], "before-x")
    assert sorted((tmp_path / "backups").iterdir()) == sorted(paths[2:])
    assert stat.S_IMODE((tmp_path / "backups").stat().st_mode) == 0o700


async def test_a_database_newer_than_pg_dump_is_refused(
    source: Source, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoryd.memory.backups.MAJOR", 17)
    with pytest.raises(DatabaseError, match=r"is PostgreSQL 18.*pg_dump is 17's.*--format=custom"):
        await back_up(source, place / "it.dump", ignore)
    assert os.listdir(place) == []  # noqa: PTH208 - in an async function


async def test_a_backup_of_a_newer_postgres_is_refused(source: Source, place: Path) -> None:
    file = place / "it.dump"
    await back_up(source, file, ignore)
    whole = file.read_bytes()
    assert whole.count(b"18.", 0, 200) == 2  # of the server and of pg_dump
    for newer, expected in (
        (whole.replace(b"18.", b"19.", 2), "comes from PostgreSQL 19, and this memoryd has 18"),
        (whole[:6] + b"\x63" + whole[7:], r"newer pg_dump .*\(1\.99\)"),  # of the format
    ):
        file.write_bytes(newer)
        with pytest.raises(BackupError, match=expected):
            await restore_into_empty(Settings(data_dir=place / "data"), file, ignore)
    assert not (place / "data").exists()


@asynccontextmanager
async def fresh(place: Path) -> AsyncIterator[Access]:
    async with run_server(place / "data") as server:
        yield access_of(server)


async def test_a_new_database_takes_the_place_of_one_in_use(place: Path) -> None:
    async with fresh(place) as way:
        held = await asyncpg.connect(way.url(role="app"))
        await execute(way.dsn, "CREATE TABLE old AS SELECT 1")
        async with new_database(way) as name:
            await execute(way.url(name), "CREATE TABLE new AS SELECT '[1]'::vector AS x")
            await put_in_place(way)
        await until(held.is_closed)
        assert await fetch(way.dsn, "SELECT to_regclass('old')::text, x::text FROM new") == [
            (None, "[1]")
        ]
        names = "SELECT datname FROM pg_database WHERE datname LIKE 'memoryd%'"
        assert await fetch(way.dsn, names) == [("memoryd",)]


async def test_a_new_database_that_fails_is_gone_and_so_are_leftovers(place: Path) -> None:
    names = "SELECT datname FROM pg_database WHERE datname LIKE 'memoryd%'"
    async with fresh(place) as way:
        await execute(way.dsn, "CREATE DATABASE memoryd_new")
        await execute(way.dsn, "CREATE DATABASE memoryd_old")
        with pytest.raises(ZeroDivisionError):
            async with new_database(way):
                raise ZeroDivisionError
        assert await fetch(way.dsn, names) == [("memoryd",)]


async def test_a_database_is_reached_beside_who_serves_it(postgres: Server) -> None:
    data_dir = postgres.postmaster.layout.data_dir
    async with reach(data_dir) as way:
        assert way.dsn == postgres.dsn
        await execute(way.url(role="postgres"), "SELECT pg_current_wal_lsn()")
    assert postgres.is_ready


async def test_one_that_does_not_get_ready_is_not_waited_for_for_ever(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_server(place):
        pass
    monkeypatch.setattr(access, "READY_TIMEOUT_S", 0.1)
    with hold_lock(layout_of(place)), pytest.raises(DataDirectoryError, match="try again"):
        async with reach(place):
            pass


async def test_copies_of_other_binaries_go_with_a_start_and_not_with_a_look(
    place: Path,
) -> None:
    other = place / "data" / "binaries-0.0.1"
    async with run_server(place / "data"):
        other.mkdir()
        async with reach(place / "data"):
            pass
        assert other.exists()
    async with run_server(place / "data"):
        assert not other.exists()


@pytest.fixture
async def earlier(place: Path) -> AsyncIterator[str]:
    """Give the address of an empty database of PostgreSQL 16 with pgvector."""
    binaries, account = find_site() / PACKAGE / "pginstall" / "bin", find_account()
    try:
        said = await run_as(account, binaries / "postgres", "--version")
    except PostgresError as error:
        pytest.skip(f"it can't be run from here: {error.message}")
    assert f" {EARLIER_MAJOR}." in said
    pgdata = place / "earlier"
    pgdata.mkdir(mode=0o700)
    account.take(pgdata)
    options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync")
    await run_as(account, binaries / "initdb", "--pgdata", pgdata, *options)
    process = await asyncio.create_subprocess_exec(
        *(binaries / "postgres", "-D", pgdata, "-k", pgdata, "-c", "listen_addresses="),
        **account.popen_options,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until((pgdata / ".s.PGSQL.5432").exists)
        url = f"postgresql://postgres@/%s?host={pgdata}"
        await until_answered(url % "postgres")
        await execute(url % "postgres", "CREATE DATABASE theirs")
        yield url % "theirs"
    finally:
        process.terminate()
        await process.wait()


async def until_answered(dsn: str) -> None:
    async with asyncio.timeout(15):
        while True:
            try:
                return await execute(dsn, "SELECT 1")
            except (asyncpg.PostgresError, OSError):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("with_their_own", [False, True])
async def test_what_an_earlier_postgres_holds_is_restored_into_this_one(
    earlier: str, place: Path, with_their_own: bool
) -> None:
    await make_collection(earlier)
    file = place / "it.dump"
    if with_their_own:
        binaries = find_site() / PACKAGE / "pginstall" / "bin"
        with file.open("wb") as opened:
            options = ("--format=custom", f"--dbname={earlier}")
            await Programs(binaries, {}).run("pg_dump", *options, stdout=opened)
    else:
        await back_up(own_source(earlier), file, ignore)
    settings = Settings(data_dir=place / "data")
    restored = await restore_into_empty(settings, file, ignore)
    assert restored.contents.collections == ("kb",)
    async with open_source(settings) as source:
        owner = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('memoryd', 'c_1')"
        assert await fetch(source.dsn, owner) == [("memoryd",)]
        await make_collection(source.dsn, "another")


async def test_a_postgres_that_is_too_old_to_restore_into_is_told(
    earlier: str, source: Source, place: Path
) -> None:
    await make_collection(source.dsn)
    await back_up(source, place / "it.dump", ignore)
    settings = Settings.model_validate({"data_dir": place / "data", "database_url": earlier})
    with pytest.raises(BackupError, match=r"PostgreSQL 16.*17 or newer.*its own pg_dump"):
        await restore_into_empty(settings, place / "it.dump", ignore)
    assert await fetch(earlier, "SELECT to_regnamespace('memoryd')") == [(None,)]
