"""`memoryd collections …`."""

import asyncio
import sys
from typing import Annotated, Any

import typer

from memoryd.cli.client import UrlOption, connect, pages, segment
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json, print_table
from memoryd.cli.stored_documents import JsonOption, read_json_option
from memoryd.config import Settings
from memoryd.errors import InvalidInputError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The collections of a running memoryd: sets of documents, each with its model.",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A collection's name or alias.")]
DimensionsOption = Annotated[
    int | None, typer.Option(help="Width of the vectors, where the model can do with less.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="How vectors are stored: half, or full, which takes twice the room."),
]
MaxTokensOption = Annotated[
    int | None, typer.Option(help="Longest chunk, all that the model sees included.")
]
OverlapTokensOption = Annotated[
    int | None, typer.Option(help="Tokens that neighboring chunks share.")
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format", help="How texts are cut: text, markdown, code, or auto, which is by type."
    ),
]
LanguageOption = Annotated[
    str | None, typer.Option(help="Language of the texts, as Postgres calls it, such as english.")
]
MetadataOption = Annotated[
    str | None, typer.Option(help="Anything of your own, as a JSON object.", metavar="<json>")
]


@app.command("list")
@with_settings("host", "port", "api_key")
def list_(settings: Settings, url: UrlOption = None, json: JsonOption = False) -> None:
    """List the collections by name.

    Where the output is no terminal, columns stand between tabs.
    """
    collections = asyncio.run(_list(settings, url))
    if json:
        print_json({"collections": collections})
        return
    columns = ("name", "model", "dimensions", "documents", "chunks", "MB", "aliases")
    print_table(columns, map(_row, collections))


async def _list(settings: Settings, url: str | None) -> list[Any]:
    async with connect(settings, url) as client:
        return [each async for each in pages(client, "/v1/collections", "collections")]


def _row(collection: dict[str, Any]) -> list[str]:
    return [
        collection["name"],
        collection["model"],
        str(collection["dimensions"]),
        str(collection["documents"]),
        str(collection["chunks"]),
        f"{collection['bytes'] / 1e6:.1f}",
        ", ".join(collection["aliases"]) or "-",
    ]


@app.command()
@with_settings("host", "port", "api_key")
def show(
    settings: Settings, name: NameArgument, url: UrlOption = None, json: JsonOption = False
) -> None:
    """Show a collection and what it holds."""
    _tell(asyncio.run(_request(settings, url, "GET", name)), json=json)


