"""The embedded server: a Postgres of memoryd's own over a data directory."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from memoryd.errors import SetupError
from memoryd.postgres.accounts import Account, find_account
from memoryd.postgres.binaries import find_site, remove_other_copies, usable_binaries
from memoryd.postgres.directories import (
    PORT,
    Layout,
    check_reachable,
    explained,
    layout_of,
    make_data_dir,
    require_database,
    socket_dir_of,
)
from memoryd.postgres.leftovers import read_pid_file, stop_leftover
from memoryd.postgres.lock import Holder, Lock, hold_lock, read_lock
from memoryd.postgres.postmaster import Postmaster
from memoryd.postgres.provision import check_database, provision

__all__ = ["Holder", "Server", "app_url", "read_lock", "run_server", "url_of"]

logger = logging.getLogger(__name__)

STOP_GRACE_S = 0.5
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 10.0
SOCKET_DIR_LINE = 4
DATABASE = "memoryd"


@dataclass(frozen=True)
class Server:
    """Run the embedded Postgres over a data directory."""

    postmaster: Postmaster
    lock: Lock

    @property
    def dsn(self) -> str:
        """Return the address for memoryd itself, as asyncpg and libpq take it."""
        return url_of("memoryd", self.postmaster.socket_dir)

    @property
    def app_dsn(self) -> str:
        """Return the address for the user's own tables in the same database."""
        return url_of("app", self.postmaster.socket_dir)

    @property
    def is_ready(self) -> bool:
        """Return whether Postgres takes connections, as far as is known."""
        return self.postmaster.is_ready and self.postmaster.is_running

    def announce(self, url: str) -> None:
        """Tell others, through the lock, that this memoryd serves at `url`."""
        self.lock.write(Holder(os.getpid(), url))

    async def supervise(self) -> None:
        """Start Postgres again whenever it ends, until cancelled."""
        while True:
            status = await self.postmaster.wait()
            logger.warning("PostgreSQL ended (exit status %d); starting it again", status)
            await self._restart()

    async def _restart(self) -> None:
        for delay_s in _delays():
            await asyncio.sleep(delay_s)
            if await self._has_restarted():
                return

    async def _has_restarted(self) -> bool:
        try:
            await self.postmaster.start()
        except (SetupError, OSError) as error:
            logger.warning("%s", error)
            return False
        return True


def _delays() -> Iterator[float]:
    delay_s = FIRST_DELAY_S
    while True:
        yield delay_s
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)


@asynccontextmanager
async def run_server(data_dir: Path, stop_grace_s: float = STOP_GRACE_S) -> AsyncIterator[Server]:
    """Run Postgres over `data_dir` while the block runs, making a new database if there is none.

    It is started again whenever it dies. At the end it is given `stop_grace_s` to stop, and left
    to finish writing on its own after that. Raises DataDirectoryError if the data directory can't
    be used or another memoryd uses it, PostgresError if Postgres can't be run.
    """
    layout, account = layout_of(data_dir), find_account()
    make_data_dir(layout, account)
    with hold_lock(layout) as lock:
        postmaster = await _prepare(layout, account)
        server = Server(postmaster, lock)
        try:
            await postmaster.start()
            async with _running(server.supervise()):
                yield server
        finally:
            await postmaster.stop(stop_grace_s)


async def _prepare(layout: Layout, account: Account) -> Postmaster:
    await check_reachable(layout, account)
    exists = check_database(layout, account)
    socket_dir = socket_dir_of(layout, account.uid)
    await stop_leftover(layout, socket_dir)
    binaries = await usable_binaries(find_site(), layout, account)
    remove_other_copies(layout, binaries)
    if not exists:
        await provision(layout, binaries, account)
    return Postmaster(layout, socket_dir, binaries, account)


@asynccontextmanager
async def _running(supervision: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(supervision)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def app_url(data_dir: Path) -> str:
    """Return the address for the user's own tables in the database of `data_dir`.

    Raises DataDirectoryError if there is no database yet.
    """
    layout = layout_of(data_dir)
    require_database(layout)
    with explained(layout):
        running = read_pid_file(layout)
        uid = layout.pgdata.stat().st_uid
    # Where it runs, it has the last word: a path that is too long for a socket leads elsewhere,
    # and where depends on the environment memoryd was started in.
    if len(running) > SOCKET_DIR_LINE:
        return url_of("app", Path(running[SOCKET_DIR_LINE]))
    return url_of("app", socket_dir_of(layout, uid))


def url_of(role: str, socket_dir: Path, database: str = DATABASE) -> str:
    """Return the address of a database for `role`, as asyncpg and libpq take it."""
    return f"postgresql://{role}@/{database}?host={quote(os.fsencode(socket_dir))}&port={PORT}"
