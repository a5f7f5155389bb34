"""`memoryd` as a shell runs it: what a command prints, and its exit status."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True)
class Said:
    """Hold what a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed, which must be JSON."""
        return orjson.loads(self.out)


async def start(
    *arguments: str | bytes, cwd: Path | None = None, terminal: int | None = None
) -> asyncio.subprocess.Process:
    """Start `memoryd` without the settings of whoever runs the tests.

    `terminal` is the file descriptor of one for all that is read and printed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MEMORYD_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "memoryd", *arguments),
        cwd=cwd,
        env=kept,
        stdin=asyncio.subprocess.DEVNULL if terminal is None else terminal,
        stdout=asyncio.subprocess.PIPE if terminal is None else terminal,
        stderr=asyncio.subprocess.PIPE if terminal is None else terminal,
    )


async def end(process: asyncio.subprocess.Process) -> Said:
    """Wait for a command's end; whatever happens, it shows no traceback."""
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Said(process.returncode, out.decode(), err.decode())


async def run(*arguments: str | bytes, cwd: Path | None = None) -> Said:
    return await end(await start(*arguments, cwd=cwd))
