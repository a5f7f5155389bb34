import asyncio
from collections.abc import AsyncIterator

import asyncpg
import numpy as np
import pytest
import pytest_asyncio
from pgvector import HalfVector, Vector
from servers import Databases

from memoryd.documents.types import Chunking
from memoryd.errors import (
    DatabaseError,
    DatabaseUnavailableError,
    MemorydError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from memoryd.storage import collections
from memoryd.storage.database import Database, open_database, translated


async def open_and_close(dsn: str) -> None:
    async with open_database(dsn, max_connections=2):
        pass


@pytest_asyncio.fixture
async def as_superuser(
    databases: Databases, empty_database_name: str
) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(databases.dsn(empty_database_name, "postgres"))
    yield connection
    await connection.close()


async def test_a_pgvector_that_is_too_old_is_refused(
    databases: Databases, empty_database_name: str, as_superuser: asyncpg.Connection
) -> None:
    await as_superuser.execute(
        "UPDATE pg_extension SET extversion = '0.8.3' WHERE extname = 'vector'"
    )
    with pytest.raises(DatabaseError, match=r"pgvector 0\.8\.3.*needs 0\.8\.4.*ALTER EXTENSION"):
        await open_and_close(databases.dsn(empty_database_name))
    assert await as_superuser.fetchval("SELECT to_regnamespace('memoryd')") is None


@pytest.mark.parametrize("version", ["0.8.4", "0.10", "1.0.0", "0.8.5-beta1"])
async def test_a_newer_pgvector_is_taken(
    databases: Databases,
    empty_database_name: str,
    as_superuser: asyncpg.Connection,
    version: str,
) -> None:
    await as_superuser.execute(
        "UPDATE pg_extension SET extversion = $1 WHERE extname = 'vector'", version
    )
    await open_and_close(databases.dsn(empty_database_name))


@pytest.mark.parametrize("schema", ["extensions", "Ext With Spaces"])
async def test_pgvector_may_live_in_another_schema(
    databases: Databases,
    empty_database_name: str,
    as_superuser: asyncpg.Connection,
    schema: str,
) -> None:
    await as_superuser.execute(
        f'DROP EXTENSION vector; CREATE SCHEMA "{schema}";'
        f' CREATE EXTENSION vector SCHEMA "{schema}"; GRANT USAGE ON SCHEMA "{schema}" TO memoryd'
    )
    dsn = databases.dsn(empty_database_name)
    async with open_database(dsn, max_connections=2) as database:
        await collections.create_collection(
            database,
            name="kb",
            model="toy",
            dimensions=3,
            precision="half",
            chunking=Chunking(),
            language="english",
            metadata={},
        )
        async with database.connection() as connection:
            sent = np.array([1, 2, 3], dtype=np.float32)
            got = await connection.fetchval("SELECT $1::vector", sent)
            assert np.array_equal(got.to_numpy(), sent)


async def test_a_database_without_pgvector_that_may_not_create_it_says_what_to_do(
    databases: Databases, empty_database_name: str, as_superuser: asyncpg.Connection
) -> None:
    await as_superuser.execute("DROP EXTENSION vector")
    with pytest.raises(DatabaseError, match=r"(?s)no pgvector.*CREATE EXTENSION vector.*superuser"):
        await open_and_close(databases.dsn(empty_database_name))


async def test_a_superuser_gets_pgvector_created_in_public(
    databases: Databases, empty_database_name: str, as_superuser: asyncpg.Connection
) -> None:
    await as_superuser.execute("DROP EXTENSION vector")
    await open_and_close(databases.dsn(empty_database_name, "postgres"))
    schema = await as_superuser.fetchval(
        "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
    )
    assert schema == "public"


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://127.0.0.1:1/nothing",
        "postgresql://no-such-host.invalid/x",
        "postgresql:///x?host=/nowhere",
        "mysql://127.0.0.1/x",
        "nonsense",
        "",
        "postgresql://127.0.0.1:port/x",
        "postgresql://127.0.0.1:99999/x",
        "postgresql://user:pass%zz@127.0.0.1:1/x?sslmode=strange",
    ],
)
async def test_a_database_that_is_not_there_is_told_as_such(dsn: str) -> None:
    with pytest.raises(DatabaseError, match="cannot connect to the database"):
        await open_and_close(dsn)


async def test_an_unknown_database_or_role_is_named(databases: Databases) -> None:
    with pytest.raises(DatabaseError, match="missing"):
        await open_and_close(databases.dsn("missing"))
    with pytest.raises(DatabaseError, match="somebody"):
        await open_and_close(databases.dsn("migrated", "somebody"))


