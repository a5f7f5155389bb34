"""What commands print: JSON, and tables for people or for other programs."""

import sys
from collections.abc import Iterable, Sequence

import orjson
import typer
from rich.console import Console
from rich.table import Table


def print_json(value: object) -> None:
    """Print what JSON can be made of: dataclasses, paths and plain values."""
    typer.echo(orjson.dumps(value, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on a terminal, else lines of columns between tabs."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            typer.echo("\t".join(row))
        return
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(table)
