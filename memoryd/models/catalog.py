"""Model names as clients write them → models: of the models directory, of the gallery."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.models.gallery import (
    GalleryEntry,
    canonical,
    file_stem,
    is_name,
    load_gallery,
    read_gallery,
)
from memoryd.models.model_files import is_model_file, missing_file, read_model_files
from memoryd.models.weights import WEIGHT_TYPES

GALLERY_FILE = "gallery.toml"

# Clients that were written for OpenAI ask for these; no entry has them as names.
OPENAI_NAMES = ("text-embedding-ada-002", "text-embedding-3-small", "text-embedding-3-large")

# As long as a file's time is that young, a further change may leave it as it is: some file systems
# count in steps of two seconds.
SETTLE_NS = 2_000_000_000
MAX_DIRECTORIES = 16

_Stamp: TypeAlias = tuple[int, int, int, int] | None


@dataclass(frozen=True)
class _Catalog:
    """Hold what a models directory had when the stamps of `watched` were `stamps`."""

    watched: tuple[str, ...]
    stamps: tuple[_Stamp, ...]
    is_settled: bool
    entries: tuple[GalleryEntry, ...]
    by_name: dict[str, GalleryEntry]


_catalogs: dict[Path, _Catalog] = {}


def find_entry(name: str, models_dir: Path) -> GalleryEntry:
    """Return the model that `name` means: its own name or an alias, in any case.

    Files of `models_dir` come before its gallery file, and that before memoryd's own gallery; what
    has changed there is seen at once. `:latest` and surrounding spaces don't count. Raises
    ModelNotFoundError, and ModelFileError for a model that is described wrongly or whose file is
    missing.
    """
    entry = _catalog(models_dir).by_name.get(canonical(name))
    if entry is None:
        raise ModelNotFoundError(name)
    if fault := entry.fault or missing_file(entry):
        raise ModelFileError(fault)
    return entry


def list_entries(models_dir: Path) -> list[GalleryEntry]:
    """Return all models, in the order in which names are looked up.

    One that can't be used has a `fault`. Raises ModelFileError where the directory can't be read.
    """
    return [_with_fault(entry) for entry in _catalog(models_dir).entries]


def list_reachable(models_dir: Path) -> list[tuple[GalleryEntry, tuple[str, ...]]]:
    """Return the models that can be asked for, each with the names that mean it, its own first.

    Where an earlier model has a name, it means that one. Raises what `list_entries` raises.
    """
    catalog = _catalog(models_dir)
    named = [(entry, _names_of(entry, catalog)) for entry in catalog.entries]
    return [(_with_fault(entry), names) for entry, names in named if entry.name in names]


def _names_of(entry: GalleryEntry, catalog: _Catalog) -> tuple[str, ...]:
    names = (entry.name, *entry.aliases)
    return tuple(name for name in names if catalog.by_name[canonical(name)] is entry)


def _with_fault(entry: GalleryEntry) -> GalleryEntry:
    fault = None if entry.fault else missing_file(entry)
    return replace(entry, fault=fault) if fault else entry


def _catalog(models_dir: Path) -> _Catalog:
    catalog = _catalogs.get(models_dir)
    if catalog and catalog.is_settled and catalog.stamps == _stamps(catalog.watched):
        return catalog
    try:
        catalog = _read(models_dir)
    except OSError as error:
        raise ModelFileError(
            f"cannot read the models directory {models_dir}: {error.strerror}. Make it readable, "
            "or name another one with --models-dir or MEMORYD_MODELS_DIR"
        ) from error
    if len(_catalogs) >= MAX_DIRECTORIES:
        _catalogs.clear()
    _catalogs[models_dir] = catalog
    return catalog


def _stamps(paths: Iterable[str]) -> tuple[_Stamp, ...]:
    return tuple(map(_stamp, paths))


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116 - once per file and request
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _read(models_dir: Path) -> _Catalog:
    # Stamps first: what changes while the files are read is then seen at the next call.
    directory_stamp = _stamp(str(models_dir))
    names = _names(models_dir)
    described = [name for name in names if is_model_file(name) or name == GALLERY_FILE]
    watched = (str(models_dir), *(str(models_dir / name) for name in described))
    stamps = (directory_stamp, *_stamps(watched[1:]))
    entries = _entries(models_dir, names)
    newest_ns = max((stamp[0] for stamp in stamps if stamp), default=0)
    is_settled = time.time_ns() - newest_ns > SETTLE_NS
    return _Catalog(watched, stamps, is_settled, entries, _by_name(entries))


def _names(models_dir: Path) -> list[str]:
    try:
        return sorted(os.listdir(models_dir))  # noqa: PTH208 - names are all that is needed
    except (FileNotFoundError, NotADirectoryError):
        return []


def _entries(models_dir: Path, names: list[str]) -> tuple[GalleryEntry, ...]:
    described = read_model_files(models_dir) if names else []
    listed = read_gallery(models_dir / GALLERY_FILE) if GALLERY_FILE in names else []
    known = [*described, *listed, *load_gallery()]
    plain = _plain_models(models_dir, names, known)
    return tuple(_first_of_each_name([*described, *plain, *listed, *load_gallery()]))


def _plain_models(
    models_dir: Path, names: list[str], known: list[GalleryEntry]
) -> Iterable[GalleryEntry]:
    """Yield the .gguf files that nothing describes and that memoryd didn't put there itself."""
    endings = (".gguf", *(f"-{weight_type}.gguf" for weight_type in WEIGHT_TYPES))
    kept = {f"{entry.stem}{ending}" for entry in known if not entry.path for ending in endings}
    used = {entry.path for entry in known if entry.path}
    for name in names:
        path = models_dir / name
        is_gguf = path.suffix.lower() == ".gguf" and not name.startswith(".")
        if is_gguf and name not in kept and path not in used and is_name(file_stem(name)):
            yield _plain_model(path)


def _plain_model(path: Path) -> GalleryEntry:
    return GalleryEntry(
        name=file_stem(path.stem),
        aliases=(file_stem(path.name),),
        facts="the model's own file",
        path=path,
        origin=path,
    )


def _first_of_each_name(entries: Iterable[GalleryEntry]) -> Iterable[GalleryEntry]:
    """Yield the entries but those whose own name an earlier one has: it stands in their place."""
    seen: set[str] = set()
    for entry in entries:
        if (name := canonical(entry.name)) not in seen:
            seen.add(name)
            yield entry


def _by_name(entries: Iterable[GalleryEntry]) -> dict[str, GalleryEntry]:
    by_name: dict[str, GalleryEntry] = {}
    for entry in entries:
        for name in (entry.name, *entry.aliases):
            by_name.setdefault(canonical(name), entry)
    return by_name
