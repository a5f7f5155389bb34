"""The process of Postgres: started, watched, stopped."""

import asyncio
import logging
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from memoryd.errors import PostgresError
from memoryd.postgres.accounts import Account
from memoryd.postgres.binaries import MAJOR
from memoryd.postgres.commands import last_lines
from memoryd.postgres.configuration import write_configuration
from memoryd.postgres.directories import Layout, explained, make_socket_dir
from memoryd.postgres.leftovers import quit_orphans, read_pid_file

logger = logging.getLogger(__name__)

POLL_S = 0.01
WATCH_S = 0.1
RECOVERY_NOTICE_S = 5.0
MEMORY_RELEASE_S = 30.0
MEMORY_HELD = "pre-existing shared memory block"
STATUS_LINE = 7
LOG_TAIL_BYTES = 4096


@dataclass
class Postmaster:
    """Run the server process of one database.

    It is a Popen and not an asyncio subprocess, because asyncio kills its children with the loop,
    and a Postgres that still writes its shutdown checkpoint has to be left alone.
    """

    layout: Layout
    socket_dir: Path
    binaries: Path
    account: Account
    process: subprocess.Popen[bytes] | None = None
    is_ready: bool = False

    @property
    def is_running(self) -> bool:
        """Return whether the process lives."""
        return self.process is not None and self.process.poll() is None

    async def start(self) -> None:
        """Start Postgres and wait until it takes connections.

        Raises PostgresError with the last lines of its output if it ends instead.
        """
        deadline = time.monotonic() + MEMORY_RELEASE_S
        while True:
            try:
                return await self._start()
            except PostgresError as error:
                if MEMORY_HELD not in error.message or time.monotonic() > deadline:
                    raise
            quit_orphans(self.layout)
            await asyncio.sleep(WATCH_S)

    async def _start(self) -> None:
        logger.info("starting PostgreSQL %d", MAJOR)
        started = time.time()
        make_socket_dir(self.layout, self.account)
        with explained(self.layout):
            write_configuration(self.layout, self.socket_dir, self.account)
        with tempfile.TemporaryFile() as output:
            self.process = self._launch(output)
            if await self._wait_until_ready(self.process):
                self.is_ready = True
                return
            output.seek(0)
            printed = output.read().decode(errors="replace") + self._logged_since(started)
        raise PostgresError(f"PostgreSQL doesn't start:\n{last_lines(printed)}")

    def _launch(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [self.binaries / "postgres", "-D", self.layout.pgdata],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **self.account.popen_options,
            )
        except OSError as error:
            raise PostgresError(f"cannot run PostgreSQL: {error.strerror}") from error

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        notice_at = time.monotonic() + RECOVERY_NOTICE_S
        while process.poll() is None:
            lines = read_pid_file(self.layout)
            if lines[STATUS_LINE:] == ["ready"] and lines[0] == str(process.pid):
                return True
            if time.monotonic() > notice_at:
                logger.info("PostgreSQL is still starting; after a crash it replays its log first")
                notice_at = float("inf")
            await asyncio.sleep(POLL_S)
        return False

    def _logged_since(self, started: float) -> str:
        logs = [(path.stat().st_mtime, path) for path in self.layout.log_dir.glob("*.log")]
        changed, newest = max(logs, default=(0.0, None))
        if newest is None or changed < started:
            return ""
        with newest.open("rb") as log:
            log.seek(max(0, newest.stat().st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    async def wait(self) -> int:
        """Return the exit status when the process has ended."""
        while self.process is not None and self.process.poll() is None:  # noqa: ASYNC110
            # Polled, since pidfds are missing on older kernels and a waiting thread would keep
            # memoryd from exiting while Postgres finishes on its own.
            await asyncio.sleep(WATCH_S)
        self.is_ready = False
        return self.process.returncode if self.process else 0

    async def stop(self, grace_s: float) -> None:
        """End Postgres, waiting at most `grace_s` for its shutdown checkpoint; never kill it."""
        self.is_ready = False
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)  # "fast": connections are closed, data is written
        deadline = time.monotonic() + grace_s
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                logger.info("PostgreSQL %d finishes writing on its own", self.process.pid)
                return
            await asyncio.sleep(POLL_S)
