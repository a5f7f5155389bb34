"""Backups in pg_dump's custom format: written, looked into, loaded."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from memoryd.errors import BackupError, PostgresError
from memoryd.postgres.programs import Programs

MAGIC = b"PGDMP"
# Vectors are dumped as text, five times their size in the table. Level 1 writes 40 % of that at
# 100 MB/s; level 6, the default, 31 % at a fifth of the speed.
COMPRESSION = "gzip:1"
PIECE_BYTES = 1 << 20
POLL_S = 0.2

_MAJOR = re.compile(rb"^; +Dumped from database version: (\d+)", re.MULTILINE)
_ENTRY = re.compile(
    r"^\d+; \d+ \d+ (?P<kind>[A-Z]+(?: [A-Z]+)*) (?P<schema>-|\S+) (?P<name>.+?) (?P<owner>\S*)$",
    re.MULTILINE,
)
_COPY = re.compile(
    r"^COPY \S+ \((?P<columns>.*)\) FROM stdin;\n(?P<rows>(?:.*\n)*?)\\\.$", re.MULTILINE
)

# What pg_restore says of a file that ends too early, or isn't as it was written. It may crash, too.
_DAMAGED = re.compile(
    r"could not read from input file|could not find block ID|could not uncompress"
    r"|unexpected data offset|unrecognized data block|corrupt|failed: -\d+$"
)
_NEWER = "unsupported version"

Note = Callable[[int], None]
"""Takes how many bytes have gone through the file so far."""


@dataclass(frozen=True)
class Entry:
    """Name one object of a backup; `line` is what pg_restore calls it."""

    kind: str
    schema: str
    name: str
    owner: str
    line: str


@dataclass(frozen=True)
class Archive:
    """Say what a backup has, and from which major version of PostgreSQL."""

    postgres_major: int
    entries: list[Entry]


async def dump(
    programs: Programs,
    url: str,
    file: IO[bytes],
    note: Note,
    *,
    snapshot: str,
    schemas: Sequence[str] = (),
) -> None:
    """Write a backup of the database as it is in `snapshot`, an exported one, into an open file.

    It has the whole database, or the schemas that match the patterns `schemas`. Raises
    PostgresError where pg_dump fails, OSError where the file can't be written.
    """
    options = ("--format=custom", f"--compress={COMPRESSION}", "--no-password")
    chosen = [f"--schema={pattern}" for pattern in schemas]
    arguments = (*options, f"--snapshot={snapshot}", *chosen, f"--dbname={url}")
    # Through a pipe: of a file as its output, pg_dump wants to rewrite the beginning, but has
    # opened it for appending.
    reader, writer = os.pipe()
    copying = asyncio.create_task(asyncio.to_thread(_copy, reader, file))
    async with _noted(note, lambda: os.fstat(file.fileno()).st_size):
        try:
            await programs.run("pg_dump", *arguments, stdout=writer)
        finally:
            os.close(writer)
            await copying


def _copy(reader: int, file: IO[bytes]) -> None:
    # If the disk is full, the pipe is closed, and pg_dump ends too.
    with os.fdopen(reader, "rb") as source:
        shutil.copyfileobj(source, file, PIECE_BYTES)
    file.flush()


async def read_archive(programs: Programs, file: IO[bytes]) -> Archive:
    """Return what an open backup has.

    Raises BackupError for what is no backup in pg_dump's custom format, or cut short.
    """
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise BackupError(
            "it is no backup: `memoryd backup` and `pg_dump --format=custom` write them"
        )
    listed = await _read(programs, file, "--list")
    major = _MAJOR.search(listed)
    if major is None:
        raise BackupError("it doesn't say which PostgreSQL it comes from")
    found = _ENTRY.finditer(listed.decode(errors="replace"))
    return Archive(int(major[1]), [Entry(**entry.groupdict(), line=entry[0]) for entry in found])


async def read_rows(
    programs: Programs, file: IO[bytes], schema: str, tables: Sequence[str]
) -> list[dict[str, str]]:
    """Return the rows of the tables in an open backup, as text in COPY's notation, by column."""
    chosen = [f"--table={table}" for table in tables]
    printed = await _read(programs, file, "--data-only", f"--schema={schema}", *chosen, "--file=-")
    copies = _COPY.finditer(printed.decode(errors="replace"))
    return [
        dict(zip(copy["columns"].replace('"', "").split(", "), row.split("\t"), strict=True))
        for copy in copies
        for row in copy["rows"].splitlines()
    ]


async def _read(programs: Programs, file: IO[bytes], *options: str) -> bytes:
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    try:
        return await programs.run("pg_restore", *options, stdin=file)
    except PostgresError as error:
        raise _explained(error) from error


def _explained(error: PostgresError) -> PostgresError | BackupError:
    if _NEWER in error.message:
        return BackupError(
            f"a newer pg_dump wrote it ({error.message}): restore it with a memoryd that has "
            "that PostgreSQL"
        )
    if not _DAMAGED.search(error.message):
        return error
    return BackupError(
        f"it is cut short or damaged ({error.message}): copy it again, or take another"
    )


async def load(
    programs: Programs, url: str, file: IO[bytes], note: Note, options: Sequence[str] = ()
) -> None:
    """Make what an open backup has in an empty database.

    Raises PostgresError where pg_restore fails, BackupError where the reason is the file; with
    `--single-transaction` among the options nothing is made then.
    """
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    # pg_restore shares the position in the file with this process, who opened it.
    async with _noted(note, lambda: os.lseek(file.fileno(), 0, os.SEEK_CUR)):
        try:
            await programs.run(
                "pg_restore", "--exit-on-error", *options, f"--dbname={url}", stdin=file
            )
        except PostgresError as error:
            raise _explained(error) from error


@contextmanager
def list_of(entries: Sequence[Entry]) -> Iterator[str]:
    """Write the file with which `--use-list` restores these entries alone."""
    with tempfile.NamedTemporaryFile("w", suffix=".list") as listed:
        listed.writelines(f"{entry.line}\n" for entry in entries)
        listed.flush()
        yield listed.name


@asynccontextmanager
async def _noted(note: Note, position: Callable[[], int]) -> AsyncIterator[None]:
    task = asyncio.create_task(_watch(note, position))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch(note: Note, position: Callable[[], int]) -> None:
    while True:
        note(position())
        await asyncio.sleep(POLL_S)
