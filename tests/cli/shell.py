"""`memoryd` as a shell runs it: what a command prints, and its exit status."""

import asyncio
import multiprocessing
import os
import pty
import sys
import termios
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from memoryd.cli import main


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


_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["memoryd.cli.commands"])
_LIMIT_S = 60


async def start(
    *arguments: str | bytes, cwd: Path | None = None, terminal: int | None = None
) -> asyncio.subprocess.Process:
    """Start `memoryd` without the settings of whoever runs the tests.

    `terminal` is the file descriptor of one for all that is read and printed.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "memoryd", *arguments),
        cwd=cwd,
        env=_variables(),
        stdin=asyncio.subprocess.DEVNULL if terminal is None else terminal,
        stdout=asyncio.subprocess.PIPE if terminal is None else terminal,
        stderr=asyncio.subprocess.PIPE if terminal is None else terminal,
    )


async def end(process: asyncio.subprocess.Process) -> Said:
    """Wait for a command's end."""
    out, err = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    return _said(process.returncode, out, err)


async def on_a_terminal(*arguments: str, types: str = "") -> Said:
    """Run `memoryd` on a terminal of 120 columns, on which `types` is typed."""
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (40, 120))
        process = await start(*arguments, terminal=theirs)
    finally:
        os.close(theirs)
    os.write(ours, types.encode())
    shown = await asyncio.wait_for(asyncio.to_thread(_read_to_end, ours), _LIMIT_S)
    return _said(await process.wait(), shown, b"")


def _read_to_end(terminal: int) -> bytes:
    """Return all that is printed until the terminal is hung up, and close it."""
    shown = b""
    with open(terminal, "rb", buffering=0) as reader, suppress(OSError):  # EIO: its other end
        while piece := reader.read(1 << 16):
            shown += piece
    return shown


async def run(*arguments: str | bytes, cwd: Path | None = None) -> Said:
    """Run `memoryd` in a process that is forked from one which has imported it: that takes 1 s."""
    return await asyncio.to_thread(_run, ["memoryd", *map(os.fsdecode, arguments)], cwd)


def _run(command: list[str], cwd: Path | None) -> Said:
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        arguments = (command, _variables(), cwd or Path.cwd(), out, err)
        process = _FORKING.Process(target=_be_memoryd, args=arguments, daemon=True)
        process.start()
        process.join(_LIMIT_S)
        return _said(process.exitcode, out.read_bytes(), err.read_bytes())


def _be_memoryd(
    command: list[str], variables: dict[str, str], cwd: Path, out: Path, err: Path
) -> None:
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(cwd)
    sys.argv = command
    main()


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MEMORYD_")}


def _said(status: int | None, out: bytes, err: bytes) -> Said:
    """Return what a command left behind; whatever happens, it shows no traceback."""
    assert status is not None, "it hasn't ended"
    assert b"Traceback" not in err, err.decode()
    return Said(status, out.decode(), err.decode())
