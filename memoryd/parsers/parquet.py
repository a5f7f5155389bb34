"""Read Parquet in a process apart, as lines of JSON."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from importlib.util import find_spec
from typing import BinaryIO

from memoryd.errors import InvalidInputError
from memoryd.parsers.confinement import clean_environment

MAGIC = b"PAR1"
"""What such a file begins with."""

_READ_BYTES = 256 << 10
_REASON_BYTES = 2_000
_SAID = 3  # the exit status of a process that has said why


async def read_parquet(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """Yield the rows of a file as NDJSON, in pieces that end anywhere.

    Raises InvalidInputError where it can't be read. Close it, so that the process ends.
    """
    if find_spec("pyarrow") is None:
        raise InvalidInputError("Parquet needs pyarrow: run pip install 'memoryd[parquet]'")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "memoryd.parsers.parquet_worker"),
        stdin=file,
        stdout=PIPE,
        stderr=PIPE,
        env=clean_environment(),
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    try:
        while piece := await process.stdout.read(_READ_BYTES):
            yield piece
        await _check_end(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _check_end(process: Process) -> None:
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    said = (await process.stderr.read(_REASON_BYTES)).decode(errors="replace").strip()
    status = await process.wait()
    if status == _SAID:
        raise InvalidInputError(f"the Parquet file can't be read: {said}")
    if status != 0:
        raise InvalidInputError("the Parquet file can't be read: it is broken, or too large")
