"""Who embeds the same texts: memoryd in this process, each peer in one of its own."""

import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import peers
from benchmarks.child import Child, run_child
from benchmarks.llama_server import run_llama_server
from benchmarks.peer import Vectors, read_vectors
from memoryd.embeddings.model import EmbeddingModel


class Contender(Protocol):
    """Turn texts into vectors, and say how long it took."""

    name: str

    async def prepare(self, texts: list[str]) -> str:
        """Warm up with these texts and choose settings for them; return the settings in words."""
        ...

    async def embed(self, texts: list[str]) -> tuple[float, Vectors]:
        """Return seconds, and vectors of shape (texts, dimensions), of any length."""
        ...


@dataclass(frozen=True)
class Setup:
    """Hold what contenders are made from."""

    model: EmbeddingModel
    """The engine's, in this process."""
    gguf: Path
    llama_server: str | None
    """The path of that program."""


class Memoryd:
    """The engine in this process."""

    name = "memoryd"

    def __init__(self, model: EmbeddingModel) -> None:
        """Take a loaded model."""
        self._model = model

    async def prepare(self, texts: list[str]) -> str:
        """Embed once."""
        await self._model.embed(texts)
        return ""

    async def embed(self, texts: list[str]) -> tuple[float, Vectors]:
        """Embed all texts by one call."""
        started = time.perf_counter()
        embedded = await self._model.embed(texts)
        return time.perf_counter() - started, embedded.vectors


class Peer:
    """A child process that runs one of the peer modules."""

    def __init__(self, name: str, child: Child) -> None:
        """Take a running process."""
        self.name = name
        self._child = child

    async def prepare(self, texts: list[str]) -> str:
        """Let it choose its batch size."""
        return str(self._child.call("prepare", texts=texts))

    async def embed(self, texts: list[str]) -> tuple[float, Vectors]:
        """Return the time that it took by its own clock, and what it answered."""
        answer = self._child.call("embed", texts=texts)
        return answer["seconds"], read_vectors(answer)


Open = Callable[[Setup], AbstractAsyncContextManager[Contender]]


@asynccontextmanager
async def _open_memoryd(setup: Setup) -> AsyncIterator[Contender]:
    yield Memoryd(setup.model)


@asynccontextmanager
async def _open_create_embedding(setup: Setup) -> AsyncIterator[Contender]:
    with run_child("benchmarks.plain", str(setup.gguf)) as child:
        yield Peer("create_embedding", child)


def _open_torch(dtype: str, name: str) -> Open:
    @asynccontextmanager
    async def open_(setup: Setup) -> AsyncIterator[Contender]:
        peers.ENGINES.check_installed()
        folder = await peers.model_folder(setup.model.spec.name)
        with run_child(
            "benchmarks.torch_peer", str(folder), dtype, python=peers.ENGINES.python
        ) as child:
            yield Peer(name, child)

    return open_


def _open_onnx(number: int, name: str) -> Open:
    @asynccontextmanager
    async def open_(setup: Setup) -> AsyncIterator[Contender]:
        peers.ENGINES.check_installed()
        folder = await peers.model_folder(setup.model.spec.name)
        file = peers.onnx_files(folder)[number]
        arguments = (str(folder), str(file))
        with run_child("benchmarks.onnx_peer", *arguments, python=peers.ENGINES.python) as child:
            yield Peer(name, child)

    return open_


@asynccontextmanager
async def _open_llama_server(setup: Setup) -> AsyncIterator[Contender]:
    if not setup.llama_server:
        raise peers.MissingError("--llama-server or MEMORYD_BENCH_LLAMA_SERVER gives its path")
    if not shutil.which(setup.llama_server):
        raise peers.MissingError(f"{setup.llama_server} is no program")
    with run_llama_server(setup.llama_server, setup.gguf) as server:
        yield server


MEMORYD = "memoryd"
REFERENCE = "torch-fp32"
CONTENDERS: dict[str, Open] = {
    MEMORYD: _open_memoryd,
    "create_embedding": _open_create_embedding,
    REFERENCE: _open_torch("float32", REFERENCE),
    "torch-bf16": _open_torch("bfloat16", "torch-bf16"),
    "onnx-fp32": _open_onnx(0, "onnx-fp32"),
    "onnx-int8": _open_onnx(1, "onnx-int8"),
    "llama-server": _open_llama_server,
}
