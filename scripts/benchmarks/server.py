"""A fresh memoryd in a process of its own, over a data directory that is removed afterwards."""

import asyncio
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil

from benchmarks.settings import bench_environment


@dataclass
class Running:
    """Be a server that runs, and a session to it."""

    url: str
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    start_s: float

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer; raise RuntimeError for a status of 400 or more."""
        data = None if body is None else orjson.dumps(body)
        async with self.session.request(method, self.url + path, data=data) as response:
            answer = await response.read()
            if response.status >= 400:
                raise RuntimeError(f"{method} {path}: {response.status} {answer[:500]!r}")
        return orjson.loads(answer)

    def cpu_s(self) -> float:
        """Return the seconds that the server and all below it, Postgres too, have computed."""
        server = psutil.Process(self.process.pid)
        with suppress(psutil.NoSuchProcess):
            return sum(sum(each.cpu_times()[:4]) for each in [*server.children(True), server])
        return self.cpu_s()  # one ended meanwhile: its time is its parent's now

    def memory_mb(self) -> float:
        """Return the resident memory of the server, Postgres aside."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


@contextmanager
def data_directory() -> Iterator[Path]:
    """Yield a directory that the system user of Postgres can reach."""
    directory = Path(tempfile.mkdtemp(prefix="memoryd-bench-"))
    directory.chmod(0o755)
    try:
        yield directory / "data"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def kept_directory(directory: Path | None) -> Iterator[Path]:
    """Yield `directory`, which stays with what it has; None: one that is removed afterwards."""
    if directory is None:
        with data_directory() as fresh:
            yield fresh
    else:
        yield directory


@asynccontextmanager
async def run_server(data_dir: Path, *options: str) -> AsyncIterator[Running]:
    """Run `memoryd serve` with `options` on a free port until the block ends."""
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "memoryd", "serve", "--port", "0", "--log-level", "warning"),
        *("--data-dir", str(data_dir), *options),
        stdout=asyncio.subprocess.PIPE,
        env=bench_environment() | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        url = await _read_url(process)
        start_s = time.perf_counter() - started
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Running(url, process, session, start_s)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.wait()


async def _read_url(process: asyncio.subprocess.Process) -> str:
    line = (await process.stdout.readline()).decode() if process.stdout else ""
    found = re.search(r"http://\S+", line)
    if not found:
        raise RuntimeError(f"memoryd did not start: {line}")
    return found[0]
