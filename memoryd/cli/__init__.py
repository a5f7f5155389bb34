"""The commands that people type."""

import sys
from typing import Annotated

import typer

from memoryd import __version__
from memoryd.cli import database, models
from memoryd.cli.documents import ingest
from memoryd.cli.search import search
from memoryd.cli.serve import serve
from memoryd.cli.status import status
from memoryd.errors import MemorydError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take [default: …] for markup
)


@app.callback(invoke_without_command=True)
def memoryd(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """A memory service for RAG: post documents, find them by meaning."""
    if version:
        typer.echo(f"memoryd {__version__}")


app.command()(serve)
app.command()(ingest)
app.command()(search)
app.command()(status)
app.add_typer(models.app, name="models")
app.add_typer(database.app, name="db")


def main() -> None:
    """Run the command that the arguments name; an error is one line and exit status 1."""
    try:
        app()
    except MemorydError as error:
        typer.echo(f"memoryd: {error.message}", err=True)
        sys.exit(1)
