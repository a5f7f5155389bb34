"""`memoryd status`."""

import asyncio
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from memoryd.cli.client import UrlOption, connect
from memoryd.cli.options import with_settings
from memoryd.config import Settings


@with_settings("host", "port", "api_key")
def status(
    settings: Settings,
    url: UrlOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show whether memoryd is ready, and what its collections hold."""
    answer = asyncio.run(_ask(settings, url))
    if json:
        typer.echo(orjson.dumps(answer))
        return
    checks = ", ".join(f"{name} {state}" for name, state in answer["ready"]["checks"].items())
    typer.echo(f"memoryd {answer['health']['version']}: {checks}")
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
        answer = {
            "health": await client.request("GET", "/health"),
            "ready": await client.request("GET", "/health/ready"),
        }
        collections: list[Any] = []
        cursor = ""
        while cursor is not None:
            query = f"?cursor={cursor}" if cursor else ""
            page = await client.request("GET", f"/v1/collections{query}")
            collections += page["collections"]
            cursor = page["next_cursor"]
        return answer | {"collections": collections}
