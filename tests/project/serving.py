"""`memoryd serve` in a process of its own, as a user starts it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SIGN = "memoryd listens on "


@dataclass
class Serving:
    """Hold a server's process and its URL, and how long it took to listen."""

    process: subprocess.Popen[str]
    url: str
    start_s: float

    def stop(self) -> float:
        """Send what Ctrl-C sends; return the seconds until the process is gone."""
        started = time.perf_counter()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)
        return time.perf_counter() - started


@contextmanager
def serve(*command: str | Path, cwd: Path, environment: Mapping[str, str]) -> Iterator[Serving]:
    """Run a command that serves, on a free port, until the block ends."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--port", "0"],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith(_SIGN)), None)
        assert line, f"{command[0]} ended with {process.wait()}"
        yield Serving(process, line.split()[3], time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        process.stdout.close()
