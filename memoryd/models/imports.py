"""Models from anywhere, brought in under a name of their own; and models removed again."""

import asyncio
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from yarl import URL

from memoryd.errors import ConflictError, ModelFileError, ModelNotFoundError
from memoryd.models.acquisition import (
    Check,
    acquire,
    convert_folder,
    land_gguf,
    list_repository,
    making_folder,
)
from memoryd.models.catalog import list_entries
from memoryd.models.conversion import describe_folder
from memoryd.models.downloads import Download, Progress, download, tell_nobody
from memoryd.models.gallery import (
    GalleryEntry,
    SourceFile,
    canonical,
    file_stem,
    gallery_by_name,
    load_gallery,
)
from memoryd.models.gguf_magic import check_gguf
from memoryd.models.layout import (
    converted_path,
    gguf_path,
    lock_path,
    making_path,
    record_path,
)
from memoryd.models.locks import locked, locked_at_once
from memoryd.models.model_files import write_model_file
from memoryd.models.ollama_store import find_ollama_blob
from memoryd.models.records import Record, read_record, write_record
from memoryd.models.repositories import choose_gguf, conversion_files, no_model_in
from memoryd.models.sources import (
    GallerySource,
    HubSource,
    LocalSource,
    OllamaSource,
    Source,
    UrlSource,
    check_name,
    default_name,
    parse_source,
)
from memoryd.models.store import ModelFile, ensure_model, find_model, unusable
from memoryd.models.transport import Patience, open_session
from memoryd.models.weights import WEIGHT_TYPES, WeightType


@dataclass(frozen=True)
class _Order:
    """Hold what an import was asked for, but for the source."""

    models_dir: Path
    weight_type: WeightType
    check: Check | None
    progress: Progress


@dataclass(frozen=True)
class _Brought:
    """Hold a model that was brought in: what is known of it, and what was fetched and made."""

    entry: GalleryEntry
    record: Record


async def import_model(
    source: str,
    models_dir: Path,
    *,
    name: str | None = None,
    weight_type: WeightType,
    check: Check | None = None,
    progress: Progress | None = None,
) -> GalleryEntry:
    """Bring a model from any source under a name, and write the YAML that describes it.

    What memoryd doesn't download or convert is used in place. `check` is awaited on each GGUF
    before the model gets its name, and raises ModelFileError for a broken one. Without a name, the
    model gets one of its source. Raises InvalidInputError for a source or name that can't be one,
    ConflictError for a name that is taken, ModelNotFoundError, and ModelFileError.
    """
    parsed = parse_source(source)
    order = _Order(models_dir, weight_type, check, progress or tell_nobody)
    if isinstance(parsed, GallerySource) and name is None:
        return (await _ensure(parsed, order)).entry
    chosen = check_name(name or default_name(parsed))
    # The path is where the YAML comes to be; the names of the other files depend on it.
    entry = GalleryEntry(name=chosen, origin=models_dir / f"{file_stem(chosen)}.yaml")
    try:
        async with locked(lock_path(entry, models_dir)):
            _refuse_taken(chosen, parsed, models_dir)
            brought = await _bring(parsed, entry, order)
            return _describe(brought, models_dir)
    except OSError as error:
        raise unusable(models_dir, error) from error


def copy_model(file: ModelFile, name: str, models_dir: Path) -> GalleryEntry:
    """Give a model that is here a second name under which it is a model of its own.

    A file in the models directory gets a second name there (a hard link): it takes no room, and
    removing either model leaves the other. One that is used in place is so again. Where the name
    already means that file, nothing is done. Raises InvalidInputError for a name that can't be one,
    ConflictError where another model that is here, or that a user described, has it, and
    ModelFileError.
    """
    chosen = check_name(name)
    entry = GalleryEntry(name=chosen, origin=models_dir / f"{file_stem(chosen)}.yaml")
    try:
        with locked_at_once(lock_path(entry, models_dir), f"model {chosen}"):
            taken = _lookup(chosen, models_dir)
            if taken and _is_file_of(taken, file, models_dir):
                return taken
            _refuse_used(chosen, taken, models_dir)
            return _describe(_copy(file, entry, models_dir), models_dir)
    except OSError as error:
        raise unusable(models_dir, error) from error


def _is_file_of(entry: GalleryEntry, file: ModelFile, models_dir: Path) -> bool:
    found = None if entry.fault else _find_file(entry, models_dir)
    return found is not None and found.samefile(file.path)


