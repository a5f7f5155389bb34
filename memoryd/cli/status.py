"""`memoryd status`."""

import asyncio
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from memoryd.cli.client import Client, RequestError, UrlOption, connect
from memoryd.cli.options import with_settings
from memoryd.config import Settings

_NOT_READY = frozenset({503})


@with_settings("host", "port", "api_key")
def status(
    settings: Settings,
    url: UrlOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show whether memoryd is ready, and what its collections hold.

    Exits with 1 if it isn't ready.
    """
    answer = asyncio.run(_ask(settings, url))
    if json:
        typer.echo(orjson.dumps(answer))
    else:
        _print(answer)
    if not _is_ready(answer):
        raise typer.Exit(1)


def _is_ready(answer: dict[str, Any]) -> bool:
    return bool(answer["ready"]["status"] == "ok")


def _print(answer: dict[str, Any]) -> None:
    readiness = "" if _is_ready(answer) else " is not ready"
    checks = ", ".join(f"{name} {state}" for name, state in answer["ready"]["checks"].items())
    typer.echo(f"memoryd {answer['health']['version']}{readiness}: {checks}")
    if answer["collections"] is None:
        return
    table = Table("collection", "model", "documents", "chunks", "MB")
    for collection in answer["collections"]:
        table.add_row(*_row(collection))
    Console().print(table)


def _row(collection: dict[str, Any]) -> list[str]:
    return [
        collection["name"],
        collection["model"],
        f"{collection['documents']:,}",
        f"{collection['chunks']:,}",
        f"{collection['bytes'] / 1e6:,.1f}",
    ]


async def _ask(settings: Settings, url: str | None) -> dict[str, Any]:
    async with connect(settings, url) as client:
        return {
            "health": await client.request("GET", "/health"),
            "ready": await client.request("GET", "/health/ready", accepted=_NOT_READY),
            "collections": await _list_collections(client),
        }


async def _list_collections(client: Client) -> list[Any] | None:
    """Return the collections, or None while the database can't be read."""
    collections: list[Any] = []
    cursor = ""
    while cursor is not None:
        query = f"?cursor={cursor}" if cursor else ""
        try:
            page = await client.request("GET", f"/v1/collections{query}")
        except RequestError as error:
            if error.status in _NOT_READY:
                return None
            raise
        collections += page["collections"]
        cursor = page["next_cursor"]
    return collections
