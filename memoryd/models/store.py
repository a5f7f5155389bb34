"""The models directory: a model's GGUF, found there or brought there."""

from dataclasses import dataclass
from pathlib import Path

from memoryd.errors import ModelFileError
from memoryd.models.acquisition import Acquired, Check, acquire
from memoryd.models.catalog import find_entry
from memoryd.models.downloads import Progress
from memoryd.models.gallery import GalleryEntry
from memoryd.models.gguf_magic import check_gguf
from memoryd.models.layout import converted_path, gguf_path, lock_path
from memoryd.models.locks import locked
from memoryd.models.records import Record, write_record
from memoryd.models.single_flight import SingleFlight
from memoryd.models.weights import WEIGHT_TYPES, WeightType


@dataclass(frozen=True)
class ModelFile:
    """Hold where a model's GGUF is and the type of its matrices, None where memoryd didn't choose.

    A GGUF that was fetched as it is, or that is used in place, has the types of whoever made it.
    """

    entry: GalleryEntry
    path: Path
    weight_type: WeightType | None


_ensuring: SingleFlight[ModelFile] = SingleFlight()


def find_model(name: str, models_dir: Path, weight_type: WeightType) -> ModelFile | None:
    """Return the model's file if it is there: the one of `weight_type` first, else any.

    Raises ModelNotFoundError for a name that isn't known, and ModelFileError for a directory that
    can't be read.
    """
    return find_file(find_entry(name, models_dir), models_dir, weight_type)


def find_file(entry: GalleryEntry, models_dir: Path, weight_type: WeightType) -> ModelFile | None:
    """Return the file of the model that `entry` describes, as `find_model` does.

    Raises ModelFileError for a directory that can't be read.
    """
    try:
        files = _possible_files(entry, models_dir, weight_type)
        return next((file for file in files if file.path.is_file()), None)
    except OSError as error:
        raise unusable(models_dir, error) from error


async def ensure_model(
    name: str,
    models_dir: Path,
    weight_type: WeightType,
    progress: Progress | None = None,
    check: Check | None = None,
) -> ModelFile:
    """Return the model's file; where there is none, fetch the model, and convert it if need be.

    Of all who need it, in this process and in others, one makes it and the others wait. Converted
    matrices are kept as `weight_type`. `check` is awaited on a GGUF that was fetched, before it
    gets its name, and raises ModelFileError for a broken one. Raises ModelNotFoundError for a name
    that isn't known, else ModelFileError saying what mends it.
    """
    entry = find_entry(name, models_dir)
    if found := find_model(name, models_dir, weight_type):
        return found
    if entry.path is not None:
        check_gguf(entry.path)

    async def start(tell: Progress) -> ModelFile:
        return await _ensure(entry, models_dir, weight_type, tell, check)

    return await _ensuring.run(lock_path(entry, models_dir), start, progress)


async def _ensure(
    entry: GalleryEntry,
    models_dir: Path,
    weight_type: WeightType,
    progress: Progress,
    check: Check | None,
) -> ModelFile:
    try:
        async with locked(lock_path(entry, models_dir)):
            if found := find_model(entry.name, models_dir, weight_type):
                return found
            acquired = await acquire(entry, models_dir, weight_type, progress, check)
            _record(acquired, models_dir)
    except OSError as error:
        raise unusable(models_dir, error) from error
    return ModelFile(entry, acquired.path, acquired.weight_type)


def _record(acquired: Acquired, models_dir: Path) -> None:
    """Keep what the hub said of the files, unless the gallery says it."""
    entry, fetched = acquired.entry, acquired.fetched
    if fetched.files != entry.files:
        source = f"hf:{entry.repository}"
        record = Record(source, fetched.commit, fetched.files, (acquired.path.name,))
        write_record(record, entry, models_dir)


def _possible_files(entry: GalleryEntry, models_dir: Path, first: WeightType) -> list[ModelFile]:
    if entry.path is not None:
        return [ModelFile(entry, entry.path, None)]
    fetched = ModelFile(entry, gguf_path(entry, models_dir), None)
    converted = [
        ModelFile(entry, converted_path(entry, models_dir, weight_type), weight_type)
        for weight_type in sorted(WEIGHT_TYPES, key=lambda weight_type: weight_type != first)
    ]
    if entry.gguf is not None:
        return [fetched]
    return converted if entry.files else [*converted, fetched]


def unusable(models_dir: Path, error: OSError) -> ModelFileError:
    """Return what is raised where the models directory can't be read or written."""
    return ModelFileError(
        f"cannot use the models directory {models_dir}: {error.strerror}. Make it writable, free "
        "some space there, or name another one with --models-dir or MEMORYD_MODELS_DIR"
    )
