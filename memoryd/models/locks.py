"""One process at a time for a model, by a lock that ends with the process."""

import asyncio
import fcntl
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from memoryd.errors import ConflictError

logger = logging.getLogger(__name__)

LOCK_POLL_S = 0.2


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock at `path`, after waiting for whoever has it; the folder is made."""
    with _open_lock(path) as lock:
        if not _take(lock):
            logger.info("waiting for another process that is fetching the model")
            # Polled, since a thread that blocks in flock can't be cancelled.
            while not _take(lock):  # noqa: ASYNC110 - no event comes from another process
                await asyncio.sleep(LOCK_POLL_S)
        yield


@contextmanager
def locked_at_once(path: Path, subject: str) -> Iterator[None]:
    """Hold the lock at `path`, or raise ConflictError that `subject` is being worked on."""
    with _open_lock(path) as lock:
        if not _take(lock):
            raise ConflictError(f"{subject} is being fetched: wait until that is done")
        yield


def _open_lock(path: Path) -> IO[bytes]:
    _make_directory(path.parent)
    return path.open("wb")


def _make_directory(directory: Path) -> None:
    """Make what is missing of a path; others may pass through it, and list nothing.

    It may be the first to make the data directory, which the system user of Postgres must pass.
    """
    for path in reversed([directory, *directory.parents]):
        path.mkdir(mode=0o711, exist_ok=True)


def _take(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
