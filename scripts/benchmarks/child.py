"""Functions of a child process, called with lines of JSON.

What is compared runs in processes of its own: each has its own libraries and threads, and none
takes a core while it waits for the next line. This module is imported by interpreters that have
neither memoryd nor its dependencies.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

# memoryd sets it for its own process, where it is right; it would make the peers slower.
_NOT_INHERITED = "GOMP_SPINCOUNT"
_END_TIMEOUT_S = 10.0
_TOLD_CHARS = 600

T = TypeVar("T")


class ChildError(Exception):
    """A child process ended, and says why."""


class Child:
    """Be a process that answers calls."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        """Take a process that runs serve_calls, and the file that its stderr goes to."""
        self._process = process
        self._errors = errors

    def call(self, function: str, **arguments: Any) -> Any:
        """Return what the function returned; raise ChildError where the process ended."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        try:
            self._process.stdin.write(json.dumps([function, arguments]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(self._last_words()) from None
        answer = self._process.stdout.readline()
        if not answer:
            raise ChildError(self._last_words())
        return json.loads(answer)

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().strip()[-_TOLD_CHARS:] or "it said nothing"


@contextmanager
def run_child(module: str, *arguments: str, python: str | Path = sys.executable) -> Iterator[Child]:
    """Run `python -m module` until the block ends."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [str(python), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(),
            text=True,
        ) as process,
    ):
        try:
            yield Child(process, errors)
        finally:
            _end(process)


def child_environment() -> dict[str, str]:
    """Return the environment as it was before memoryd was imported, and where the modules are."""
    environment = {name: value for name, value in os.environ.items() if name != _NOT_INHERITED}
    return environment | {"PYTHONPATH": str(Path(__file__).parents[1])}


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()


def serve_calls(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Answer the calls that stdin brings until it ends."""
    # What libraries print goes elsewhere, not between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answers.write(json.dumps(functions[name](**arguments)) + "\n")
        answers.flush()


def number_of_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def batches(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut `rows` into parts of `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
