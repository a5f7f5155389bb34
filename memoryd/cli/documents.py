"""`memoryd ingest`."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memoryd.cli.client import UrlOption, connect
from memoryd.cli.options import with_settings
from memoryd.cli.search import CollectionOption
from memoryd.cli.sending import Item, Outcome, failure, send_all
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

    def add(self, outcome: Outcome) -> None:
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
    A file that fails is named, and the others are stored; the exit status is 1 then.
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
    batches = _batches(_read(files, report))
    columns = (TextColumn("storing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    async with connect(settings, url) as client:
        with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("storing", total=len(files))

            def note(outcomes: list[Outcome]) -> None:
                for outcome in outcomes:
                    report.add(outcome)
                progress.update(task, completed=report.counts.total())

            await send_all(client, path, batches, note)
    return report


def _read(files: Iterable[Path], report: _Report) -> Iterator[Item]:
    for file in files:
        id_ = str(file).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if id_ != str(file):
            report.add(failure(id_, "invalid_value", "its name is not UTF-8: rename it"))
            continue
        try:
            text = file.read_text(encoding="utf-8-sig", errors="replace").replace("\0", "\ufffd")
        except OSError as error:
            report.add(failure(id_, "unreadable", error.strerror or str(error)))
            continue
        yield {"id": id_, "text": text, "mime_type": _MIME_TYPES[file.suffix.lower()]}


def _batches(documents: Iterable[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
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
