"""Where a data directory keeps what, and who may enter."""

import errno
import hashlib
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from memoryd.errors import DataDirectoryError, PostgresError
from memoryd.postgres.accounts import SYSTEM_USER, Account
from memoryd.postgres.commands import run_as

PORT = 5432  # names the socket; nothing listens on a network
SOCKET_NAME = f".s.PGSQL.{PORT}"
LONGEST_SOCKET_PATH = 107  # bytes: sun_path holds 108 with its final zero
PRIVATE = 0o700

# Prints the first of its arguments that the user who runs it can't enter.
FIRST_CLOSED = 'for d; do (cd -- "$d") 2>/dev/null || { printf "%s" "$d"; break; }; done'


@dataclass(frozen=True)
class Layout:
    """Name the paths of one data directory."""

    data_dir: Path

    @property
    def pgdata(self) -> Path:
        """Return the directory that PostgreSQL calls its data directory."""
        return self.data_dir / "postgres"

    @property
    def pid_file(self) -> Path:
        """Return the file in which a running PostgreSQL tells its pid and status."""
        return self.pgdata / "postmaster.pid"

    @property
    def log_dir(self) -> Path:
        """Return the directory of PostgreSQL's logs, one file per weekday."""
        return self.pgdata / "log"

    @property
    def lock_file(self) -> Path:
        """Return the file that the memoryd at work has locked."""
        return self.data_dir / "memoryd.lock"


def layout_of(data_dir: Path) -> Layout:
    """Return the layout of `data_dir`, with symlinks resolved so that one directory has one."""
    return Layout(Path(os.path.realpath(data_dir.expanduser())))


def socket_dir_of(layout: Layout, uid: int) -> Path:
    """Return the directory of the socket when Postgres runs as `uid`.

    It is `run` in the data directory, or, where that path doesn't do for a socket, a directory
    named by a hash of the data directory below $XDG_RUNTIME_DIR, /run or the temporary directory.
    Raises DataDirectoryError if that doesn't do either.
    """
    inside = layout.data_dir / "run"
    if _holds_socket(inside):
        return inside
    digest = hashlib.sha256(os.fsencode(layout.data_dir)).hexdigest()[:16]
    outside = _runtime_dir() / f"{SYSTEM_USER}-{uid}-{digest}"
    if not _holds_socket(outside):
        raise DataDirectoryError(
            f"{outside} is too long for a socket, or has a comma; give a shorter --data-dir"
        )
    return outside


def _holds_socket(directory: Path) -> bool:
    path = os.fsencode(directory / SOCKET_NAME)
    return len(path) <= LONGEST_SOCKET_PATH and b"," not in path  # clients split hosts at commas


def _runtime_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/run")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())


@contextmanager
def explained(layout: Layout) -> Iterator[None]:
    """Turn an OSError of the block into a DataDirectoryError that says what mends it."""
    try:
        yield
    except OSError as error:
        raise DataDirectoryError(
            f"cannot use the data directory {layout.data_dir}: {error.strerror}: {error.filename}; "
            f"{_advice(error, layout)}"
        ) from error


def _advice(error: OSError, layout: Layout) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space on its disk"
    if error.errno in (errno.EACCES, errno.EPERM):
        directory = shlex.quote(str(layout.data_dir))
        command = "chown -R $(id -un)" if layout.data_dir.exists() else "install -d -o $(id -un)"
        return f"give another with --data-dir, or make it yours: sudo {command} {directory}"
    return "give another with --data-dir"


def require_database(layout: Layout) -> None:
    """Raise DataDirectoryError if there is no database in the data directory."""
    with explained(layout):
        if not layout.pgdata.exists():
            raise DataDirectoryError(
                f"there is no database in {layout.data_dir} yet; `memoryd serve` makes one"
            )


def make_data_dir(layout: Layout, account: Account) -> None:
    """Create the data directory, private to `account`, unless there is one.

    Raises DataDirectoryError if it can't be made or written.
    """
    with explained(layout):
        if not layout.data_dir.exists():
            _make_parents(layout.data_dir)
            _make_private(layout.data_dir, account)
        if not layout.data_dir.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(layout.data_dir))
        if not os.access(layout.data_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied", str(layout.data_dir))


def _make_parents(path: Path) -> None:
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir()
        if os.geteuid() == 0:
            parent.chmod(0o755)  # whatever root's umask is: the system user passes through here


def _make_private(path: Path, account: Account) -> None:
    path.mkdir(mode=PRIVATE)
    account.take(path)


async def check_reachable(layout: Layout, account: Account) -> None:
    """Raise DataDirectoryError if `account` can't enter the data directory.

    The user tries it, because mode bits alone don't tell: there are ACLs, and shares without root.
    """
    if os.geteuid() == account.uid:
        return
    way = [*reversed(layout.data_dir.parents), layout.data_dir]
    try:
        closed = await run_as(account, "/bin/sh", "-c", FIRST_CLOSED, "sh", *way)
    except PostgresError as error:
        raise PostgresError(
            f"{error.message}; root needs the capabilities SETUID and SETGID, "
            "or start memoryd as an ordinary user"
        ) from error
    if closed:
        raise DataDirectoryError(
            f"PostgreSQL runs as the user {account.name}, who can't enter {closed}; "
            f"use --data-dir /var/lib/memoryd, or let that user in: chmod o+x {shlex.quote(closed)}"
        )


def make_socket_dir(layout: Layout, account: Account) -> Path:
    """Return the directory of the socket, making it if missing.

    Raises DataDirectoryError if someone else made it or others can enter it.
    """
    directory = socket_dir_of(layout, account.uid)
    with explained(layout):
        try:
            _make_private(directory, account)
        except FileExistsError:
            _check_private(directory, account)
    return directory


def _check_private(directory: Path, account: Account) -> None:
    found = directory.lstat()
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == PRIVATE
    if not private or found.st_uid != account.uid:
        raise DataDirectoryError(
            f"{directory} must be a directory with mode 0700 of the user {account.name}, "
            "for whoever enters it can reach the database; remove it, and memoryd makes its own"
        )


def sync_dir(directory: Path) -> None:
    """Make renames within `directory` last through a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
