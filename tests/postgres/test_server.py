import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio
from polling import until

from memoryd.errors import DataDirectoryError, PostgresError
from memoryd.postgres.accounts import find_account
from memoryd.postgres.binaries import COPIED, find_site, usable_binaries
from memoryd.postgres.commands import run_as
from memoryd.postgres.directories import layout_of
from memoryd.postgres.server import Server, app_url, read_lock, run_server
from memoryd.postgres.tuning import GIB, MIB, Machine, tune

IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root can be another user")

RUN = """
import asyncio, sys
from pathlib import Path
from memoryd.postgres.server import run_server

async def main():
    async with run_server(Path(sys.argv[1])) as server:
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""

# Becomes an ordinary user only after its imports, for that user may not reach this Python.
BECOME_NOBODY = """
import asyncio, os, pwd, socket, sys
from pathlib import Path
from memoryd.errors import DataDirectoryError
from memoryd.postgres.server import run_server

user = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
"""

ENTER = """
try:
    os.listdir(sys.argv[1])
except PermissionError:
    print("can't list")
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[2])
except PermissionError:
    print("can't connect")
"""

START = """
async def main():
    async with run_server(Path(sys.argv[1])):
        pass

try:
    asyncio.run(main())
except DataDirectoryError as error:
    print(error)
"""


def run_python(script: str, *arguments: Path) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def fetch(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def postmaster_pid(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split("\n")[0])


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that the user of Postgres can pass, which pytest's own is not for root."""
    with private_place() as path:
        yield path


@contextlib.contextmanager
def private_place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="memoryd-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[Server]:
    with private_place() as path:
        async with run_server(path / "data") as running:
            yield running


