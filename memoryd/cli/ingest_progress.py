"""How far an ingest is: documents, chunks, tokens per second and the time that is left."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from memoryd.cli.client import Client
from memoryd.errors import MemorydError

_TOKENS = re.compile(r"^memoryd_tokens_total\{[^}]*\} (\S+)$", re.MULTILINE)
_READ_EVERY_S = 1.0


class IngestProgress:
    """Show the progress of one ingest."""

    def __init__(self, progress: Progress, total: int) -> None:
        """Begin with none of `total` documents done."""
        self._progress = progress
        self._task = progress.add_task("storing", total=total, chunks=0, tokens_per_s=None)
        self._chunks = 0

    def note(self, done: int, chunks: int) -> None:
        """Show that so many documents are done, and `chunks` more chunks."""
        self._chunks += chunks
        self._progress.update(self._task, completed=done, chunks=self._chunks)

    async def read_speed_forever(self, client: Client) -> None:
        """Show how many tokens the server encodes, for whomever, as its metrics tell it."""
        before, at = await _count_tokens(client), time.monotonic()
        while before is not None:
            await asyncio.sleep(_READ_EVERY_S)
            tokens, now = await _count_tokens(client), time.monotonic()
            if tokens is None:
                return
            self._progress.update(self._task, tokens_per_s=(tokens - before) / (now - at))
            before, at = tokens, now


async def _count_tokens(client: Client) -> float | None:
    """Return how many tokens the server has encoded, None where its metrics don't tell."""
    with suppress(MemorydError):
        found = _TOKENS.findall(await client.read_text("/metrics"))
        return sum(map(float, found)) if found else None
    return None


class _Work(ProgressColumn):
    """Show chunks, and tokens per second."""

    def render(self, task: Task) -> Text:
        """Return the text, such as `1,204 chunks, 5,310 tokens/s`."""
        shown = f"{task.fields['chunks']:,} chunks"
        speed = task.fields["tokens_per_s"]
        return Text(shown if speed is None else f"{shown}, {speed:,.0f} tokens/s")


@asynccontextmanager
async def shown_ingest(client: Client, total: int) -> AsyncIterator[IngestProgress]:
    """Show progress on stderr during the block, if that is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Work(),
        TimeRemainingColumn(),
    )
    is_shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), disable=not is_shown) as progress:
        ingest = IngestProgress(progress, total)
        reading = asyncio.create_task(ingest.read_speed_forever(client)) if is_shown else None
        try:
            yield ingest
        finally:
            if reading:
                reading.cancel()
