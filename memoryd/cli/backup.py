"""`memoryd backup` and `memoryd restore`."""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.filesize import decimal

from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json
from memoryd.cli.progress import shown_progress
from memoryd.config import Settings
from memoryd.errors import BackupError
from memoryd.memory.backups import Backup, Tell, back_up, open_source
from memoryd.memory.restoring import Restored, restore_into_empty, restore_over
from memoryd.storage.snapshots import Contents

TERMINATED = 128 + signal.SIGTERM  # what shells report of a command that `kill` has ended

T = TypeVar("T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@with_settings("data_dir", "database_url")
def backup(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="The file to write, private to you.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write all that memoryd holds to a file, as it is at this moment.

    memoryd may be serving meanwhile. The file has the texts of all documents, vectors, hashes of
    API keys, and your own tables in the embedded database; models are not in it.
    """
    path = file.expanduser().absolute()
    if path.exists() and not force:
        raise BackupError(f"{path} is there already: name another, or say --force to replace it")
    started = time.monotonic()
    made = run_with_progress(lambda tell: _back_up(settings, path, tell))
    if json:
        print_json({**describe(made), "seconds": round(time.monotonic() - started, 3)})
    else:
        typer.echo(f"{made.file}: {made.contents}, {decimal(made.bytes)}")


async def _back_up(settings: Settings, path: Path, tell: Tell) -> Backup:
    async with open_source(settings) as source:
        return await back_up(source, path, tell)


@with_settings("data_dir", "database_url")
def restore(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="A backup, of `memoryd backup` or pg_dump.")],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace what the data directory holds, after a backup into its folder backups.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Restore a backup into a data directory that is new or empty, while no memoryd serves it.

    It is complete when this ends well; else nothing has changed. Restore only what you trust: a
    backup can make the database run anything.
    """
    path = file.expanduser().absolute()
    work = restore_over if replace else restore_into_empty
    done = run_with_progress(lambda tell: work(settings, path, tell))
    if json:
        replaced = done.replaced and describe(done.replaced)
        print_json({**describe_contents(done.contents), "replaced": replaced})
    else:
        _print_restored(done)


def _print_restored(done: Restored) -> None:
    if done.replaced:
        typer.echo(f"what was there before is in {done.replaced.file}")
    typer.echo(f"restored {done.contents}")


def describe(backup: Backup) -> dict[str, Any]:
    """Return what JSON tells of a backup."""
    return {
        "file": str(backup.file),
        "bytes": backup.bytes,
        **describe_contents(backup.contents),
    }


def describe_contents(contents: Contents) -> dict[str, Any]:
    """Return what JSON tells of what a database holds."""
    return {
        "collections": len(contents.collections),
        "documents": contents.documents,
        "api_keys": contents.keys,
        "revision": contents.revision,
    }


def run_with_progress(work: Callable[[Tell], Coroutine[Any, Any, T]]) -> T:
    """Run long work and show how far it is; Ctrl-C and SIGTERM end it and what it started."""
    try:
        with shown_progress() as tell:
            return asyncio.run(_until_terminated(work(tell)))
    except asyncio.CancelledError as error:
        raise typer.Exit(TERMINATED) from error


async def _until_terminated(work: Coroutine[Any, Any, T]) -> T:
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - inside a coroutine there is a task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    return await work
