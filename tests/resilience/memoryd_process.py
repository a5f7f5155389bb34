"""`memoryd serve` as a process of its own, so that it can be killed."""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from memoryd.postgres.server import app_url

START_TIMEOUT_S = 60


@dataclass(frozen=True)
class MemorydProcess:
    """Hold a running memoryd and where it listens."""

    process: asyncio.subprocess.Process
    url: str
    data_dir: Path
    started_in_s: float
    log: IO[bytes]

    @property
    def said(self) -> str:
        """What it has written to its log."""
        return os.pread(self.log.fileno(), 1 << 24, 0).decode(errors="replace")

    @property
    def dsn(self) -> str:
        """The address of its database in memoryd's own role."""
        return app_url(self.data_dir).replace("//app@", "//memoryd@")

    @property
    def postmaster_pid(self) -> int:
        """The process id of its Postgres."""
        return int((self.data_dir / "postgres" / "postmaster.pid").read_text().split("\n")[0])


def command(data_dir: Path, models_dir: Path, *options: str) -> list[str]:
    """Return the command that serves `data_dir` on a free port, and on those of `options`."""
    places = ["--data-dir", str(data_dir), "--models-dir", str(models_dir)]
    return [sys.executable, "-m", "memoryd", "serve", *options, "--port", "0", *places]


def environment() -> dict[str, str]:
    """Return this environment without anything that changes memoryd's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MEMORYD_")}


@asynccontextmanager
async def serving(data_dir: Path, models_dir: Path, *options: str) -> AsyncIterator[MemorydProcess]:
    """Run memoryd with `options` until the block ends, if it still runs then."""
    with tempfile.TemporaryFile() as log:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command(data_dir, models_dir, *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                url = await _announced(process)
            if url is None:
                log.seek(0)
                raise AssertionError(log.read().decode(errors="replace"))
            yield MemorydProcess(process, url, data_dir, time.monotonic() - started, log)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _announced(process: asyncio.subprocess.Process) -> str | None:
    assert process.stdout is not None
    async for line in process.stdout:
        if found := re.search(rb"listens on (http://\S+)", line):
            return found[1].decode()
    return None
