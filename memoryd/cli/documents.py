"""`memoryd ingest`."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import watchfiles

from memoryd.cli.client import Client, RequestError, UrlOption, connect, pages, segment
from memoryd.cli.files import Selection
from memoryd.cli.ingest_progress import shown_ingest
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json
from memoryd.cli.search import CollectionOption
from memoryd.cli.sending import Outcome, Sender, batches_of, items_of
from memoryd.config import Settings
from memoryd.errors import InvalidInputError, UnavailableError

# Between looks at watched folders where nothing tells of a change, as on network file systems.
_LOOK_EVERY_MS = 5_000

_State = tuple[int, int]
"""When a file was changed, in nanoseconds, and its size."""


@dataclass
class _Report:
    """Count what became of the files."""

    files: int
    counts: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    deleted: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome["status"]] += 1
        self.chunks += outcome["chunks"]
        if outcome["error"]:
            self.failures.append({"id": outcome["id"], "error": outcome["error"]["message"]})


@dataclass(frozen=True)
class _Source:
    """Say which files are ingested, and into what."""

    paths: Sequence[Path]
    selection: Selection
    collection: str
    waits: bool
    deletes: bool

    @property
    def path(self) -> str:
        return f"/v1/collections/{segment(self.collection)}"

    def find(self) -> list[Path]:
        return list(self.selection.find(self.paths))


PathsArgument = Annotated[list[Path], typer.Argument(help="Files, and folders to search.")]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="In folders, take the files that match instead of the types above, such as '*.py' or "
        "'docs/*'. It can be given several times.",
        metavar="<glob>",
    ),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="In folders, leave out what matches, such as '*.log' or 'node_modules'. It can be "
        "given several times.",
        metavar="<glob>",
    ),
]
WaitOption = Annotated[
    bool,
    typer.Option(
        "--wait/--no-wait",
        help="Wait until all is stored, or only until it is accepted: then jobs go on.",
    ),
]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="Go on, and ingest what is changed, until Ctrl-C.")
]
DeleteOption = Annotated[
    bool,
    typer.Option("--delete", help="Delete the documents of the folders whose files are gone."),
]


@with_settings("host", "port", "api_key")
def ingest(
    settings: Settings,
    paths: PathsArgument,
    collection: CollectionOption = "default",
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    wait: WaitOption = True,
    watch: WatchOption = False,
    delete: DeleteOption = False,
    url: UrlOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print a report as JSON.")] = False,
) -> None:
    """Store files, and those in folders, however deep.

    Text, Markdown, HTML, JSON, CSV, PDF, Word, PowerPoint, Excel, EPUB and mail are looked for;
    what is hidden is left out. A document's id is its file's path as given. Run again, only what
    has changed is embedded, so what breaks off goes on where it was. A file that fails is named,
    and the others are stored; the exit status is 1 then.

    Example: memoryd ingest handbook --collection kb --exclude drafts --watch
    """
    selection = Selection(tuple(include or ()), tuple(exclude or ()))
    source = _Source(paths, selection, collection, wait, delete)
    if watch and not all(path.is_dir() for path in paths):
        raise InvalidInputError("--watch is for folders: name the one that the file is in")
    tell = _print_as_json if json else _print
    if watch:
        asyncio.run(_watch(settings, url, source, tell))
    elif not asyncio.run(_ingest_once(settings, url, source, tell)):
        raise typer.Exit(1)


def _print_as_json(report: _Report) -> None:
    print_json(report)


def _print(report: _Report) -> None:
    counts = [f"{count} {status}" for status, count in sorted(report.counts.items())]
    if report.deleted:
        counts.append(f"{len(report.deleted)} deleted")
    typer.echo(f"{report.files} files: {', '.join(counts) or 'nothing to do'}")
    if report.jobs:
        typer.echo(f"see `memoryd jobs show` for {', '.join(report.jobs)}")
    for failure in report.failures:
        typer.echo(f"{failure['id']}: {failure['error']}", err=True)


async def _ingest_once(settings: Settings, url: str | None, source: _Source, tell: Any) -> bool:
    """Ingest all, tell what became of it, and return whether nothing failed."""
    files = source.find()
    async with connect(settings, url) as client:
        report = await _send(client, source, files)
        if source.deletes:
            await _delete_all(client, source, await _find_gone(client, source, files), report)
    tell(report)
    return not report.failures


async def _send(client: Client, source: _Source, files: Sequence[Path]) -> _Report:
    report = _Report(len(files))
    async with shown_ingest(client, len(files)) as progress:

        def note(outcomes: list[Outcome]) -> None:
            before = report.chunks
            for outcome in outcomes:
                report.add(outcome)
            progress.note(report.counts.total(), report.chunks - before)

        sender = Sender(client, source.path, note, waits=source.waits)
        await sender.send_all(batches_of(items_of(files, note)))
    report.jobs = sender.jobs
    return report


async def _find_gone(client: Client, source: _Source, files: Iterable[Path]) -> list[str]:
    """Return the ids of documents that stand for files of the folders, and have none any more."""
    folders = [folder for folder in source.paths if folder.is_dir()]
    found = set(map(str, files))
    listed = pages(client, f"{source.path}/documents", "documents")
    return [
        document["id"]
        async for document in listed
        if document["id"] not in found and _is_gone(Path(document["id"]), folders)
    ]


def _is_gone(path: Path, folders: Iterable[Path]) -> bool:
    """Say whether a file that could stand below one of the folders isn't there."""
    return any(folder in path.parents for folder in folders) and not path.exists()


