"""Another database in the place of memoryd's, swapped in one transaction when it is whole."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from memoryd.errors import PostgresError
from memoryd.postgres.access import SUPERUSER, Access
from memoryd.postgres.server import DATABASE

NEW = "memoryd_new"
OLD = "memoryd_old"
MAINTENANCE = "postgres"
ATTEMPTS = 5
PAUSE_S = 0.2

# One command of psql is one transaction.
SWAP = f"ALTER DATABASE {DATABASE} RENAME TO {OLD}; ALTER DATABASE {NEW} RENAME TO {DATABASE}"
END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
)
IN_USE = "is being accessed by other users"


@asynccontextmanager
async def new_database(access: Access) -> AsyncIterator[str]:
    """Make a database beside memoryd's, with its roles' rights and pgvector, and yield its name.

    It is gone at the end of the block, unless it was put in place.
    """
    await _drop_leftovers(access)
    await _run(access, f"CREATE DATABASE {NEW} OWNER memoryd")
    try:
        yield NEW
    finally:
        await _drop_leftovers(access)


async def put_in_place(access: Access) -> None:
    """Let the new database be memoryd's; the old one is gone after the block that made the new.

    Raises PostgresError where others don't let go of the old one.
    """
    await _run(access, "ANALYZE", database=NEW)
    for _ in range(ATTEMPTS):
        try:
            return await _run(access, f"{END_OTHERS}; {SWAP}")
        except PostgresError as error:
            if IN_USE not in error.message:
                raise
        await asyncio.sleep(PAUSE_S)
    raise PostgresError(
        "other programs connect to the database again and again: stop them, and try again"
    )


async def _drop_leftovers(access: Access) -> None:
    for name in (NEW, OLD):
        await _run(access, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def _run(access: Access, statements: str, database: str = MAINTENANCE) -> None:
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
    url = access.url(database, SUPERUSER)
    await access.programs.run("psql", *options, f"--command={statements}", f"--dbname={url}")
