"""Backups of the whole database, made while it is in use, and kept before upgrades."""

import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from memoryd.config import Settings
from memoryd.errors import BackupError, DatabaseError, DataDirectoryError, PostgresError
from memoryd.postgres.access import SUPERUSER, Access, access_of, reach
from memoryd.postgres.backup import dump
from memoryd.postgres.backup_files import check_target, forget_old, name_kept, whole_file
from memoryd.postgres.binaries import MAJOR
from memoryd.postgres.directories import layout_of
from memoryd.postgres.programs import Programs, own_programs, split_password
from memoryd.postgres.server import Server, read_lock
from memoryd.storage.database import prepare_database
from memoryd.storage.snapshots import (
    Contents,
    Snapshot,
    exported_snapshot,
    read_behind,
    read_contents,
)
from memoryd.storage.tables import SHARED_SCHEMA

logger = logging.getLogger(__name__)

Tell = Callable[[str, int, int | None], None]
"""Takes a step, how many bytes of it are done, and of how many (None: unknown)."""

BEFORE_UPGRADE = "before-upgrade"
BEFORE_RESTORE = "before-restore"

_SCHEMAS = (SHARED_SCHEMA, "c_[0-9]+")
_ATTEMPTS = 3
# What is said of a collection that was deleted after the tables were listed.
_VANISHED = re.compile(r"does not exist|could not open relation|cache lookup failed")


@dataclass(frozen=True)
class Source:
    """Reach a database: `dsn` is for memoryd, `url` for programs, `schemas` are those to dump."""

    dsn: str
    url: str
    programs: Programs
    schemas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backup:
    """Describe a backup that was made."""

    file: Path
    bytes: int
    contents: Contents


@asynccontextmanager
async def open_source(settings: Settings) -> AsyncIterator[Source]:
    """Reach the database of `settings`, beside the memoryd that serves it or without one.

    Raises SetupError where there is none or it can't be reached.
    """
    if settings.database_url:
        yield own_source(settings.database_url.get_secret_value())
        return
    async with reach(settings.data_dir) as access:
        yield embedded_source(access)


@asynccontextmanager
async def open_unserved_source(settings: Settings) -> AsyncIterator[Source]:
    """Reach the database of `settings`; the embedded one must not be in use by another memoryd."""
    require_unserved(settings)
    async with open_source(settings) as source:
        yield source


def own_source(dsn: str) -> Source:
    """Return the way to a Postgres of the user's own; what isn't memoryd's there is left out."""
    url, password = split_password(dsn)
    return Source(dsn, url, own_programs(password), _SCHEMAS)


def embedded_source(access: Access) -> Source:
    """Return the way to the embedded database, whole: the user's own tables are in it too."""
    return Source(access.dsn, access.url(role=SUPERUSER), access.programs)


def require_unserved(settings: Settings) -> None:
    """Raise DataDirectoryError if another memoryd uses the embedded database."""
    if settings.database_url is None and (holder := read_lock(settings.data_dir)):
        raise DataDirectoryError(
            f"{settings.data_dir} is in use by memoryd (process {holder.pid}): stop it first"
        )


async def back_up(source: Source, path: Path, tell: Tell) -> Backup:
    """Write all that the database holds now to a file; a file at `path` is replaced.

    Raises BackupError where the file can't be written, PostgresError where pg_dump fails,
    DatabaseError where the database is newer than pg_dump.
    """
    check_target(path)
    with whole_file(path) as file:
        contents = await _dump(source, file, tell)
        size_bytes = os.fstat(file.fileno()).st_size
    return Backup(path, size_bytes, contents)


async def _dump(source: Source, file: IO[bytes], tell: Tell, attempts: int = _ATTEMPTS) -> Contents:
    try:
        return await _dump_once(source, file, tell)
    except (PostgresError, DatabaseError) as error:
        if attempts == 1 or not _VANISHED.search(error.message):
            raise
    os.ftruncate(file.fileno(), 0)
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return await _dump(source, file, tell, attempts - 1)


async def _dump_once(source: Source, file: IO[bytes], tell: Tell) -> Contents:
    async with exported_snapshot(source.dsn) as snapshot:
        _check_source(snapshot)
        await dump(
            source.programs,
            source.url,
            file,
            lambda written: tell("backing up", written, None),
            snapshot=snapshot.id,
            schemas=source.schemas,
        )
    return snapshot.contents


def _check_source(snapshot: Snapshot) -> None:
    if snapshot.contents.revision is None:
        raise BackupError("the database holds nothing of memoryd's: there is nothing to back up")
    if snapshot.postgres_major > MAJOR:
        raise DatabaseError(
            f"the database is PostgreSQL {snapshot.postgres_major}, and memoryd's pg_dump is "
            f"{MAJOR}'s: use that of the database, pg_dump --format=custom --file=FILE URL"
        )


async def keep(source: Source, settings: Settings, occasion: str, tell: Tell) -> Backup:
    """Write a backup into the data directory's `backups`, where the last three are kept.

    Raises as `back_up` does.
    """
    path = name_kept(layout_of(settings.data_dir), occasion)
    backup = await back_up(source, path, tell)
    forget_old(path, occasion)
    return backup


async def protect(server: Server, settings: Settings) -> None:
    """Keep a backup of an embedded database that has documents and is about to be migrated.

    Raises BackupError saying how to do without it.
    """
    source = embedded_source(access_of(server))
    behind = await read_behind(source.dsn)
    if not behind or not (await read_contents(source.dsn)).documents:
        return
    logger.info("backing up the database before it is upgraded to this version of memoryd")
    try:
        backup = await keep(source, settings, BEFORE_UPGRADE, lambda *_: None)
    except (BackupError, PostgresError) as error:
        raise BackupError(
            f"cannot back up the database before its upgrade: {error.message}. "
            "`memoryd db upgrade --no-backup` upgrades it without"
        ) from error
    logger.info("the database as it was is in %s", backup.file)


async def migrate(source: Source, tell: Tell) -> None:
    """Bring the database to this memoryd's revisions; raises DatabaseError where that fails."""

    def note(done: int, total: int) -> None:
        tell(f"migrating collections: {100 * done // total} %", 0, None)

    await prepare_database(source.dsn, note)