@app.command()
@with_settings("host", "port", "api_key")
def create(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, _, . and -.")],
    model: Annotated[
        str | None, typer.Option(help="Embedding model. [default: the server's]")
    ] = None,
    dimensions: DimensionsOption = None,
    precision: PrecisionOption = None,
    max_tokens: MaxTokensOption = None,
    overlap_tokens: OverlapTokensOption = None,
    format_: FormatOption = None,
    language: LanguageOption = None,
    metadata: MetadataOption = None,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Make a collection. What is not said is as the server has it.

    Example: memoryd collections create kb --model all-minilm --max-tokens 200
    """
    chunking = _given(max_tokens=max_tokens, overlap_tokens=overlap_tokens, format=format_)
    body = _given(
        name=name,
        model=model,
        dimensions=dimensions,
        precision=precision,
        chunking=chunking or None,
        language=language,
        metadata=read_json_option("--metadata", metadata),
    )
    _tell(asyncio.run(_request(settings, url, "POST", body=body)), json=json)


@app.command()
@with_settings("host", "port", "api_key")
def update(
    settings: Settings,
    name: NameArgument,
    rename: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    language: LanguageOption = None,
    metadata: MetadataOption = None,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Change a collection's name, language or metadata."""
    metadata_value = read_json_option("--metadata", metadata)
    body = _given(name=rename, language=language, metadata=metadata_value)
    if not body:
        raise InvalidInputError("say what to change: --name, --language or --metadata")
    _tell(asyncio.run(_request(settings, url, "PATCH", name, body)), json=json)


@app.command()
@with_settings("host", "port", "api_key")
def alias(
    settings: Settings,
    name: NameArgument,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The other name.")],
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Let another name mean a collection, also where it meant another: in one step."""
    answer = asyncio.run(_request(settings, url, "POST", name, {"alias": alias}, end="/aliases"))
    _tell(answer, json=json)


@app.command("model")
@with_settings("host", "port", "api_key")
def change_model(
    settings: Settings,
    name: NameArgument,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The new embedding model.")],
    dimensions: DimensionsOption = None,
    precision: PrecisionOption = None,
    max_tokens: MaxTokensOption = None,
    overlap_tokens: OverlapTokensOption = None,
    format_: FormatOption = None,
    instruction: Annotated[
        str | None, typer.Option(help="What queries are for, where the model takes that.")
    ] = None,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Embed a collection by another model, while it is searched as before.

    A job does it, which `memoryd jobs show --follow` shows, and switches at its end. The old
    vectors stay for `memoryd collections rollback` until `memoryd collections drop-previous`.
    """
    chunking = _given(max_tokens=max_tokens, overlap_tokens=overlap_tokens, format=format_)
    body = _given(
        model=model,
        dimensions=dimensions,
        precision=precision,
        chunking=chunking or None,
        instruction=instruction,
    )
    answer = asyncio.run(_request(settings, url, "POST", name, body, end="/model"))
    if json:
        print_json(answer)
    else:
        typer.echo(f"see `memoryd jobs show --follow {answer['job']['id']}`")


@app.command()
@with_settings("host", "port", "api_key")
def rollback(
    settings: Settings, name: NameArgument, url: UrlOption = None, json: JsonOption = False
) -> None:
    """Search by the model before again; what was written since is there too."""
    answer = asyncio.run(_request(settings, url, "POST", name, end="/model/rollback"))
    _tell(answer, json=json)


@app.command("drop-previous")
@with_settings("host", "port", "api_key")
def drop_previous(
    settings: Settings, name: NameArgument, url: UrlOption = None, json: JsonOption = False
) -> None:
    """Delete the vectors of the model before: there is no rollback to them any more."""
    answer = asyncio.run(_request(settings, url, "DELETE", name, end="/model/previous"))
    if json:
        print_json(answer)
    else:
        typer.echo(f"the vectors of {answer['deleted']['model']} are deleted")


@app.command()
@with_settings("host", "port", "api_key")
def delete(
    settings: Settings,
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Delete a collection with all of its documents."""
    if not yes:
        _confirm(asyncio.run(_request(settings, url, "GET", name)))
    answer = asyncio.run(_request(settings, url, "DELETE", name))
    if json:
        print_json(answer)
    else:
        typer.echo(f"{answer['deleted']} is deleted")


def _confirm(collection: dict[str, Any]) -> None:
    question = f"delete {collection['name']} with {collection['documents']} documents?"
    if not sys.stdin.isatty():
        raise InvalidInputError(f"{question} Say --yes")
    typer.confirm(question, abort=True)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


async def _request(
    settings: Settings,
    url: str | None,
    method: str,
    name: str | None = None,
    body: dict[str, Any] | None = None,
    *,
    end: str = "",
) -> dict[str, Any]:
    path = "/v1/collections" + (f"/{segment(name)}" if name is not None else "") + end
    async with connect(settings, url) as client:
        answer: dict[str, Any] = await client.request(method, path, body)
        return answer


def _tell(collection: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(collection)
        return
    chunking = collection["chunking"]
    aliases = ", ".join(collection["aliases"])
    typer.echo(f"{collection['name']}{f' ({aliases})' if aliases else ''}")
    typer.echo(
        f"{collection['documents']} documents, {collection['chunks']} chunks,"
        f" {collection['bytes'] / 1e6:.1f} MB"
    )
    typer.echo(
        f"{collection['model']}, {collection['dimensions']} dimensions,"
        f" {collection['precision']} precision"
    )
    typer.echo(
        f"chunks of {chunking['max_tokens']} tokens, {chunking['overlap_tokens']} of them shared,"
        f" cut as {chunking['format']}; {collection['language']}"
    )
    typer.echo(_tell_index(collection["index"]))
    if collection["metadata"]:
        print_json(collection["metadata"])


def _tell_index(index: dict[str, Any]) -> str:
    dense, lexical, fields = index["dense"], index["lexical"], index["fields"]
    told = [f"vectors: {dense['type']}"]
    if dense["m"]:
        told.append(f"m {dense['m']}, ef_construction {dense['ef_construction']}")
    if dense["status"] == "building":
        done = "" if dense["progress"] is None else f", {100 * dense['progress']:.0f} % done"
        told.append(f"being built{done}")
    if lexical["status"] == "building":
        told.append("words are being indexed")
    if fields:
        told.append(f"fields: {', '.join(fields)}")
    return "; ".join(told)
