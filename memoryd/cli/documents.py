"""`memoryd ingest`."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memoryd.cli.client import Client, UrlOption, connect
from memoryd.cli.options import with_settings
from memoryd.cli.search import CollectionOption
from memoryd.config import Settings
from memoryd.errors import InvalidInputError

_MIME_TYPES = {".txt": "text/plain", ".md": "text/markdown"}
_BATCH_CHARS = 500_000
_BATCH_DOCUMENTS = 64


@dataclass
class _Report:
    """Count what became of the files."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, outcome: dict[str, Any]) -> None:
        self.counts[outcome["status"]] += 1
        if outcome["error"]:
            self.failures.append({"id": outcome["id"], "error": outcome["error"]["message"]})


@with_settings("host", "port", "api_key")
def ingest(
    settings: Settings,
    paths: Annotated[list[Path], typer.Argument(help="Files and folders; .txt and .md are read.")],
    collection: CollectionOption = "default",
    url: UrlOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print a report as JSON.")] = False,
) -> None:
    """Store text files, and all those in folders.

    A document's id is its file's path as given. Run again, only what has changed is embedded.
    Exits with 1 if a file failed.
    """
    files = list(_find_files(paths))
    report = asyncio.run(_ingest(settings, url, collection, files))
    if json:
        typer.echo(orjson.dumps({"counts": report.counts, "failures": report.failures}))
    else:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(report.counts.items()))
        typer.echo(f"{len(files)} files: {counts or 'nothing to do'}")
        for failure in report.failures:
            typer.echo(f"{failure['id']}: {failure['error']}", err=True)
    if report.failures:
        raise typer.Exit(1)


def _find_files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _MIME_TYPES)
            yield from (file for file in found if file.is_file())
        elif not path.is_file():
            raise InvalidInputError(f"there is no file or folder {path}")
        elif path.suffix.lower() not in _MIME_TYPES:
            raise InvalidInputError(f"{path}: only .txt and .md files are read")
        else:
            yield path


async def _ingest(
    settings: Settings, url: str | None, collection: str, files: list[Path]
) -> _Report:
    report = _Report()
    path = f"/v1/collections/{quote(collection, safe='')}/documents"
    columns = (TextColumn("storing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    async with connect(settings, url) as client:
        with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("storing", total=len(files))
            async for outcomes in _send(client, path, files, report):
                for outcome in outcomes:
                    report.add(outcome)
                progress.update(task, completed=report.counts.total())
    return report


async def _send(
    client: Client, path: str, files: list[Path], report: _Report
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield what became of each batch; the next one is sent while one is worked on."""
    pending: list[asyncio.Task[Any]] = []
    for batch in _batches(_read(files, report)):
        pending.append(asyncio.create_task(client.request("POST", path, {"documents": batch})))
        if len(pending) == 2:
            yield (await pending.pop(0))["documents"]
    for task in pending:
        yield (await task)["documents"]


def _read(files: Iterable[Path], report: _Report) -> Iterator[dict[str, Any]]:
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig", errors="replace").replace("\0", "\ufffd")
        except OSError as error:
            report.counts["failed"] += 1
            report.failures.append({"id": str(file), "error": error.strerror or str(error)})
            continue
        yield {"id": str(file), "text": text, "mime_type": _MIME_TYPES[file.suffix.lower()]}


def _batches(documents: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    chars = 0
    for document in documents:
        if batch and (
            len(batch) == _BATCH_DOCUMENTS or chars + len(document["text"]) > _BATCH_CHARS
        ):
            yield batch
            batch, chars = [], 0
        batch.append(document)
        chars += len(document["text"])
    if batch:
        yield batch
