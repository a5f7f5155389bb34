"""`memoryd worker`."""

import asyncio
from contextlib import suppress

import typer

from memoryd.app import work
from memoryd.cli.logs import configure_logging
from memoryd.cli.options import with_settings
from memoryd.config import Settings


@with_settings(
    "data_dir",
    "models_dir",
    "database_url",
    "database_connections",
    "lease_s",
    "alias",
    "memory_budget_bytes",
    "long_input_bytes",
    "auto_pull",
    "keep_alive_s",
    "gpu_layers",
    "measure_models",
    "metrics_port",
    "log_format",
    "log_level",
)
def worker(settings: Settings) -> None:
    """Share the work of a running memoryd: embed and store what it has accepted.

    It listens to nobody. Start it beside `memoryd serve` with the same --data-dir, or on any
    machine that reaches the same --database-url, as often as you like. When it is stopped, others
    go on at once with what it held; when it is killed, after --lease-s.

    Example: memoryd worker --database-url postgresql://memoryd@db.example.com/memoryd
    """
    configure_logging(settings)
    with suppress(KeyboardInterrupt):  # before it listens to signals, or after
        asyncio.run(work(settings, _announce))


def _announce() -> None:
    typer.echo("memoryd works on what waits to be stored (Ctrl-C stops it)")
