"""Backups restored: into a new database, which takes the old one's place when it is whole."""

import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from memoryd.config import Settings
from memoryd.errors import BackupError, DatabaseError, PostgresError
from memoryd.memory.backups import (
    BEFORE_RESTORE,
    Backup,
    Source,
    Tell,
    embedded_source,
    keep,
    migrate,
    own_source,
    require_unserved,
)
from memoryd.memory.collections import DEFAULT
from memoryd.postgres.access import SUPERUSER, Access, access_of
from memoryd.postgres.backup import Archive, Entry, list_of, load, read_archive, read_rows
from memoryd.postgres.backup_files import opened
from memoryd.postgres.binaries import MAJOR
from memoryd.postgres.programs import own_programs
from memoryd.postgres.replacement import new_database, put_in_place
from memoryd.postgres.server import run_server
from memoryd.storage.database import ensure_pgvector
from memoryd.storage.migrate import Branch, lacking
from memoryd.storage.snapshots import Contents, Snapshot, exported_snapshot, read_contents
from memoryd.storage.tables import SHARED_SCHEMA

_OUR_SCHEMA = re.compile(rf"{SHARED_SCHEMA}|c_\d+")
_OUR_ROLES = {"memoryd", "app", SUPERUSER}
# pg_restore sets transaction_timeout, which came with this version.
_OLDEST_MAJOR = 17
_UNOWNED = ("--no-owner", "--no-acl", "--no-comments")
# So many objects are made per transaction: one for all would hold a lock for each at once.
_IN_BATCHES = "--transaction-size=500"


@dataclass(frozen=True)
class Restored:
    """Say what was restored, and where the backup is of what was there before, if anything was."""

    contents: Contents
    replaced: Backup | None = None


@dataclass(frozen=True)
class _Opened:
    path: Path
    file: IO[bytes]
    archive: Archive
    tell: Tell

    async def load(self, source: Source, *options: str) -> None:
        """Make what the backup has in the empty database of `source`."""
        size_bytes = os.fstat(self.file.fileno()).st_size

        def note(position: int) -> None:
            if position < size_bytes:
                self.tell("restoring", position, size_bytes)
            else:
                self.tell("building indexes", 0, None)

        with _named(self.path):
            await load(source.programs, source.url, self.file, note, options)


async def restore_into_empty(settings: Settings, path: Path, tell: Tell) -> Restored:
    """Put a backup in the place of an empty database.

    Raises BackupError for a file that is no backup, cut short, or from a newer memoryd or
    PostgreSQL, and for a database that isn't empty; DataDirectoryError where another memoryd uses
    it. What was there is as it was then.
    """
    async with _opened(path, tell) as backup:
        if settings.database_url:
            dsn = settings.database_url.get_secret_value()
            return Restored(await _restore_own(own_source(dsn), backup))
        async with _unserved_access(settings) as access:
            _require_empty(await read_contents(access.dsn), settings)
            return Restored(await _restore_embedded(access, backup))


async def restore_over(settings: Settings, path: Path, tell: Tell) -> Restored:
    """Put a backup in the place of whatever the embedded database holds, which is backed up first.

    Raises as `restore_into_empty` does, and BackupError where memoryd doesn't run the database.
    """
    if settings.database_url:
        raise BackupError(
            "memoryd replaces its own database alone: empty yours, and restore without --replace"
        )
    async with _opened(path, tell) as backup, _unserved_access(settings) as access:
        kept = None
        if (await read_contents(access.dsn)).revision is not None:
            kept = await keep(embedded_source(access), settings, BEFORE_RESTORE, tell)
        return Restored(await _restore_embedded(access, backup), kept)


@asynccontextmanager
async def _unserved_access(settings: Settings) -> AsyncIterator[Access]:
    require_unserved(settings)
    async with run_server(settings.data_dir) as server:
        yield access_of(server)


def _require_empty(contents: Contents, settings: Settings) -> None:
    has_collections = any(name != DEFAULT for name in contents.collections)
    if has_collections or contents.documents or contents.keys or contents.other_tables:
        raise BackupError(
            f"{settings.data_dir} holds {contents}: restore into another --data-dir, or with "
            "--replace, which backs that up first"
        )


@asynccontextmanager
async def _opened(path: Path, tell: Tell) -> AsyncIterator[_Opened]:
    with opened(path) as file:
        with _named(path):
            archive = await _read(file)
        yield _Opened(path, file, archive, tell)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (BackupError, PostgresError) as error:
        raise BackupError(f"cannot restore {path}: {error.message}") from error


async def _read(file: IO[bytes]) -> Archive:
    programs = own_programs()
    archive = await read_archive(programs, file)
    if archive.postgres_major > MAJOR:
        raise BackupError(
            f"it comes from PostgreSQL {archive.postgres_major}, and this memoryd has {MAJOR}: "
            "restore it with a memoryd that has that one"
        )
    tables = ["alembic_version", "collections"]
    rows = await read_rows(programs, file, SHARED_SCHEMA, tables)
    shared = {row["version_num"] for row in rows if "version_num" in row}
    if not shared:
        raise BackupError("it is the backup of a database that isn't memoryd's")
    _check_revisions("shared", shared)
    _check_revisions("collection", {row["revision"] for row in rows if "revision" in row})
    return archive


def _check_revisions(branch: Branch, revisions: set[str]) -> None:
    for revision in revisions:
        try:
            lacking(branch, revision)
        except DatabaseError as error:
            raise BackupError(
                f"it was made by a newer memoryd (its {branch} schema is at revision {revision}): "
                "restore it with that version"
            ) from error


async def _restore_embedded(access: Access, backup: _Opened) -> Contents:
    async with new_database(access) as name:
        new = Source(access.url(name), access.url(name, SUPERUSER), access.programs)
        await backup.load(new, _IN_BATCHES, *_ownership(backup.archive))
        await migrate(new, backup.tell)
        contents = await read_contents(new.dsn)
        await put_in_place(access)
    return contents


def _ownership(archive: Archive) -> tuple[str, ...]:
    """Return the options that give memoryd what other roles own in the backup, if they do."""
    tables = [entry for entry in archive.entries if entry.kind == "TABLE"]
    are_known = all(table.owner in _OUR_ROLES for table in tables)
    if are_known and all(table.owner == "memoryd" for table in tables if _is_ours(table)):
        return ()
    return ("--role=memoryd", *_UNOWNED)


async def _restore_own(source: Source, backup: _Opened) -> Contents:
    async with exported_snapshot(source.dsn) as snapshot:
        _check_target(snapshot)
    await ensure_pgvector(source.dsn)
    with list_of([entry for entry in backup.archive.entries if _is_ours(entry)]) as listed:
        await backup.load(source, "--single-transaction", f"--use-list={listed}", *_UNOWNED)
    await migrate(source, backup.tell)
    return await read_contents(source.dsn)


def _check_target(snapshot: Snapshot) -> None:
    if snapshot.contents.revision is not None:
        raise BackupError(
            "the database holds memoryd's tables already: restore into one that has none"
        )
    if snapshot.postgres_major < _OLDEST_MAJOR:
        raise BackupError(
            f"the database is PostgreSQL {snapshot.postgres_major}, and `memoryd restore` needs "
            f"{_OLDEST_MAJOR} or newer: back up and restore it with its own pg_dump and pg_restore"
        )


def _is_ours(entry: Entry) -> bool:
    schema = entry.name if entry.kind == "SCHEMA" else entry.schema
    return _OUR_SCHEMA.fullmatch(schema) is not None
