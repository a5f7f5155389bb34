"""The pool of connections, the codecs, and the door at which Postgres' exceptions stop."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson
from pgvector.asyncpg import register_vector

from memoryd.errors import (
    DatabaseError,
    DatabaseUnavailableError,
    MemorydError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from memoryd.storage.migrate import Connection, Note, alone, log_migrated, migrate

__all__ = [
    "PLAN_ONCE",
    "Connection",
    "Connections",
    "Database",
    "connected",
    "ensure_pgvector",
    "open_database",
    "prepare_database",
    "translated",
]

INDEXER = "memoryd indexing"
"""The application name of connections that make indexes, by which others find and cancel them."""

_REQUIRED_POSTGRES = 160_000
_REQUIRED_PGVECTOR = (0, 8, 4)
_ACQUIRE_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 0.3
_STATEMENT_TIMEOUT_MS = 60_000
_IDLE_S = 30.0
# A connection keeps the catalog entries of all collections that it touched: 138 MB after 2,500.
# It is replaced after this many queries.
_MAX_QUERIES = 2_000

PLAN_ONCE = "SET LOCAL plan_cache_mode = force_generic_plan"
"""To execute in a transaction of statements whose plans are the same for all arguments.

Else Postgres makes most of them anew each time, which for those of a search takes longer than what
they do.
"""

# A killed or restarting Postgres reaches asyncpg's callers as any of these.
_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    OSError,
    TimeoutError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what asyncpg raises into memoryd's errors."""
    try:
        yield
    except (MemorydError, ValueError):  # a ValueError is asyncpg's word for a wrong argument: ours
        raise
    except asyncpg.QueryCanceledError as error:
        raise UnavailableError("the database took too long: try again") from error
    except asyncpg.DiskFullError as error:
        raise StorageFullError("the disk of the database is full: free some space") from error
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        raise NotFoundError("the collection was deleted meanwhile", "collection") from error
    # A deadlock, two writers at one row, or a lock that others keep.
    except (asyncpg.TransactionRollbackError, asyncpg.LockNotAvailableError) as error:
        raise UnavailableError("the database was too busy with others: try again") from error
    except asyncpg.CharacterNotInRepertoireError as error:
        raise NotFoundError("nothing has a name with a NUL character") from error
    except _UNAVAILABLE as error:
        raise DatabaseUnavailableError("the database is not available: try again") from error
    except asyncpg.PostgresError as error:
        raise MemorydError("the database refused to do that") from error


@dataclass(frozen=True)
class Connections:
    """Tell how many connections are lent, how many are free, and how many callers wait for one."""

    used: int
    idle: int
    waiting: int


