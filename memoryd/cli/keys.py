"""`memoryd keys …`."""

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

import typer

from memoryd.cli.client import UrlOption, connect
from memoryd.cli.options import with_settings
from memoryd.cli.printing import print_json, print_table
from memoryd.config import Settings
from memoryd.errors import InvalidInputError

_PERIOD = re.compile(r"([0-9]{1,5})([hdw])", re.ASCII)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="API keys of a running memoryd: who may do what. As soon as there is one, every request "
    "needs one; commands send that of MEMORYD_API_KEY.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the server's answer.")]
NameOption = Annotated[str, typer.Option(help="What the key is for, such as a program's name.")]
ScopeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="What it allows: read, write or admin, which is all. It can be given several times. "
        "[default: read]",
        metavar="<str>",
    ),
]
CollectionOption = Annotated[
    list[str] | None,
    typer.Option(
        help="The only collection that it opens. It can be given several times. [default: all]",
        metavar="<str>",
    ),
]
ExpiresOption = Annotated[
    str | None,
    typer.Option(help="When it ends: in 12h, 30d, 8w, or on 2030-01-31. [default: never]"),
]


@app.command()
@with_settings("host", "port", "api_key")
def create(
    settings: Settings,
    name: NameOption,
    scope: ScopeOption = None,
    collection: CollectionOption = None,
    expires: ExpiresOption = None,
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key, and print it: memoryd keeps no copy that could be read.

    The first one must have the scope admin and never expire: it makes the others. The key alone
    goes to the standard output.

    Example: memoryd keys create --name wiki --scope read --scope write --collection wiki
    """
    body = {
        "name": name,
        "scopes": scope or ["read"],
        "collections": collection or None,
        "expires_at": None if expires is None else read_end(expires),
    }
    answer = asyncio.run(_create(settings, url, body))
    if json:
        print_json(answer)
    else:
        _print_made(answer)


def _print_made(answer: dict[str, Any]) -> None:
    what = f"{', '.join(answer['scopes'])} on {_listed(answer['collections'], 'all collections')}"
    typer.echo(f"{answer['id']} {answer['name']!r} allows {what}. Its key:", err=True)
    typer.echo(answer["key"])
    typer.echo("Keep it now: it can't be shown again.", err=True)


def read_end(text: str) -> str:
    """Return the time that a person means, as RFC 3339; a day begins where the person is.

    Raises InvalidInputError for what is neither a period nor a time.
    """
    if period := _PERIOD.fullmatch(text):
        end = datetime.now(UTC) + int(period[1]) * _UNITS[period[2]]
    else:
        try:
            end = datetime.fromisoformat(text)
        except ValueError as error:
            raise InvalidInputError(
                f"--expires {text}: write it as 12h, 30d, 8w, 2030-01-31 or 2030-01-31T12:00:00Z"
            ) from error
    return (end if end.tzinfo else end.astimezone()).isoformat()


@app.command("list")
@with_settings("host", "port", "api_key")
def list_(settings: Settings, url: UrlOption = None, json: JsonOption = False) -> None:
    """List the keys, not what their holders send.

    Where the output is no terminal, columns stand between tabs.
    """
    keys = asyncio.run(_list(settings, url))
    if json:
        print_json({"keys": keys})
        return
    columns = ("id", "name", "scopes", "collections", "created", "last used", "expires")
    print_table(columns, map(_row, keys))


def _row(key: dict[str, Any]) -> list[str]:
    return [
        key["id"],
        key["name"],
        ", ".join(key["scopes"]),
        _listed(key["collections"], "all"),
        key["created_at"],
        key["last_used_at"] or "-",
        key["expires_at"] or "-",
    ]


def _listed(collections: list[str] | None, for_all: str) -> str:
    return for_all if collections is None else ", ".join(collections) or "none that is left"


@app.command()
@with_settings("host", "port", "api_key")
def revoke(
    settings: Settings,
    ids: Annotated[list[str], typer.Argument(help="Ids of keys, as `memoryd keys list` has them.")],
    url: UrlOption = None,
    json: JsonOption = False,
) -> None:
    """Revoke keys: within seconds no memoryd on this database takes them.

    The last key with the scope admin goes last of all.
    """
    asyncio.run(_revoke(settings, url, ids, print_json if json else _print_revoked))


def _print_revoked(answer: dict[str, Any]) -> None:
    typer.echo(f"{answer['deleted']} is revoked")


async def _create(settings: Settings, url: str | None, body: dict[str, Any]) -> dict[str, Any]:
    async with connect(settings, url) as client:
        answer: dict[str, Any] = await client.request("POST", "/v1/keys", body)
        return answer


async def _list(settings: Settings, url: str | None) -> list[dict[str, Any]]:
    keys: list[dict[str, Any]] = []
    query: str | None = ""
    async with connect(settings, url) as client:
        while query is not None:
            page = await client.request("GET", f"/v1/keys{query}")
            keys += page["keys"]
            query = f"?cursor={page['next_cursor']}" if page["next_cursor"] else None
    return keys


async def _revoke(
    settings: Settings,
    url: str | None,
    ids: list[str],
    tell: Callable[[dict[str, Any]], None],
) -> None:
    async with connect(settings, url) as client:
        for id_ in ids:
            tell(await client.request("DELETE", f"/v1/keys/{quote(id_, safe='')}"))
