"""The lock that gives a data directory to one memoryd at a time."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memoryd.errors import DataDirectoryError
from memoryd.postgres.directories import Layout, explained, layout_of

# A reader holds the lock for a moment to see whether it is free.
ATTEMPTS = 5
PAUSE_S = 0.02


@dataclass(frozen=True)
class Holder:
    """Name the memoryd that uses a data directory; `url` is None until it serves."""

    pid: int
    url: str | None = None


@dataclass(frozen=True)
class Lock:
    """Hold a data directory for this process."""

    descriptor: int

    def write(self, holder: Holder) -> None:
        """Tell others who holds the data directory."""
        content = json.dumps({"pid": holder.pid, "url": holder.url}).encode()
        os.pwrite(self.descriptor, content, 0)
        os.ftruncate(self.descriptor, len(content))


@contextmanager
def hold_lock(layout: Layout) -> Iterator[Lock]:
    """Lock the data directory until the block ends; the kernel unlocks it if memoryd is killed.

    Raises DataDirectoryError naming the process that has it.
    """
    with explained(layout):
        descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if not _locked(descriptor, fcntl.LOCK_EX):
            raise DataDirectoryError(_in_use(layout, _holder(descriptor)))
        lock = Lock(descriptor)
        with explained(layout):
            lock.write(Holder(os.getpid()))
        yield lock
    finally:
        os.close(descriptor)


def read_lock(data_dir: Path) -> Holder | None:
    """Return the memoryd that uses `data_dir`, or None.

    Raises DataDirectoryError if the data directory can't be read.
    """
    layout = layout_of(data_dir)
    with explained(layout):
        try:
            descriptor = os.open(layout.lock_file, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
    try:
        return None if _locked(descriptor, fcntl.LOCK_SH) else _holder(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, mode: int) -> bool:
    for _ in range(ATTEMPTS):
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE_S)
        else:
            return True
    return False


def _holder(descriptor: int) -> Holder:
    content = json.loads(os.pread(descriptor, 4096, 0))
    return Holder(content["pid"], content["url"])


def _in_use(layout: Layout, holder: Holder) -> str:
    where = f", {holder.url}" if holder.url else ""
    return f"{layout.data_dir} is in use by memoryd (process {holder.pid}{where})"
