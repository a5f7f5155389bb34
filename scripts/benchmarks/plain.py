"""llama_cpp.Llama.create_embedding in a process of its own, as its users have it.

In a process with memoryd its threads would wait as memoryd tells OpenMP to, and be slower.
Reads a JSON list of texts per line, answers the seconds that it took.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp


class Plain:
    """Talk to the process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Take a process that runs this module."""
        self._process = process

    def time_s(self, texts: list[str]) -> float:
        """Return how long create_embedding took for `texts`."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@contextmanager
def run_plain(path: str) -> Iterator[Plain]:
    """Run the process over the GGUF at `path` until the block ends."""
    command = [sys.executable, "-m", "benchmarks.plain", path]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Plain(process)


def _main(path: str) -> None:
    model = llama_cpp.Llama(
        path,
        embedding=True,
        n_ctx=512,
        n_batch=512,
        n_ubatch=512,
        n_threads=2,
        n_threads_batch=2,
        verbose=False,
    )
    for line in sys.stdin:
        texts = json.loads(line)
        started = time.perf_counter()
        model.create_embedding(texts)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