async def test_a_role_that_may_not_make_schemas_is_told(
    databases: Databases, empty_database_name: str
) -> None:
    with pytest.raises(DatabaseError, match="permission denied"):
        await open_and_close(databases.dsn(empty_database_name, "app"))


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, 0, -1, 2**63 - 1, 1.5, -1e300, 5e-324, "", 'é 🐈 \u2028 \\ " \n'),
        *([], {}, [1, [2, [3, {}]]], {"": {"a": None}}, {"k": [True, None, 1.5, "x"]}),
    ],
)
async def test_json_comes_back_as_it_was(database: Database, value: object) -> None:
    async with database.connection() as connection:
        got = await connection.fetchval("SELECT $1::jsonb", value)
        assert got == value
        assert type(got) is type(value)
        [name] = await connection.fetchval("SELECT ARRAY[jsonb_typeof($1::jsonb)]", value)
        assert name in ("boolean", "number", "string", "array", "object")


@pytest.mark.parametrize(("kind", "precision"), [("halfvec", 2**-11), ("vector", 0.0)])
async def test_vectors_come_back_within_their_precision(
    database: Database, kind: str, precision: float
) -> None:
    wrapper = {"halfvec": HalfVector, "vector": Vector}[kind]
    sent = np.random.default_rng(1).normal(size=384).astype(np.float32)
    sent[:3] = 0, 1e-7, -1
    async with database.connection() as connection:
        got = await connection.fetchval(f"SELECT $1::{kind}(384)", wrapper(sent))
        many = await connection.fetchval(f"SELECT $1::{kind}[]", [wrapper(sent), wrapper(-sent)])
    got = got.to_numpy() if hasattr(got, "to_numpy") else got
    assert np.all(np.abs(got.astype(np.float32) - sent) <= np.abs(sent) * precision + 1e-7)
    assert len(many) == 2


async def test_connections_see_no_schema_of_users(database: Database) -> None:
    async with database.connection() as connection:
        assert await connection.fetchval("SHOW search_path") == '"public"'
        assert await connection.fetchval("SHOW jit") == "off"
        assert await connection.fetchval("SHOW application_name") == "memoryd"
        assert await connection.fetchval("SHOW statement_timeout") == "1min"


async def test_a_transaction_that_fails_writes_nothing(database: Database) -> None:
    async def fail_halfway() -> None:
        async with database.transaction() as connection:
            await connection.execute("CREATE TABLE public.half (x int)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_halfway()
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT to_regclass('public.half')") is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.ConnectionDoesNotExistError(""), DatabaseUnavailableError),
        (asyncpg.InterfaceError("connection is closed"), DatabaseUnavailableError),
        (asyncpg.InternalClientError("cannot switch to state 11"), DatabaseUnavailableError),
        (asyncpg.AdminShutdownError(""), DatabaseUnavailableError),
        (asyncpg.CrashShutdownError(""), DatabaseUnavailableError),
        (asyncpg.CannotConnectNowError(""), DatabaseUnavailableError),
        (asyncpg.TooManyConnectionsError(""), DatabaseUnavailableError),
        (ConnectionRefusedError(), DatabaseUnavailableError),
        (ConnectionResetError(), DatabaseUnavailableError),
        (FileNotFoundError(), DatabaseUnavailableError),
        (TimeoutError(), DatabaseUnavailableError),
        (asyncpg.QueryCanceledError(""), UnavailableError),
        (asyncpg.DiskFullError(""), StorageFullError),
        (asyncpg.UndefinedTableError(""), NotFoundError),
        (asyncpg.InvalidSchemaNameError(""), NotFoundError),
        (NotFoundError("x"), NotFoundError),
    ],
)
def test_what_postgres_says_becomes_memoryds_error(
    error: Exception, expected: type[MemorydError]
) -> None:
    with pytest.raises(expected) as caught, translated():
        raise error
    assert type(caught.value) is expected


async def test_a_killed_backend_is_unavailable_once_and_then_back(
    dsn: str, databases: Databases, database: Database
) -> None:
    name = dsn.split("@/")[1].split("?")[0]

    async def kill_soon() -> None:
        await asyncio.sleep(0.2)
        killer = await asyncpg.connect(databases.dsn(name, "postgres"))
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await killer.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(kill_soon())
        with pytest.raises(DatabaseUnavailableError):
            async with database.connection() as connection:
                await connection.execute("SELECT pg_sleep(10)")
    await asyncio.sleep(0.1)  # until the idle connections are seen to be closed too
    await database.ping()


async def test_a_pool_that_is_used_up_is_unavailable_and_not_a_hang(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoryd.storage.database._ACQUIRE_TIMEOUT_S", 0.2)

    async def hold(count: int) -> None:
        async with database.connection():
            if count > 1:
                await hold(count - 1)
            else:
                await database.ping()

    with pytest.raises(DatabaseUnavailableError):
        await hold(4)


async def test_closing_does_not_wait_for_a_query_that_hangs(dsn: str) -> None:
    loop = asyncio.get_running_loop()
    async with open_database(dsn, max_connections=2) as database:

        async def hang() -> None:
            async with database.connection() as connection:
                await connection.execute("SELECT pg_sleep(20)")

        hanging = asyncio.create_task(hang())
        await asyncio.sleep(0.2)
        started = loop.time()
    assert loop.time() - started < 1.5
    with pytest.raises(DatabaseUnavailableError):
        await hanging