async def test_a_new_data_directory_gets_a_database_that_opens_fast_the_next_time(
    place: Path,
) -> None:
    data_dir = place / "data"
    async with run_server(data_dir) as server:
        await fetch(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    started = time.monotonic()
    async with run_server(data_dir) as server:
        assert time.monotonic() - started < 1
        assert server.is_ready
        assert await fetch(server.dsn, "SELECT answer FROM kept") == 42
    assert not server.is_ready
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


async def test_what_memoryd_makes_is_private_and_what_it_finds_keeps_its_mode(place: Path) -> None:
    data_dir = place / "srv" / "data"
    data_dir.parent.mkdir(mode=0o755)
    data_dir.mkdir(mode=0o755)
    before = [path.stat() for path in (data_dir, data_dir.parent)]
    async with run_server(data_dir):
        for name in ("postgres", "run"):
            assert mode_of(data_dir / name) == 0o700
        assert mode_of(data_dir / "run" / ".s.PGSQL.5432") == 0o700
        assert mode_of(data_dir / "memoryd.lock") == 0o600
    after = [path.stat() for path in (data_dir, data_dir.parent)]
    assert [(s.st_mode, s.st_uid) for s in before] == [(s.st_mode, s.st_uid) for s in after]


@as_root
async def test_another_os_user_can_neither_look_nor_connect(server: Server) -> None:
    socket_dir = server.postmaster.socket_dir
    assert mode_of(socket_dir.parent) == 0o700
    arguments = (socket_dir.parent, socket_dir / ".s.PGSQL.5432")
    said = await asyncio.to_thread(run_python, BECOME_NOBODY + ENTER, *arguments)
    assert said.splitlines() == ["can't list", "can't connect"]


@as_root
async def test_postgres_runs_as_the_system_user_when_root_starts_it(server: Server) -> None:
    pid = postmaster_pid(server.postmaster.layout.data_dir)
    process = psutil.Process(pid)
    assert process.username() == "memoryd"
    assert process.gids().real == pwd.getpwnam("memoryd").pw_gid
    assert not [name for name in process.environ() if name.startswith(("PG", "MEMORYD_"))]


async def test_nothing_listens_on_a_network(server: Server) -> None:
    pid = postmaster_pid(server.postmaster.layout.data_dir)
    assert psutil.Process(pid).net_connections("inet") == []


async def test_a_second_memoryd_is_refused_and_told_who_has_the_data_directory(
    server: Server,
) -> None:
    data_dir = server.postmaster.layout.data_dir
    server.announce("http://127.0.0.1:8765")
    with pytest.raises(DataDirectoryError) as refusal:
        async with run_server(data_dir):
            pass
    expected = f"is in use by memoryd (process {os.getpid()}, http://127.0.0.1:8765)"
    assert expected in refusal.value.message
    holder = read_lock(data_dir)
    assert holder is not None
    assert (holder.pid, holder.url) == (os.getpid(), "http://127.0.0.1:8765")


def test_nobody_holds_a_data_directory_that_is_not_there(place: Path) -> None:
    assert read_lock(place / "data") is None


async def test_a_lock_without_its_holder_counts_for_nothing(place: Path) -> None:
    (place / "memoryd.lock").write_text(json.dumps({"pid": 1, "url": "http://gone"}))
    assert read_lock(place) is None


async def test_the_app_role_has_public_and_vector_but_nothing_of_memoryd(server: Server) -> None:
    await fetch(server.dsn, "CREATE SCHEMA memoryd")
    await fetch(server.dsn, "CREATE TABLE memoryd.secret AS SELECT 1 AS x")
    await fetch(server.app_dsn, "CREATE TABLE notes (id int, embedding vector(3))")
    await fetch(server.app_dsn, "INSERT INTO notes VALUES (1, '[1,2,3]')")
    distance = await fetch(server.app_dsn, "SELECT embedding <-> '[1,2,4]' FROM public.notes")
    assert distance == 1.0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await fetch(server.app_dsn, "SELECT x FROM memoryd.secret")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await fetch(server.app_dsn, "CREATE SCHEMA mine")


async def test_memoryd_is_no_superuser_and_makes_databases_that_know_vector(
    server: Server,
) -> None:
    assert await fetch(server.dsn, "SELECT current_setting('is_superuser')") == "off"
    await fetch(server.dsn, "CREATE DATABASE another")
    dsn = server.dsn.replace("@/memoryd?", "@/another?")
    assert await fetch(dsn, "SELECT '[1]'::halfvec::text") == "[1]"


async def test_letters_are_unicode_letters(server: Server) -> None:
    assert await fetch(server.dsn, "SELECT lower('ÉCOLE') || initcap('élan')") == "écoleÉlan"
    lexemes = "SELECT tsvector_to_array(to_tsvector('simple', '“Straße”—日本語、naïve'))"
    assert await fetch(server.dsn, lexemes) == ["naïve", "straße", "日本語"]
    assert await fetch(server.dsn, "SELECT current_setting('data_checksums')") == "on"


async def test_a_killed_postgres_comes_back_by_itself_with_its_data(place: Path) -> None:
    data_dir = place / "data"
    async with run_server(data_dir) as server:
        await fetch(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
        # A backend at work doesn't notice that its postmaster is gone, and holds the memory.
        busy = asyncio.create_task(fetch(server.dsn, "SELECT sum(x) FROM generate_series(1,1e9) x"))
        await asyncio.sleep(0.2)
        first = postmaster_pid(data_dir)
        os.kill(first, signal.SIGKILL)
        await until(lambda: not server.is_ready)
        await until(lambda: server.is_ready)
        with pytest.raises((OSError, asyncpg.PostgresError)):
            await busy
        assert postmaster_pid(data_dir) != first
        assert await fetch(server.dsn, "SELECT answer FROM kept") == 42


async def test_a_postgres_left_by_a_killed_memoryd_is_stopped_and_its_data_opened(
    place: Path,
) -> None:
    data_dir = place / "data"
    memoryd = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN, data_dir, stdout=asyncio.subprocess.PIPE
    )
    assert memoryd.stdout is not None
    assert await memoryd.stdout.readline() == b"ready\n"
    await fetch(app_url(data_dir), "CREATE TABLE kept AS SELECT 42 AS answer")
    left = postmaster_pid(data_dir)
    memoryd.kill()
    await memoryd.wait()
    assert psutil.Process(left).name() == "postgres"
    assert read_lock(data_dir) is None
    async with run_server(data_dir) as server:
        assert postmaster_pid(data_dir) != left
        assert await fetch(server.app_dsn, "SELECT answer FROM kept") == 42


async def test_a_postgres_that_is_still_writing_is_waited_for_by_the_next_start(
    place: Path,
) -> None:
    async with run_server(place / "data", stop_grace_s=0) as server:
        await fetch(server.dsn, "CREATE TABLE kept AS SELECT x FROM generate_series(1, 300000) x")
    async with run_server(place / "data") as server:
        assert await fetch(server.dsn, "SELECT count(*) FROM kept") == 300_000


async def test_a_pid_file_whose_pid_is_another_program_by_now_does_not_matter(place: Path) -> None:
    data_dir = place / "data"
    async with run_server(data_dir):
        pass
    other = await asyncio.create_subprocess_exec("sleep", "60")
    account = find_account()
    try:
        stale = f"{other.pid}\n{data_dir}/postgres\n1\n5432\n{data_dir}/run\n\n1 1\nready\n"
        for path in (data_dir / "postgres/postmaster.pid", data_dir / "run/.s.PGSQL.5432.lock"):
            path.write_text(stale)
            account.take(path)
        async with run_server(data_dir) as server:
            assert await fetch(server.dsn, "SELECT 1") == 1
        assert other.returncode is None
    finally:
        other.kill()
        await other.wait()


async def test_an_interrupted_initialization_is_not_taken_for_a_database(place: Path) -> None:
    data_dir = place / "data"
    memoryd = await asyncio.create_subprocess_exec(sys.executable, "-c", RUN, data_dir)
    await until(lambda: any(data_dir.glob("postgres.new-*/PG_VERSION")))
    memoryd.kill()
    await memoryd.wait()
    assert not (data_dir / "postgres").exists()
    with pytest.raises(DataDirectoryError, match="no database"):
        app_url(data_dir)
    async with run_server(data_dir) as server:
        assert await fetch(server.app_dsn, "SELECT '[1]'::vector::text") == "[1]"
        assert app_url(data_dir) == server.app_dsn
    assert not list(data_dir.glob("postgres.new-*"))


async def test_a_database_of_another_major_version_is_named_and_left_alone(place: Path) -> None:
    (place / "postgres").mkdir()
    (place / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(DataDirectoryError, match=r"PostgreSQL 16.*memoryd runs PostgreSQL 18"):
        async with run_server(place):
            pass
    assert [path.name for path in (place / "postgres").iterdir()] == ["PG_VERSION"]


async def test_a_directory_that_is_no_database_is_left_alone(place: Path) -> None:
    (place / "postgres").mkdir()
    with pytest.raises(DataDirectoryError, match="not a PostgreSQL database"):
        async with run_server(place):
            pass


async def test_a_file_in_place_of_the_data_directory_is_named(place: Path) -> None:
    (place / "data").write_text("")
    with pytest.raises(DataDirectoryError, match=r"Not a directory: .*/data"):
        async with run_server(place / "data"):
            pass


@as_root
async def test_a_data_directory_that_cannot_be_written_is_explained(place: Path) -> None:
    said = await asyncio.to_thread(run_python, BECOME_NOBODY + START, place)
    assert f"cannot use the data directory {place}: Permission denied" in said
    assert f"make it yours: sudo chown -R $(id -un) {place}" in said
    said = await asyncio.to_thread(run_python, BECOME_NOBODY + START, place / "new")
    assert f"sudo install -d -o $(id -un) {place}/new" in said


@as_root
async def test_a_directory_that_keeps_the_system_user_out_is_named(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DataDirectoryError) as refusal:
        async with run_server(closed / "data"):
            pass
    assert f"the user memoryd, who can't enter {closed};" in refusal.value.message
    assert f"chmod o+x {closed}" in refusal.value.message
    assert mode_of(closed) == 0o700


@as_root
async def test_binaries_that_the_system_user_cannot_reach_are_copied(place: Path) -> None:
    closed = place / "closed"
    for part in COPIED:
        shutil.copytree(find_site() / part, closed / part, symlinks=True)
    closed.chmod(0o700)
    account, layout = find_account(), layout_of(place)
    binaries = await usable_binaries(closed, layout, account)
    assert await usable_binaries(closed, layout, account) == binaries
    copy = binaries.relative_to(layout.data_dir).parts[0]
    assert copy.startswith("binaries-0.")
    assert "18." in await run_as(account, binaries / "initdb", "--version")


@pytest.mark.parametrize("name", ["long-" * 20, "to, be"])
async def test_a_path_that_does_not_do_for_a_socket_has_it_elsewhere(
    place: Path, name: str
) -> None:
    data_dir = place / name
    async with run_server(data_dir) as server:
        socket_dir = server.postmaster.socket_dir
        try:
            assert not socket_dir.is_relative_to(data_dir)
            assert mode_of(socket_dir) == 0o700
            assert await fetch(app_url(data_dir), "SELECT 1") == 1
        finally:
            shutil.rmtree(socket_dir)


async def test_a_socket_directory_that_others_can_enter_is_refused(place: Path) -> None:
    (place / "run").mkdir(mode=0o755)
    find_account().take(place / "run")
    with pytest.raises(DataDirectoryError, match=r"mode 0700.*remove it"):
        async with run_server(place):
            pass
    assert mode_of(place / "run") == 0o755


async def test_a_postgres_that_does_not_start_says_why(place: Path) -> None:
    async with run_server(place):
        pass
    with (place / "postgres" / "postgresql.auto.conf").open("a") as settings:
        settings.write("shared_buffers = 'plenty'\n")
    with pytest.raises(PostgresError, match=r"doesn't start:\n(.*\n)*.*shared_buffers.*plenty"):
        async with run_server(place):
            pass


async def test_settings_are_those_of_memoryd(server: Server) -> None:
    assert await fetch(server.dsn, "SHOW jit") == "off"
    assert await fetch(server.dsn, "SHOW timezone") == "UTC"
    assert await fetch(server.dsn, "SHOW max_locks_per_transaction") == "1024"
    assert await fetch(server.dsn, "SHOW listen_addresses") == ""


def test_settings_follow_the_machine_within_bounds() -> None:
    small = tune(Machine(512 * MIB, 1, 64 * MIB))
    assert small["shared_buffers"] == "128MB"
    assert small["max_parallel_workers_per_gather"] == "0"
    assert small["dynamic_shared_memory_type"] == "mmap"
    middle = tune(Machine(16 * GIB, 4, 8 * GIB))
    assert middle["shared_buffers"] == "2048MB"
    assert middle["maintenance_work_mem"] == "1024MB"
    assert middle["max_parallel_maintenance_workers"] == "2"
    assert middle["dynamic_shared_memory_type"] == "posix"
    large = tune(Machine(1024 * GIB, 64, 512 * GIB))
    assert large["shared_buffers"] == "8192MB"
    assert large["max_parallel_workers_per_gather"] == "4"
    assert large["max_worker_processes"] == "64"
