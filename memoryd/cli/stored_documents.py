"""`memoryd documents …`."""

import asyncio
from typing import Annotated, Any

import orjson
import typer

from memoryd.cli.client import Client, RequestError, UrlOption, connect, pages, segment
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json, print_table
from memoryd.cli.search import CollectionOption
from memoryd.config import Settings
from memoryd.errors import InvalidInputError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The documents of a collection. `memoryd ingest` stores them.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the server's answer.")]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=0, help="How many to list at most; 0: all.")
]
FilterOption = Annotated[
    str | None,
    typer.Option(
        help='A filter as JSON: {"field": "team", "eq": "sec"} of metadata, or of the id: '
        '{"field": "id", "prefix": "handbook/"}.',
        metavar="<json>",
    ),
]


def read_json_option(name: str, text: str | None) -> Any:
    """Return what the JSON of an option says, None without one; raise InvalidInputError."""
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"{name}: {text} is not JSON: {error}") from error


@app.command("list")
@with_settings("host", "port", "api_key")
def list_(
    settings: Settings,
    collection: CollectionOption = "default",
    filter: FilterOption = None,  # noqa: A002 - it is the option's name
    limit: LimitOption = 100,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """List documents in the order in which they came, without their texts.

    Where the output is no terminal, columns stand between tabs.
    """
    read_json_option("--filter", filter)
    path = f"/v1/collections/{segment(collection)}/documents"
    documents = asyncio.run(_list(settings, url, path, limit=limit or None, filter=filter))
    if json:
        print_json({"documents": documents})
        return
    columns = ("id", "status", "version", "chunks", "title", "updated")
    print_table(columns, map(_row, documents))


async def _list(settings: Settings, url: str | None, path: str, **query: Any) -> list[Any]:
    async with connect(settings, url) as client:
        return [document async for document in pages(client, path, "documents", **query)]


def _row(document: dict[str, Any]) -> list[str]:
    return [
        document["id"],
        document["status"],
        str(document["version"]),
        str(document["chunks"]),
        document["title"],
        document["updated_at"],
    ]


@app.command()
@with_settings("host", "port", "api_key")
def show(
    settings: Settings,
    id_: Annotated[str, typer.Argument(metavar="ID", help="A document's id.")],
    collection: CollectionOption = "default",
    chunks: Annotated[
        bool, typer.Option("--chunks", help="Show the chunks instead of the text.")
    ] = False,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Show a document: what is known of it, and its text."""
    path = f"/v1/collections/{segment(collection)}/documents/{segment(id_)}"
    document, parts = asyncio.run(_show(settings, url, path, with_chunks=chunks))
    if json:
        print_json({"chunks": parts} if chunks else document)
        return
    for name, value in document.items():
        if name not in ("text", "error") and value not in (None, [], {}, ""):
            typer.echo(f"{name}: {_shown(value)}")
    if document["error"]:
        typer.echo(f"error: {document['error']['message']}")
    typer.echo()
    if not chunks:
        typer.echo(document["text"])
    for part in parts:
        typer.echo(f"--- {part['id']}{_place(part)}")
        typer.echo(part["text"])


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _place(chunk: dict[str, Any]) -> str:
    """Return where in the document a chunk is, as far as it is known."""
    place = ""
    if chunk["start_char"] is not None:
        place += f", characters {chunk['start_char']} to {chunk['end_char']}"
    if chunk["page"] is not None:
        place += f", page {chunk['page']}"
    return place + (f", {' > '.join(chunk['headings'])}" if chunk["headings"] else "")


async def _show(
    settings: Settings, url: str | None, path: str, *, with_chunks: bool
) -> tuple[dict[str, Any], list[Any]]:
    async with connect(settings, url) as client:
        document = await client.request("GET", path)
        if not with_chunks:
            return document, []
        return document, [chunk async for chunk in pages(client, f"{path}/chunks", "chunks")]


@app.command()
@with_settings("host", "port", "api_key")
def delete(
    settings: Settings,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of documents.")
    ] = None,
    collection: CollectionOption = "default",
    filter: FilterOption = None,  # noqa: A002 - it is the option's name
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --filter: only count them.")
    ] = False,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Delete documents by their ids, or all that a filter finds.

    One that isn't there is named, and the others are deleted; the exit status is 1 then.
    """
    if bool(ids) == (filter is not None):
        raise InvalidInputError("name the ids of the documents, or say which by --filter")
    if dry_run and filter is None:
        raise InvalidInputError("--dry-run goes with --filter")
    path = f"/v1/collections/{segment(collection)}/documents"
    failures: list[dict[str, str]] = []
    if filter is not None:
        body = {"filter": read_json_option("--filter", filter), "dry_run": dry_run}
        answer = asyncio.run(_delete_found(settings, url, path, body))
    else:
        answer, failures = asyncio.run(_delete(settings, url, path, ids or []))
    if json:
        print_json({**answer, "failures": failures} if ids else answer)
    else:
        typer.echo(f"{answer['deleted']} {'would be deleted' if dry_run else 'deleted'}")
        for failure in failures:
            typer.echo(f"{failure['id']}: {failure['error']}", err=True)
    if failures:
        raise typer.Exit(1)


async def _delete_found(
    settings: Settings, url: str | None, path: str, body: dict[str, Any]
) -> dict[str, Any]:
    async with connect(settings, url) as client:
        answer: dict[str, Any] = await client.request("POST", f"{path}/delete", body)
        return answer


async def _delete(
    settings: Settings, url: str | None, path: str, ids: list[str]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    failures: list[dict[str, str]] = []
    async with connect(settings, url) as client:
        await client.request("GET", path + "?limit=1")  # without the collection, once for all
        for id_ in ids:
            await _delete_one(client, path, id_, failures)
    return {"deleted": len(ids) - len(failures)}, failures


async def _delete_one(client: Client, path: str, id_: str, failures: list[dict[str, str]]) -> None:
    try:
        await client.request("DELETE", f"{path}/{segment(id_)}")
    except RequestError as error:
        if error.status in (401, 403):
            raise
        failures.append({"id": id_, "error": error.message})
