"""`memoryd models …`."""

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from memoryd.cli.options import with_settings
from memoryd.config import Settings
from memoryd.embeddings.llama import fastest_weight_type
from memoryd.models.store import ensure_model

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Embedding models and their files."
)


@app.callback()
def models() -> None:
    """Embedding models and their files."""


@app.command()
@with_settings("models_dir")
def path(
    settings: Settings,
    name: Annotated[str, typer.Argument(help="A model's name, such as all-minilm.")],
) -> None:
    """Print the file in use for a model, fetching and converting it first where it is missing."""
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("looking", total=None)

        def show(step: str, done_bytes: int, total_bytes: int | None) -> None:
            progress.update(task, description=step, completed=done_bytes, total=total_bytes)

        file = asyncio.run(ensure_model(name, settings.models_dir, fastest_weight_type(), show))
    typer.echo(file.path)
