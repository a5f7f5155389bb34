"""The files of backups: whole or not there, private, and of those that memoryd keeps the newest."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from memoryd.errors import BackupError
from memoryd.postgres.directories import PRIVATE, Layout, sync_dir

KEPT = 3
SUFFIX = ".dump"


def check_target(path: Path) -> None:
    """Raise BackupError unless a file can be made at `path`, or replaced there."""
    if path.exists() and not path.is_file():
        raise BackupError(f"{path} is no file: name one that doesn't exist yet")
    if not path.parent.is_dir():
        raise BackupError(f"there is no directory {path.parent}: make it first")


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that stands at `path` when the block has ended, for its owner alone to read.

    Until then it has another name, and is gone if the block raises. Raises BackupError where it
    can't be written.
    """
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            os.fsync(descriptor)
        Path(partial).rename(path)
        sync_dir(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        Path(partial).unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> BackupError:
    return BackupError(f"cannot write {path}: {error.strerror}")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a backup; raises BackupError where it can't be read."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BackupError(f"cannot read {path}: {error.strerror}") from error
    with file:
        yield file


def name_kept(layout: Layout, occasion: str) -> Path:
    """Return the path of a new backup that memoryd keeps in the data directory."""
    directory = layout.data_dir / "backups"
    try:
        directory.mkdir(mode=PRIVATE, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from error
    return directory / f"{occasion}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}{SUFFIX}"


def forget_old(newest: Path, occasion: str) -> None:
    """Remove all backups of that occasion beside `newest` but the last three."""
    for old in sorted(newest.parent.glob(f"{occasion}-*{SUFFIX}"))[:-KEPT]:
        old.unlink(missing_ok=True)
