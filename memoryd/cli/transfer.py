"""`memoryd export` and `memoryd import`."""

import asyncio
import gzip
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from memoryd.cli.client import Client, UrlOption, connect, segment
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json
from memoryd.cli.progress import Tell, shown_progress
from memoryd.cli.search import CollectionOption
from memoryd.config import Settings
from memoryd.documents.types import OnConflict
from memoryd.errors import InvalidInputError, MemorydError, UnavailableError

_STANDARD = "-"
_PIECE_BYTES = 256 << 10
# More than the last line of an export has.
_TAIL_BYTES = 200
_GZIP = b"\x1f\x8b"
# Of gzip: vectors hardly become smaller at higher ones, and take far longer.
_LEVEL = 4

JsonOption = Annotated[bool, typer.Option("--json", help="Print a report as JSON.")]


# --- Export ----


@with_settings("host", "port", "api_key")
def export(
    settings: Settings,
    file: Annotated[
        str, typer.Argument(help="The file to write; -: standard output; ….gz: compressed.")
    ],
    collection: CollectionOption = "default",
    vectors: Annotated[
        bool, typer.Option("--vectors", help="With the vectors: importing needs no model then.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Export the documents of a collection as NDJSON, as they are at this moment.

    The file appears when it is whole.
    """
    if file != _STANDARD and Path(file).exists() and not force:
        raise InvalidInputError(f"{file} is there already: name another, or say --force")
    path = f"/v1/collections/{segment(collection)}/export?vectors={str(vectors).lower()}"
    with shown_progress() as tell:
        made = asyncio.run(_export(settings, url, path, file, tell))
    if json and file != _STANDARD:
        print_json(made)
    elif file != _STANDARD:
        typer.echo(f"{file}: {made['documents']:,} documents, {decimal(made['bytes'])}")


async def _export(
    settings: Settings, url: str | None, path: str, file: str, tell: Tell
) -> dict[str, Any]:
    size_bytes, tail = 0, b""
    async with connect(settings, url) as client:
        with _writable(file) as output:
            async for piece in client.download(path):
                await asyncio.to_thread(output.write, piece)
                size_bytes += len(piece)
                tail = (tail + piece)[-_TAIL_BYTES:]
                tell("exporting", size_bytes, None)
    return {"documents": orjson.loads(tail.splitlines()[-1])["documents"], "bytes": size_bytes}


@contextmanager
def _writable(file: str) -> Iterator[IO[bytes]]:
    """Open what is written to; a file takes its name when the block ends well."""
    if file == _STANDARD:
        with _standard_output() as output:
            yield output
        return
    path = Path(file)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _opened(part, is_compressed=path.suffix == ".gz") as output:
            yield output
        part.replace(path)
    except OSError as error:
        raise InvalidInputError(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _standard_output() -> Iterator[IO[bytes]]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        raise InvalidInputError("the export was cut off: nobody reads it any more") from error


def _opened(path: Path, *, is_compressed: bool) -> Any:
    return gzip.open(path, "wb", compresslevel=_LEVEL) if is_compressed else path.open("wb")


# --- Import ----


@dataclass
class _Report:
    """Add up what became of the files."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, file: str, answer: dict[str, Any]) -> None:
        self.counts.update(answer["counts"])
        if answer["job"]:
            self.jobs.append(answer["job"]["id"])
        self.failures += [
            {
                "file": file,
                "line": failure["line"],
                "id": failure["id"],
                "error": failure["error"]["message"],
            }
            for failure in answer["failures"]
        ]

    @property
    def documents_per_s(self) -> float:
        return self.counts.total() / self.seconds if self.seconds else 0.0


@with_settings("host", "port", "api_key")
def import_(
    settings: Settings,
    files: Annotated[
        list[str], typer.Argument(help="NDJSON, gzipped or not, or Parquet; -: standard input.")
    ],
    collection: CollectionOption = "default",
    on_conflict: Annotated[
        OnConflict, typer.Option(help="What becomes of documents that are there.")
    ] = "replace",
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Import documents, of `memoryd export` or of any other program.

    What brings vectors is stored at once, the rest is embedded by a job. Run again after it broke
    off, it goes on: what is stored is unchanged. A line that fails is named, and the others are
    stored; the exit status is 1 then.
    """
    _check_files(files)
    report = _Report()
    asyncio.run(_import(settings, url, collection, on_conflict, files, report))
    if json:
        _print_report(report)
    else:
        _tell_report(report)
    if report.failures:
        raise typer.Exit(1)


def _check_files(files: Sequence[str]) -> None:
    for file in files:
        if file != _STANDARD and not Path(file).is_file():
            raise InvalidInputError(f"there is no file {file}")


def _print_report(report: _Report) -> None:
    print_json(
        {
            "counts": report.counts,
            "failures": report.failures,
            "jobs": report.jobs,
            "seconds": round(report.seconds, 3),
            "documents_per_s": round(report.documents_per_s, 1),
        }
    )


def _tell_report(report: _Report) -> None:
    counts = ", ".join(f"{count:,} {status}" for status, count in sorted(report.counts.items()))
    speed = f" ({report.documents_per_s:,.0f} documents/s)" if report.counts else ""
    typer.echo(f"{counts or 'nothing to do'}{speed}")
    for job in report.jobs:
        typer.echo(f"what is queued is embedded by the job {job}")
    for failure in report.failures:
        typer.echo(f"{failure['file']}:{failure['line']}: {failure['error']}", err=True)


async def _import(
    settings: Settings,
    url: str | None,
    collection: str,
    on_conflict: OnConflict,
    files: Sequence[str],
    report: _Report,
) -> None:
    path = f"/v1/collections/{segment(collection)}"
    started = time.monotonic()
    async with connect(settings, url) as client:
        # What is wrong with these is told before much is sent; a key may allow to write alone.
        await client.request("GET", path, accepted=frozenset({403}))
        for file in files:
            answer = await _import_file(client, f"{path}/import?on_conflict={on_conflict}", file)
            report.add(file, answer)
    report.seconds = time.monotonic() - started


async def _import_file(client: Client, path: str, file: str) -> Any:
    with _opened_source(file) as source, _shown(source) as show:
        try:
            return await client.request("POST", path, _pieces(source, show))
        except UnavailableError:
            if source.fault is not None:
                raise source.fault from None
            raise


@dataclass
class _Source:
    """Be a file that is being sent."""

    name: str
    file: IO[bytes]
    unpacked: IO[bytes]
    size_bytes: int | None
    lines: int = 0
    fault: MemorydError | None = None
    """Why it can't be read on."""

    @property
    def read_bytes(self) -> int:
        return self.file.tell() if self.size_bytes is not None else 0

    def read(self) -> bytes:
        try:
            piece = self.unpacked.read(_PIECE_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            self.fault = InvalidInputError(f"{self.name} can't be read: {error}")
            raise self.fault from error
        self.lines += piece.count(b"\n")
        return piece


@contextmanager
def _opened_source(name: str) -> Iterator[_Source]:
    with open(0 if name == _STANDARD else name, "rb", closefd=name != _STANDARD) as file:
        size_bytes = None if name == _STANDARD else os.fstat(file.fileno()).st_size
        is_packed = file.peek(len(_GZIP)).startswith(_GZIP)
        unpacked: Any = gzip.GzipFile(fileobj=file) if is_packed else file
        yield _Source(name, file, unpacked, size_bytes)


async def _pieces(source: _Source, show: Callable[[], None]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(source.read):
        yield piece
        show()


@contextmanager
def _shown(source: _Source) -> Iterator[Callable[[], None]]:
    """Show on a terminal how much of a file has been sent, and how fast."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console, started = Console(stderr=True), time.monotonic()
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"importing {source.name}", total=source.size_bytes)

        def show() -> None:
            speed = source.lines / max(time.monotonic() - started, 1e-3)
            said = f"importing {source.name}: {source.lines:,} lines, {speed:,.0f}/s"
            progress.update(task, completed=source.read_bytes, description=said)

        yield show
