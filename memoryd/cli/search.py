"""`memoryd search`."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.text import Text

from memoryd.cli.client import UrlOption, connect
from memoryd.cli.options import with_settings
from memoryd.config import Settings

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="The collection.")]


@with_settings("host", "port", "api_key")
def search(
    settings: Settings,
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    collection: CollectionOption = "default",
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many documents.")] = 5,
    url: UrlOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the server's answer.")] = False,
) -> None:
    """Find documents by meaning."""
    answer = asyncio.run(_ask(settings, url, collection, {"query": query, "limit": limit}))
    if json:
        typer.echo(orjson.dumps(answer))
        return
    console = Console()
    if not answer["results"]:
        console.print("nothing found")
    for result in answer["results"]:
        _print_result(console, result)


async def _ask(
    settings: Settings, url: str | None, collection: str, body: dict[str, Any]
) -> dict[str, Any]:
    async with connect(settings, url) as client:
        path = f"/v1/collections/{quote(collection, safe='')}/search"
        answer: dict[str, Any] = await client.request("POST", path, body)
        return answer


def _print_result(console: Console, result: dict[str, Any]) -> None:
    document = result["document"]
    heading = Text(f"{result['score']:.3f} ", style="bold green")
    heading.append(document["title"] or document["id"], style="bold")
    if document["title"]:
        heading.append(f"  {document['id']}", style="dim")
    console.print(heading)
    for chunk in result["chunks"]:
        text = " ".join(chunk["text"].split())
        shown = Text(text if len(text) <= 300 else text[:300] + "…")
        console.print(Text("  ") + shown, soft_wrap=False)
    console.print()