class Database:
    """Lend connections to the functions of this package."""

    def __init__(self, pool: asyncpg.Pool, dsn: str, settings: dict[str, str]) -> None:
        """Take an open pool, where its server is and its sessions' settings.

        `open_database` makes one.
        """
        self._pool = pool
        self._dsn = dsn
        self._settings = settings
        self._waiting = 0

    def count_connections(self) -> Connections:
        """Return the state of the pool, without asking Postgres."""
        idle = self._pool.get_idle_size()
        return Connections(self._pool.get_size() - idle, idle, self._waiting)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; raises memoryd's errors for whatever fails while it is lent."""
        with translated():
            connection = await self._acquire()
            try:
                yield connection
            finally:
                await self._pool.release(connection)

    async def _acquire(self) -> asyncpg.pool.PoolConnectionProxy:
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=_ACQUIRE_TIMEOUT_S)
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction, committed at the end unless something raises."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self, *opening: str) -> AsyncIterator[Connection]:
        """Lend a connection whose statements all see the database as it is now.

        `opening` are statements without arguments to begin with; they cost no way of their own.
        """
        async with self.connection() as connection:
            begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            try:
                await connection.execute("; ".join((begin, *opening)))
                yield connection
            finally:  # nothing was written; the pool rolls back what this can't
                if not connection.is_closed():
                    await connection.execute("COMMIT")

    @asynccontextmanager
    async def snapshot_apart(self) -> AsyncIterator[Connection]:
        """Lend a snapshot over a connection beside the pool, for what a slow client may prolong.

        It has no codecs: jsonb is text there, and vectors are to be had by their `…_send`.
        """
        with translated():
            connection = await asyncpg.connect(
                self._dsn,
                timeout=_ACQUIRE_TIMEOUT_S,
                server_settings={**self._settings, "idle_in_transaction_session_timeout": "0"},
            )
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    yield connection
            finally:
                connection.terminate()  # it waits for nothing, not even a database that hangs

    @asynccontextmanager
    async def connection_apart(self) -> AsyncIterator[Connection]:
        """Lend a connection beside the pool whose statements take as long as they take.

        They are for indexes, which are made concurrently and so in no transaction. Postgres ends
        them soon after this process has died, or has left the block. It has no codecs.
        """
        settings = {
            **self._settings,
            "application_name": INDEXER,
            "statement_timeout": "0",
            "lock_timeout": "0",
        }
        with translated():
            connection = await asyncpg.connect(
                self._dsn, timeout=_ACQUIRE_TIMEOUT_S, server_settings=settings
            )
            try:
                with suppress(asyncpg.InvalidParameterValueError):  # only Linux' Postgres has it
                    await connection.execute("SET client_connection_check_interval = '1s'")
                yield connection
            finally:
                connection.terminate()

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` at each notification of `channel`, over a connection beside the pool.

        Returns when that connection ends; raises DatabaseUnavailableError.
        """
        with translated():
            connection = await asyncpg.connect(self._dsn, timeout=_ACQUIRE_TIMEOUT_S)
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _: ended.set())
        try:
            with translated():
                await connection.add_listener(channel, lambda *_: heard())
                await ended.wait()
        finally:
            connection.terminate()

    async def ping(self) -> None:
        """Raise DatabaseUnavailableError unless Postgres answers."""
        async with self.connection() as connection:
            await connection.execute("SELECT 1")


@asynccontextmanager
async def open_database(
    dsn: str, *, max_connections: int, idle_s: float = _IDLE_S
) -> AsyncIterator[Database]:
    """Check the server, migrate, and open the pool; close it at the end.

    Postgres ends a transaction, and so frees what it has locked, that asks nothing for `idle_s`:
    its process hangs.

    Raises DatabaseError where the server can't be used: unreachable, too old, without pgvector,
    or with a newer memoryd's schema.
    """
    vector_schema = await prepare_database(dsn)

    async def register_codecs(connection: asyncpg.Connection) -> None:
        await register_vector(connection, schema=vector_schema)
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", format="binary", encoder=_dump_jsonb, decoder=_load_jsonb
        )

    settings = {
        "application_name": "memoryd",
        # Types and operators of pgvector; tables are always named with their schema.
        "search_path": f'"{vector_schema}"',
        "statement_timeout": str(_STATEMENT_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(round(1000 * idle_s)),
        "jit": "off",
    }
    with _explained():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=2,
            max_size=max_connections,
            max_queries=_MAX_QUERIES,
            init=register_codecs,
            reset=_leave,
            server_settings=settings,
        )
    try:
        yield Database(pool, dsn, settings)
    finally:
        await _close(pool)


async def _leave(_: asyncpg.Connection) -> None:
    """Ask nothing of a connection that comes back.

    Its transaction has been rolled back if it was open, and nothing else is left in a session here;
    what asyncpg asks otherwise is a round trip for each time that one is lent.
    """


def _dump_jsonb(value: Any) -> bytes:
    return b"\x01" + orjson.dumps(value)  # the version byte of jsonb's binary form


def _load_jsonb(data: bytes) -> Any:
    return orjson.loads(data[1:])


async def _close(pool: asyncpg.Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), timeout=_CLOSE_TIMEOUT_S)
    except _UNAVAILABLE:  # it is restarting, or a query hangs: the sockets are dropped instead
        pool.terminate()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what keeps memoryd from connecting into DatabaseError."""
    try:
        yield
    except TimeoutError as error:
        raise DatabaseError(
            f"cannot connect to the database: no answer in {_ACQUIRE_TIMEOUT_S:.0f} s"
        ) from error
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
        ValueError,
        OverflowError,
    ) as error:
        raise DatabaseError(f"cannot connect to the database: {error}") from error


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """Connect for the block, without a pool.

    Raises DatabaseError where that fails, or what the block asks of Postgres.
    """
    with _explained():
        connection = await asyncpg.connect(dsn, timeout=_ACQUIRE_TIMEOUT_S)
    try:
        yield connection
    except asyncpg.PostgresError as error:
        raise DatabaseError(f"cannot work with the database: {error}") from error
    finally:
        await connection.close()


async def prepare_database(dsn: str, note: Note = log_migrated) -> str:
    """Check and migrate over one connection; return the schema that pgvector lives in.

    Raises DatabaseError as `open_database` does.
    """
    async with connected(dsn) as connection, alone(connection):
        schema = await _require_pgvector(connection)
        await connection.execute(f'SET search_path TO "{schema}"')
        await migrate(connection, note)
    return schema


async def ensure_pgvector(dsn: str) -> None:
    """Make the extension in the database unless it is there.

    Raises DatabaseError where it can't be made or is too old, or the server is.
    """
    async with connected(dsn) as connection:
        await _require_pgvector(connection)


async def _require_pgvector(connection: Connection) -> str:
    """Return the schema of the extension, made in `public` if it isn't there."""
    server = await connection.fetchval("SELECT current_setting('server_version_num')::int")
    if server < _REQUIRED_POSTGRES:
        raise DatabaseError(
            f"the database is PostgreSQL {server // 10_000}, "
            f"memoryd needs {_REQUIRED_POSTGRES // 10_000} or newer"
        )
    found = await _find_pgvector(connection) or await _create_pgvector(connection)
    version = tuple(int(part) for part in re.findall(r"\d+", found["extversion"]))
    if version < _REQUIRED_PGVECTOR:
        needed = ".".join(map(str, _REQUIRED_PGVECTOR))
        raise DatabaseError(
            f"the database has pgvector {found['extversion']}, memoryd needs {needed} or newer "
            "(earlier ones have faults in HNSW): install it and run ALTER EXTENSION vector UPDATE"
        )
    return str(found["nspname"])


async def _find_pgvector(connection: Connection) -> asyncpg.Record | None:
    return await connection.fetchrow(
        "SELECT extversion, nspname FROM pg_extension"
        " JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    )


async def _create_pgvector(connection: Connection) -> asyncpg.Record:
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
    except (
        asyncpg.InsufficientPrivilegeError,
        asyncpg.FeatureNotSupportedError,
        asyncpg.UndefinedFileError,
        asyncpg.UndefinedObjectError,
    ) as error:
        raise DatabaseError(
            f"the database has no pgvector ({error}): install it (the image pgvector/pgvector:pg18 "
            "has it) and run CREATE EXTENSION vector SCHEMA public as a superuser"
        ) from error
    found = await _find_pgvector(connection)
    if found is None:
        raise DatabaseError("CREATE EXTENSION vector had no effect")
    return found