def _find_file(entry: GalleryEntry, models_dir: Path) -> Path | None:
    found = find_model(entry.name, models_dir, WEIGHT_TYPES[0])
    return found.path if found else None


def _refuse_used(name: str, taken: GalleryEntry | None, models_dir: Path) -> None:
    """Raise ConflictError unless a name is free, or only the gallery has it for what isn't here."""
    if taken and (taken.origin or _find_file(taken, models_dir)):
        raise ConflictError(
            f"the name {name!r} is taken by the model {taken.name!r}: delete that first, or give "
            "another name",
            "name",
        )


def _copy(file: ModelFile, entry: GalleryEntry, models_dir: Path) -> _Brought:
    known = _with_facts(entry, file.entry)
    if file.entry.origin is None:  # The file says these, so nobody has to.
        known = replace(known, pooling=None, context_tokens=None)
    if file.path.parent != models_dir or file.path.is_symlink():
        return _Brought(replace(known, path=file.path), Record(str(file.path)))
    target = gguf_path(entry, models_dir)
    target.unlink(missing_ok=True)  # What is left of one whose description was removed by hand.
    target.hardlink_to(file.path)
    made = (target.name,)
    return _Brought(replace(known, path=target), Record(f"a copy of {file.entry.name}", made=made))


def remove_model(name: str, models_dir: Path) -> list[Path]:
    """Delete the files that memoryd fetched, made or wrote for a model, and return them.

    A file used in place stays, and so does what the gallery knows. Raises ModelNotFoundError,
    ConflictError for a model that is being fetched, and ModelFileError where there is nothing of
    memoryd's.
    """
    entry = _lookup(name, models_dir)
    if entry is None:
        raise ModelNotFoundError(name)
    try:
        with locked_at_once(lock_path(entry, models_dir), f"model {entry.name}"):
            removed = [path for path in _own_files(entry, models_dir) if _is_removed(path)]
            making = making_path(entry, models_dir)
            removed += [making] if _is_folder_removed(making) else []
    except OSError as error:
        raise unusable(models_dir, error) from error
    if not removed:
        raise ModelFileError(_nothing_to_remove(entry, models_dir))
    return removed


def _refuse_taken(name: str, source: Source, models_dir: Path) -> None:
    taken = _lookup(name, models_dir)
    if taken is None:
        return
    if isinstance(source, LocalSource) and taken.path == taken.origin == source.path.absolute():
        return  # A file that lies in the models directory, and has its own name there.
    where = f" in {taken.origin}" if taken.origin else " in the gallery"
    raise ConflictError(
        f"the name {name!r} is taken by the model {taken.name!r}{where}: give another one, or "
        "remove that model first",
        "name",
    )


def _lookup(name: str, models_dir: Path) -> GalleryEntry | None:
    """Return the model of a name, also one that can't be used."""
    wanted = canonical(name)
    for entry in list_entries(models_dir):
        if wanted in map(canonical, (entry.name, *entry.aliases)):
            return entry
    return None


async def _bring(source: Source, entry: GalleryEntry, order: _Order) -> _Brought:
    match source:
        case GallerySource():
            file = await _ensure(source, order)
            return await _use_in_place(file.path, _with_facts(entry, file.entry), order)
        case HubSource():
            return await _bring_from_hub(source, entry, order)
        case UrlSource():
            return await _bring_from_url(source, entry, order)
        case OllamaSource(name):
            blob = await asyncio.to_thread(find_ollama_blob, name)
            facts = gallery_by_name().get(canonical(name))
            return await _use_in_place(blob, _with_facts(entry, facts), order)
        case LocalSource(path):
            return await _bring_local(path.absolute(), entry, order)


async def _ensure(source: GallerySource, order: _Order) -> ModelFile:
    return await ensure_model(
        source.name, order.models_dir, order.weight_type, order.progress, order.check
    )


async def _bring_from_hub(source: HubSource, entry: GalleryEntry, order: _Order) -> _Brought:
    facts = next((known for known in load_gallery() if _is_of(known, source.repository)), None)
    entry = replace(_with_facts(entry, facts), repository=source.repository)
    listed = await list_repository(entry)
    chosen = choose_gguf(listed, source.wanted, order.weight_type)
    files = [chosen] if chosen else conversion_files(listed)
    if not files:
        raise no_model_in(source.repository)
    entry = replace(
        entry,
        gguf=chosen.path if chosen else None,
        files=tuple(SourceFile(file.path, file.size_bytes, file.sha256) for file in files),
    )
    acquired = await acquire(
        entry, order.models_dir, order.weight_type, order.progress, order.check
    )
    fetched = acquired.fetched
    made = (acquired.path.name,)
    record = Record(f"hf:{source.repository}", fetched.commit, fetched.files, made)
    return _Brought(replace(acquired.entry, files=fetched.files), record)


