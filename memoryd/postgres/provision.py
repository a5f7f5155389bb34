"""A new database: made aside and put in place when it is whole."""

import logging
import shutil
import tempfile
from pathlib import Path

from memoryd.errors import DataDirectoryError, PostgresError
from memoryd.postgres.accounts import Account
from memoryd.postgres.binaries import MAJOR
from memoryd.postgres.commands import run_as
from memoryd.postgres.directories import Layout, explained, sync_dir

logger = logging.getLogger(__name__)

UNFINISHED_PREFIX = "postgres.new-"

# Sorting and letter case follow Unicode's code points, built in and the same on every machine.
# LC_CTYPE comes from the C library and decides what full text search takes for a letter: with C,
# every character beyond ASCII is one, so that a quotation mark or a 、 becomes part of a word.
LOCALE = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
CTYPES = ("C.UTF-8", "C")
CTYPE_UNKNOWN = "invalid locale name"

# Run in template1, so that every database memoryd makes has the extension, which only a superuser
# can create. Single-user mode ends a statement at a semicolon and an empty line.
STATEMENTS = """\
CREATE EXTENSION vector SCHEMA public;

CREATE ROLE app LOGIN;

GRANT USAGE, CREATE ON SCHEMA public TO app;

CREATE ROLE memoryd LOGIN CREATEDB;

GRANT pg_use_reserved_connections TO memoryd;

CREATE DATABASE memoryd OWNER memoryd;

"""


def check_database(layout: Layout, account: Account) -> bool:
    """Return whether the data directory holds a database, one that this memoryd can run.

    Raises DataDirectoryError if it holds one of another major version or of another user.
    """
    with explained(layout):
        if not layout.pgdata.exists():
            return False
        version_file = layout.pgdata / "PG_VERSION"
        version = version_file.read_text().strip() if version_file.exists() else None
        owner = layout.pgdata.stat().st_uid
    if version is None:
        raise DataDirectoryError(
            f"{layout.pgdata} is not a PostgreSQL database; move it away or use another --data-dir"
        )
    if version != str(MAJOR):
        raise DataDirectoryError(
            f"{layout.pgdata} is a database of PostgreSQL {version}, and this memoryd runs "
            f"PostgreSQL {MAJOR}; `memoryd backup` of the version that made it writes a file that "
            "`memoryd restore` of this one puts into another --data-dir"
        )
    if owner != account.uid:
        raise DataDirectoryError(
            f"{layout.pgdata} belongs to user id {owner}, and PostgreSQL would run as "
            f"{account.name} ({account.uid}); start memoryd as the user who did before, "
            f"or give it over: chown -R {account.name}: {layout.data_dir}"
        )
    return True


async def provision(layout: Layout, binaries: Path, account: Account) -> None:
    """Create the database, its roles and the extension in the data directory.

    Raises PostgresError or DataDirectoryError, and then there is no database.
    """
    logger.info("creating the database in %s", layout.pgdata)
    with explained(layout):
        _remove_unfinished(layout)
        new = Path(tempfile.mkdtemp(prefix=UNFINISHED_PREFIX, dir=layout.data_dir))
        account.take(new)
    try:
        await _initialize(new, binaries, account)
        await _populate(new, binaries, account)
        _put_in_place(layout, new)
    finally:
        _remove_unfinished(layout)  # again: a killed memoryd's initdb may have still been writing


def _put_in_place(layout: Layout, new: Path) -> None:
    with explained(layout):
        new.rename(layout.pgdata)
        sync_dir(layout.data_dir)


def _remove_unfinished(layout: Layout) -> None:
    for unfinished in layout.data_dir.glob(f"{UNFINISHED_PREFIX}*"):
        shutil.rmtree(unfinished, ignore_errors=True)


async def _initialize(pgdata: Path, binaries: Path, account: Account) -> None:
    try:
        await _initdb(pgdata, binaries, account, CTYPES[0])
    except PostgresError as error:
        if CTYPE_UNKNOWN not in error.message:
            raise
        await _initdb(pgdata, binaries, account, CTYPES[1])


async def _initdb(pgdata: Path, binaries: Path, account: Account, ctype: str) -> None:
    await run_as(
        account,
        binaries / "initdb",
        *("--pgdata", pgdata, "--username=postgres", "--auth=peer", "--encoding=UTF8"),
        *(*LOCALE, f"--lc-ctype={ctype}", "--data-checksums", "--no-instructions"),
    )


async def _populate(pgdata: Path, binaries: Path, account: Account) -> None:
    single = (binaries / "postgres", "--single", "-j", "-D", pgdata, "-c", "exit_on_error=true")
    await run_as(account, *single, "template1", stdin=STATEMENTS)