async def _delete_all(client: Client, source: _Source, ids: Iterable[str], report: _Report) -> None:
    for id_ in ids:
        try:
            await client.request("DELETE", f"{source.path}/documents/{segment(id_)}")
        except RequestError as error:
            if error.status != 404:
                report.failures.append({"id": id_, "error": error.message})
        else:
            report.deleted.append(id_)


# --- Watching ----


async def _watch(settings: Settings, url: str | None, source: _Source, tell: Any) -> None:
    """Ingest all, then what changes, until it is cancelled; a server that is away is waited for."""
    async with connect(settings, url) as client, aclosing(_looks(source)) as looks:
        files = source.find()
        known = _states(files)
        report = await _send(client, source, files)
        if source.deletes:
            await _delete_all(client, source, await _find_gone(client, source, files), report)
        tell(report)
        async for found in looks:
            try:
                report = await _follow_up(client, source, known, found)
            except UnavailableError as error:
                typer.echo(f"memoryd: {error.message}", err=True)
                continue  # at the next look it is tried again
            known = found
            if report.files or report.deleted:
                tell(report)


async def _follow_up(
    client: Client, source: _Source, known: dict[str, _State], found: dict[str, _State]
) -> _Report:
    """Ingest what is new or changed, and delete what is gone, where that is asked for."""
    report = await _send(
        client, source, [Path(path) for path in found if known.get(path) != found[path]]
    )
    if source.deletes:
        await _delete_all(client, source, known.keys() - found.keys(), report)
    return report


async def _looks(source: _Source) -> AsyncGenerator[dict[str, _State], None]:
    """Yield what the folders hold, whenever something may have changed there."""
    changes = watchfiles.awatch(
        *source.paths, watch_filter=None, rust_timeout=_LOOK_EVERY_MS, yield_on_timeout=True
    )
    async with aclosing(changes):
        async for _ in changes:
            yield _states(source.find())


def _states(files: Iterable[Path]) -> dict[str, _State]:
    states: dict[str, _State] = {}
    for file in files:
        try:
            state = file.stat()
        except OSError:  # it has gone since it was found
            continue
        states[str(file)] = state.st_mtime_ns, state.st_size
    return states
