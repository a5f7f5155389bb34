"""All commands in one."""

from typing import Annotated

import typer

from memoryd import __version__
from memoryd.cli import collections, database, jobs, keys, models, stored_documents
from memoryd.cli.backup import backup, restore
from memoryd.cli.documents import ingest
from memoryd.cli.search import search
from memoryd.cli.serve import serve
from memoryd.cli.status import status
from memoryd.cli.transfer import export, import_
from memoryd.cli.worker import worker

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
app.command()(worker)
app.command()(ingest)
app.command()(search)
app.command()(status)
app.command()(export)
app.command("import")(import_)
app.command()(backup)
app.command()(restore)
app.add_typer(collections.app, name="collections")
app.add_typer(stored_documents.app, name="documents")
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="db")
