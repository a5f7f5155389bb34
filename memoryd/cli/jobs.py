"""`memoryd jobs …`."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memoryd.cli.client import Client, RequestError, UrlOption, connect, pages, segment
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json, print_table
from memoryd.cli.stored_documents import JsonOption, LimitOption
from memoryd.config import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Work that a running memoryd has accepted: documents to store, models to change.",
)

_FAILURES_SHOWN = 20

IdsArgument = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs.")]


@app.command("list")
@with_settings("host", "port", "api_key")
def list_(
    settings: Settings,
    status: Annotated[
        str | None,
        typer.Option(help="Only queued, running, completed, failed or cancelled ones."),
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Only those of one collection.")
    ] = None,
    limit: LimitOption = 20,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """List jobs, the newest first.

    Where the output is no terminal, columns stand between tabs.
    """
    jobs = asyncio.run(
        _list(settings, url, limit=limit or None, status=status, collection=collection)
    )
    if json:
        print_json({"jobs": jobs})
        return
    columns = ("id", "type", "collection", "status", "stage", "done", "failed", "created")
    print_table(columns, map(_row, jobs))


async def _list(settings: Settings, url: str | None, **query: Any) -> list[Any]:
    async with connect(settings, url) as client:
        return [job async for job in pages(client, "/v1/jobs", "jobs", **query)]


def _row(job: dict[str, Any]) -> list[str]:
    progress = job["progress"]
    return [
        job["id"],
        job["type"],
        job["collection"] or "(deleted)",
        job["status"],
        job["stage"] or "-",
        f"{progress['done']}/{progress['total']} {progress['unit']}",
        str(job["counts"].get("failed", 0)),
        job["created_at"],
    ]


@app.command()
@with_settings("host", "port", "api_key")
def show(
    settings: Settings,
    id_: Annotated[str, typer.Argument(metavar="ID", help="A job's id, such as j12.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show its progress until it ends.")
    ] = False,
    url: UrlOption = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the job as JSON; with --follow, a line each time.")
    ] = False,
) -> None:
    """Show a job, and why documents of it failed.

    The exit status is 1 where it has failed or was cancelled, or any of its documents failed.
    """
    tell = print_json if json else None
    job, failures = asyncio.run(_show(settings, url, id_, follow=follow, tell=tell))
    if not json:
        _print(job, failures)
    elif not follow:
        print_json(job)
    if job["status"] in ("failed", "cancelled") or job["counts"].get("failed"):
        raise typer.Exit(1)


async def _show(
    settings: Settings,
    url: str | None,
    id_: str,
    *,
    follow: bool,
    tell: Callable[[Any], None] | None,
) -> tuple[dict[str, Any], list[Any]]:
    path = f"/v1/jobs/{segment(id_)}"
    async with connect(settings, url) as client:
        job: dict[str, Any] = await client.request("GET", path)
        if follow:
            async with aclosing(_changes(client, path, shows_bar=tell is None)) as changes:
                async for job in changes:
                    if tell:
                        tell(job)
        listed = pages(client, f"{path}/failures", "failures", limit=_FAILURES_SHOWN)
        return job, [failure async for failure in listed]


async def _changes(
    client: Client, path: str, *, shows_bar: bool
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield a job whenever it changes until it has ended, and show a bar on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    is_shown = shows_bar and sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as progress:
        task = progress.add_task("waiting", total=None)
        async with aclosing(client.events(f"{path}/events")) as events:
            async for job in events:
                progress.update(
                    task,
                    description=job["stage"] or job["status"],
                    completed=job["progress"]["done"],
                    total=job["progress"]["total"],
                )
                yield job


def _print(job: dict[str, Any], failures: list[Any]) -> None:
    progress, counts = job["progress"], job["counts"]
    where = job["collection"] or "a collection that was deleted"
    typer.echo(f"{job['id']}: {job['type']} of {where}, {_state(job)}")
    done = f"{progress['done']} of {progress['total']} {progress['unit']} done"
    outcomes = [f"{count} {name}" for name, count in counts.items() if count and name != "total"]
    typer.echo(f"{done}{': ' if outcomes else ''}{', '.join(outcomes)}")
    times = (f"{name} {job[f'{name}_at']}" for name in ("created", "started", "finished"))
    typer.echo(", ".join(time for time in times if not time.endswith("None")))
    if job["eta_s"] is not None:
        typer.echo(f"about {job['eta_s']:.0f} s left")
    if job["last_error"] and not failures:
        typer.echo(f"error: {job['last_error']['message']}", err=True)
    for failure in failures:
        typer.echo(f"{failure['id'] or '(no id)'}: {failure['error']['message']}", err=True)
    others = counts.get("failed", 0) - len(failures)
    if failures and others > 0:
        typer.echo(f"… and {others} more: GET /v1/jobs/{job['id']}/failures", err=True)


def _state(job: dict[str, Any]) -> str:
    stage = f" ({job['stage']})" if job["stage"] else ""
    attempt = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
    return f"{job['status']}{stage}{attempt}"


@app.command()
@with_settings("host", "port", "api_key")
def retry(
    settings: Settings, ids: IdsArgument, url: UrlOption = None, json: JsonOption = False
) -> None:
    """Try again what failed of jobs, once its cause is gone."""
    _change(settings, url, ids, "POST", "/retry", print_json if json else _print_retried)


def _print_retried(job: dict[str, Any]) -> None:
    typer.echo(f"{job['id']} is {job['status']} again")


@app.command()
@with_settings("host", "port", "api_key")
def cancel(
    settings: Settings, ids: IdsArgument, url: UrlOption = None, json: JsonOption = False
) -> None:
    """Cancel jobs: what of their documents isn't stored yet will not be, what is stays."""
    _change(settings, url, ids, "DELETE", "", print_json if json else _print_cancelled)


def _print_cancelled(job: dict[str, Any]) -> None:
    typer.echo(f"{job['id']} is {job['status']}")


def _change(
    settings: Settings,
    url: str | None,
    ids: list[str],
    method: str,
    end: str,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """Ask the same of each job; one that refuses is named, and the exit status is 1 then."""
    if not asyncio.run(_ask_each(settings, url, ids, method, end, tell)):
        raise typer.Exit(1)


async def _ask_each(
    settings: Settings,
    url: str | None,
    ids: list[str],
    method: str,
    end: str,
    tell: Callable[[dict[str, Any]], None],
) -> bool:
    is_done = True
    async with connect(settings, url) as client:
        for id_ in ids:
            try:
                tell(await client.request(method, f"/v1/jobs/{segment(id_)}{end}"))
            except RequestError as error:
                is_done = False
                typer.echo(f"memoryd: {error.message}", err=True)
    return is_done
