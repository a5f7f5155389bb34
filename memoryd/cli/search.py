"""`memoryd search`."""

import asyncio
from typing import Annotated, Any

import orjson
import typer

from memoryd.cli.client import UrlOption, connect, segment
from memoryd.cli.filters import FILTER_HELP, read_filters
from memoryd.cli.options import with_settings
from memoryd.cli.search_results import print_explanation, print_results
from memoryd.config import Settings
from memoryd.errors import InvalidInputError

CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="The collection.")]


@with_settings("host", "port", "api_key")
def search(
    settings: Settings,
    query: Annotated[
        str | None, typer.Argument(help="What to look for, in plain words.", show_default=False)
    ] = None,
    collections: Annotated[
        list[str] | None,
        typer.Option(
            "--collection",
            "-c",
            metavar="<name>",
            help="The collection; several are searched together. [default: default]",
        ),
    ] = None,
    filters: Annotated[
        list[str] | None, typer.Option("--filter", "-f", metavar="<filter>", help=FILTER_HELP)
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            "--mode",
            "-m",
            metavar="hybrid|dense|lexical",
            help="Look for the meaning (dense), for the words (lexical), or for both.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many documents.")] = 5,
    offset: Annotated[int, typer.Option(help="How many of the best to pass over.")] = 0,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="<float>",
            help="Least score of a chunk: its cosine; with --mode lexical its bm25, with --rerank "
            "what the reranker gives.",
        ),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option(
            "--document",
            "-d",
            metavar="<id>",
            help="Look for what is like this stored document, instead of a query.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(metavar="<model>", help="Have this reranker order the best anew."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with all vectors, without an index.")
    ] = False,
    context: Annotated[int, typer.Option(help="Chunks to show before and after each one.")] = 0,
    highlight: Annotated[
        bool | None,
        typer.Option(
            "--highlight/--no-highlight",
            help="Mark the sentences that say most. [default: unless --json]",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the plan, ranks, and milliseconds.")
    ] = False,
    url: UrlOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the server's answer.")] = False,
) -> None:
    """Find documents by their meaning and their words.

    Each result has its title, its id, its score, and the lines of its best chunk.

    \b
    memoryd search "how do I rotate keys"
    memoryd search keys --filter team=sec --filter 'year>=2023'
    memoryd search keys --filter '{"field": "tags", "all": ["auth", "api"]}'
    memoryd search '"key rotation" rotat*' --mode lexical
    memoryd search --document handbook/auth.md --limit 10
    memoryd search keys -c wiki -c mail --rerank bge-reranker-v2-m3 --explain
    memoryd search keys --json | jq -r '.results[].document.id'
    """  # noqa: D301 - click leaves the lines after \b as they are
    wanted = {
        "query": _what(query, document),
        "filter": read_filters(filters or []),
        "mode": mode,
        "limit": limit,
        "offset": offset,
        "score_threshold": score_threshold,
        "rerank": {"model": rerank} if rerank else None,
        "params": {"exact": True} if exact else None,
        "with": {"context": context, "highlight": not json if highlight is None else highlight},
        "explain": explain,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    answer = asyncio.run(_ask(settings, url, collections or ["default"], body))
    if json:
        typer.echo(orjson.dumps(answer))
        return
    print_results(answer, offset=offset)
    if explain:
        print_explanation(answer, offset=offset)


def _what(query: str | None, document: str | None) -> Any:
    if (query is None) == (document is None):
        raise InvalidInputError(
            "say what to look for: some words, or --document with the id of a stored document"
        )
    return query if document is None else {"document": document}


async def _ask(
    settings: Settings, url: str | None, collections: list[str], body: dict[str, Any]
) -> dict[str, Any]:
    async with connect(settings, url) as client:
        if len(collections) > 1:
            path, body = "/v1/search", {"collections": collections, **body}
        else:
            path = f"/v1/collections/{segment(collections[0])}/search"
        answer: dict[str, Any] = await client.request("POST", path, body)
        return answer