async def _bring_from_url(source: UrlSource, entry: GalleryEntry, order: _Order) -> _Brought:
    target, patience = gguf_path(entry, order.models_dir), Patience()
    wanted = Download(source.url, f"{default_name(source)}.gguf")
    with making_folder(entry, order.models_dir) as folder:
        async with open_session(patience) as session:
            come = folder / target.name
            downloaded = await download(session, wanted, come, order.progress, patience)
        await land_gguf(come, target, order.check)
    # Without the query, in which signatures and tokens stand.
    address = str(URL(source.url).with_query(None))
    file = SourceFile(wanted.path, downloaded.size_bytes, downloaded.sha256)
    record = Record(address, downloaded.commit, (file,), (target.name,))
    return _Brought(replace(entry, path=target, facts=address), record)


async def _bring_local(path: Path, entry: GalleryEntry, order: _Order) -> _Brought:
    if not await asyncio.to_thread(path.is_dir):
        return await _use_in_place(path, entry, order)
    target = converted_path(entry, order.models_dir, order.weight_type)
    described = replace(
        await asyncio.to_thread(describe_folder, path, entry.name), origin=entry.origin
    )
    with making_folder(entry, order.models_dir) as making:
        order.progress(f"converting {entry.name}", 0, None)
        await asyncio.to_thread(convert_folder, described, path, making, target, order.weight_type)
    return _Brought(replace(described, path=target), Record(str(path), made=(target.name,)))


async def _use_in_place(path: Path, entry: GalleryEntry, order: _Order) -> _Brought:
    await asyncio.to_thread(check_gguf, path)
    if order.check:
        await order.check(path)
    return _Brought(replace(entry, path=path), Record(str(path)))


def _is_of(entry: GalleryEntry, repository: str) -> bool:
    """Return whether the gallery's entry has the facts of a repository."""
    names = {name.lower() for name in (entry.repository or "", *entry.aliases)}
    return repository.lower() in names


def _with_facts(entry: GalleryEntry, facts: GalleryEntry | None) -> GalleryEntry:
    """Return an entry with what is known of the model, but for where its files are."""
    if facts is None:
        return entry
    return replace(
        facts,
        name=entry.name,
        origin=entry.origin,
        aliases=(),
        repository=None,
        revision="main",
        gguf=None,
        files=(),
        package=None,
        path=None,
        stored_as="",
        verified=False,
    )


def _describe(brought: _Brought, models_dir: Path) -> GalleryEntry:
    """Write down what was brought in; where that fails, nothing of it stays."""
    entry, record = brought.entry, brought.record
    try:
        origin = write_model_file(entry, models_dir)
        write_record(replace(record, made=(*record.made, origin.name)), entry, models_dir)
    except BaseException:
        for name in record.made:
            (models_dir / name).unlink(missing_ok=True)
        raise
    return replace(entry, origin=origin)


def _own_files(entry: GalleryEntry, models_dir: Path) -> list[Path]:
    """Return where files that memoryd makes for a model would be."""
    if entry.stored_as:
        return []  # They are those of the gallery's model, under another name.
    record = read_record(entry, models_dir)
    named = [converted_path(entry, models_dir, weight_type) for weight_type in WEIGHT_TYPES]
    listed = [models_dir / name for name in record.made] if record else []
    own = [gguf_path(entry, models_dir), *named, *listed, record_path(entry, models_dir)]
    return list(dict.fromkeys(own))


def _is_removed(path: Path) -> bool:
    """Remove a file; return whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _is_folder_removed(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True


def _nothing_to_remove(entry: GalleryEntry, models_dir: Path) -> str:
    if entry.origin is None:
        return f"nothing of the model {entry.name} is in {models_dir}"
    used = f" and uses {entry.path}" if entry.path and entry.path != entry.origin else ""
    return (
        f"memoryd has made no file of the model {entry.name}. It stands in {entry.origin}{used}, "
        "which you can remove yourself"
    )
