"""Long work, shown while it goes on: as a bar on a terminal, else as lines."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Tell = Callable[[str, int, int | None], None]
"""Takes a step, how many bytes of it are done, and of how many (None: unknown)."""


@contextmanager
def shown_progress() -> Iterator[Tell]:
    """Show on stderr what is told during the block."""
    if not sys.stderr.isatty():
        yield _LineProgress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Bytes(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("looking", total=None)
        current = ""

        def tell(step: str, done_bytes: int, total_bytes: int | None) -> None:
            nonlocal current
            if step != current:
                current = step
                progress.reset(task, description=step, total=total_bytes)
            progress.update(task, completed=done_bytes, total=total_bytes)

        yield tell


class _Bytes(ProgressColumn):
    """Show how much has come, and how fast, of what is counted in bytes."""

    def render(self, task: Task) -> Text:
        """Return the text, such as `1.2 MB of 90.9 MB, 3.4 MB/s`."""
        if not task.completed:
            return Text("")
        total = f" of {decimal(int(task.total))}" if task.total else ""
        speed = f", {decimal(int(task.speed))}/s" if task.speed else ""
        return Text(f"{decimal(int(task.completed))}{total}{speed}")


class _LineProgress:
    """Print a line for each step, and for each tenth of it that is done."""

    def __init__(self) -> None:
        self._told: tuple[str, int] = ("", 0)

    def __call__(self, step: str, done_bytes: int, total_bytes: int | None) -> None:
        tenths = 10 * done_bytes // total_bytes if total_bytes else 0
        if (step, tenths) == self._told:
            return
        self._told = (step, tenths)
        share = f": {tenths}0 % of {decimal(total_bytes)}" if tenths and total_bytes else ""
        typer.echo(f"{step}{share}", err=True)
