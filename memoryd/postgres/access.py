"""The way into an embedded database, whether a memoryd serves it or not."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from memoryd.errors import DataDirectoryError
from memoryd.postgres.accounts import Account, find_account
from memoryd.postgres.binaries import find_site, usable_binaries
from memoryd.postgres.directories import Layout, layout_of, require_database
from memoryd.postgres.leftovers import read_pid_file
from memoryd.postgres.lock import read_lock
from memoryd.postgres.postmaster import STATUS_LINE
from memoryd.postgres.programs import Programs
from memoryd.postgres.provision import check_database
from memoryd.postgres.server import DATABASE, SOCKET_DIR_LINE, Server, run_server, url_of

logger = logging.getLogger(__name__)

SUPERUSER = "postgres"
READY_TIMEOUT_S = 60.0
POLL_S = 0.05


@dataclass(frozen=True)
class Access:
    """Reach the Postgres of a data directory: its databases, and the programs to work on them."""

    layout: Layout
    socket_dir: Path
    programs: Programs

    @property
    def dsn(self) -> str:
        """Return the address of the database as memoryd itself uses it."""
        return self.url()

    def url(self, database: str = DATABASE, role: str = "memoryd") -> str:
        """Return the address of a database."""
        return url_of(role, self.socket_dir, database)


def access_of(server: Server) -> Access:
    """Return the way into a server that this process runs."""
    postmaster = server.postmaster
    programs = Programs(postmaster.binaries, postmaster.account.popen_options)
    return Access(postmaster.layout, postmaster.socket_dir, programs)


@asynccontextmanager
async def reach(data_dir: Path) -> AsyncIterator[Access]:
    """Reach the database of `data_dir`, running Postgres for the block unless a memoryd does.

    Raises DataDirectoryError if there is no database or it can't be used, PostgresError if
    Postgres can't be run.
    """
    layout = layout_of(data_dir)
    require_database(layout)
    if read_lock(data_dir) is not None:
        yield await _access_to_served(layout, find_account())
        return
    async with run_server(data_dir) as server:
        yield access_of(server)


async def _access_to_served(layout: Layout, account: Account) -> Access:
    check_database(layout, account)
    socket_dir = await _ready_socket_dir(layout)
    binaries = await usable_binaries(find_site(), layout, account)
    return Access(layout, socket_dir, Programs(binaries, account.popen_options))


async def _ready_socket_dir(layout: Layout) -> Path:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (lines := read_pid_file(layout))[STATUS_LINE:] != ["ready"]:
        if time.monotonic() > deadline or read_lock(layout.data_dir) is None:
            raise DataDirectoryError(
                f"the memoryd that uses {layout.data_dir} is starting or stopping: try again"
            )
        await asyncio.sleep(POLL_S)
    return Path(lines[SOCKET_DIR_LINE])
