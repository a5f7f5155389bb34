"""`memoryd serve`."""

import asyncio
from contextlib import suppress

import typer

from memoryd.app import serve as run
from memoryd.cli.logs import configure_logging
from memoryd.cli.options import with_settings
from memoryd.config import Settings


@with_settings()
def serve(settings: Settings) -> None:
    """Start memoryd: the database, the model, and the HTTP server.

    The data stays in --data-dir. Ctrl-C stops it. Settings may also stand in a memoryd.toml, one
    key per option, or in the environment; an option wins over both.
    """
    configure_logging(settings)
    with suppress(KeyboardInterrupt):  # before memoryd listens to signals, or after
        asyncio.run(run(settings, _announce))


def _announce(url: str) -> None:
    typer.echo(f"memoryd listens on {url} (Ctrl-C stops it)")
