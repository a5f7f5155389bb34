"""What a memoryd that was killed leaves behind: a running Postgres, its pid files, its backends."""

import asyncio
import logging
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil

from memoryd.errors import PostgresError
from memoryd.postgres.directories import SOCKET_NAME, Layout, explained

logger = logging.getLogger(__name__)

FAST_STOP_S = 30.0
IMMEDIATE_STOP_S = 10.0
POLL_S = 0.01


def read_pid_file(layout: Layout) -> list[str]:
    """Return the lines of postmaster.pid, stripped: pid, directory, … , status; [] without one."""
    try:
        content = layout.pid_file.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    return [line.strip() for line in content.splitlines()]


async def stop_leftover(layout: Layout, socket_dir: Path) -> None:
    """Stop the Postgres that a killed memoryd left running, and wait until it is gone.

    Raises PostgresError if it doesn't go.
    """
    with explained(layout):
        postmaster = _leftover(layout)
    if postmaster is not None:
        logger.info("stopping the PostgreSQL left by an earlier memoryd: %d", postmaster.pid)
        if not await _stopped(postmaster, signal.SIGINT, FAST_STOP_S):
            logger.warning("PostgreSQL %d is slow to stop; stopping it at once", postmaster.pid)
            if not await _stopped(postmaster, signal.SIGQUIT, IMMEDIATE_STOP_S):
                raise PostgresError(
                    f"the PostgreSQL left by an earlier memoryd (process {postmaster.pid}) "
                    f"doesn't stop; end it with: kill -9 {postmaster.pid}"
                )
    with explained(layout):
        _forget_reused_pids(layout.pid_file, socket_dir / f"{SOCKET_NAME}.lock")


def _leftover(layout: Layout) -> psutil.Process | None:
    lines = read_pid_file(layout)
    if not lines or not lines[0].isdigit():
        return None
    try:
        process = psutil.Process(int(lines[0]))
        return process if _is_postgres_of(layout, process) else None
    except psutil.NoSuchProcess:
        return None


def _is_postgres_of(layout: Layout, process: psutil.Process) -> bool:
    if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
        return False
    try:
        return bool(process.cwd() == str(layout.pgdata))
    except psutil.AccessDenied:  # root of a container without the capability SYS_PTRACE
        return str(layout.pgdata) in process.cmdline()


async def _stopped(process: psutil.Process, number: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    try:
        process.send_signal(number)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
    except psutil.NoSuchProcess:
        pass
    return True


def _forget_reused_pids(*pid_files: Path) -> None:
    # Called when no Postgres of ours runs. Postgres looks after the file of a dead process by
    # itself, but takes a pid that another program has by now for a Postgres and refuses to start.
    for path in pid_files:
        if path.exists() and _names_a_process(path.read_text()):
            path.unlink()


def _names_a_process(content: str) -> bool:
    pid = content.split("\n", 1)[0].strip()
    return pid.isdigit() and psutil.pid_exists(int(pid))


def quit_orphans(layout: Layout) -> None:
    """Tell backends whose postmaster was killed to exit at once.

    A busy backend notices the death late, and holds the shared memory until then.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # gone meanwhile, or not ours to look at
            if _is_postgres_of(layout, process):
                logger.info("ending the backend of a killed PostgreSQL: %d", process.pid)
                process.send_signal(signal.SIGQUIT)
