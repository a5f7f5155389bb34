"""llama-server beside memoryd: with settings that suit many short texts, loaded over HTTP."""

import base64
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.child import Child, batches, child_environment, number_of_cores, run_child
from benchmarks.peer import Vectors

_SLOTS = 32
_SLOT_TOKENS = 512
_START_TIMEOUT_S = 60.0
# Connections and texts per request: as many texts wait as there are slots, or more.
_LOADS = ((4, 32), (32, 4))


class LlamaServer:
    """Embed through the server that `url` leads to."""

    name = "llama-server"

    def __init__(self, url: str, clients: Child) -> None:
        """Take a running server and a process that loads it."""
        self._url = url
        self._clients = clients
        self._load = _LOADS[0]

    async def prepare(self, texts: list[str]) -> str:
        """Choose the faster way to load the server with these texts, and say which."""
        self._embed(texts, self._load)
        self._load = min(_LOADS, key=lambda load: self._embed(texts, load)[0])
        connections, size = self._load
        return f"{connections} connections, {size} texts a request"

    async def embed(self, texts: list[str]) -> tuple[float, Vectors]:
        """Return how many seconds it took, and the vectors."""
        return self._embed(texts, self._load)

    def _embed(self, texts: list[str], load: tuple[int, int]) -> tuple[float, Vectors]:
        connections, size = load
        bodies = embedding_bodies(texts, size)
        answer = self._clients.call(
            "send_all", url=self._url, path="/v1/embeddings", bodies=bodies, clients=connections
        )
        return answer["seconds"], read_answers(answer["answers"])


@contextmanager
def run_llama_server(program: str, model: Path) -> Iterator[LlamaServer]:
    """Run the server over a GGUF on a free port until the block ends."""
    port = _free_port()
    cores = str(number_of_cores())
    command = [program, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--embedding", "--pooling", "mean", "--flash-attn", "on", "--no-webui"]
    command += ["--parallel", str(_SLOTS), "--ctx-size", str(_SLOTS * _SLOT_TOKENS)]
    command += ["--batch-size", "512", "--ubatch-size", "512"]
    command += ["--threads", cores, "--threads-batch", cores, "--log-disable"]
    with subprocess.Popen(
        command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process)
            with run_child("benchmarks.clients") as clients:
                yield LlamaServer(url, clients)
        finally:
            process.terminate()


def embedding_bodies(texts: Sequence[str], size: int) -> list[str]:
    """Return bodies for /v1/embeddings with `size` texts each, base64 as in OpenAI's client."""
    return [
        json.dumps({"model": "all-minilm", "input": part, "encoding_format": "base64"})
        for part in batches(texts, size)
    ]


def read_answers(answers: Sequence[str]) -> Vectors:
    """Return the vectors of the answers to embedding_bodies, in order."""
    rows = [row for answer in answers for row in json.loads(answer)["data"]]
    return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):  # noqa: S310 - http alone
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("llama-server did not start: run its command by hand to see why")
