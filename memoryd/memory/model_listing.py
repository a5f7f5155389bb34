"""Which models there are, and all that is known of one."""

import asyncio
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from memoryd.embeddings.measurements import find_measurement
from memoryd.embeddings.trial import ModelFacts, Trial
from memoryd.errors import ModelFileError
from memoryd.memory.model_tuning import Speed, speeds_of
from memoryd.memory.models import ModelLoader, kind_of, spec_of
from memoryd.models.catalog import find_entry, list_entries
from memoryd.models.gallery import GalleryEntry, Kind, SourceFile, canonical
from memoryd.models.records import Record, read_record
from memoryd.models.store import ModelFile

_MOST_SUGGESTED = 3


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """Say what a list shows of a model; what is None isn't known before it has run here."""

    name: str
    kind: Kind | None
    is_here: bool
    path: Path | None
    size_bytes: int | None
    """On disk."""
    weight_type: str | None
    dimensions: int | None
    context_tokens: int | None
    source: str
    """Where its files come from."""
    origin: Path | None
    """The file of the models directory that describes it; None: memoryd's gallery."""
    fault: str
    """Why it can't be used."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription(ModelSummary):
    """Say all that is known of a model, its own file's word first."""

    description: str
    architecture: str
    license: str
    languages: tuple[str, ...]
    trained_dimensions: tuple[int, ...]
    min_dimensions: int | None
    trained_tokens: int | None
    vocabulary_size: int | None
    pooling: str | None
    query_prefix: str
    document_prefix: str
    instruction: str
    aliases: tuple[str, ...]
    repository: str | None
    revision: str | None
    """The commit that was fetched, else what would be."""
    files: tuple[SourceFile, ...]
    """What is fetched from the repository."""
    memory_bytes: int | None
    """What it takes when loaded."""
    facts: str
    """Where what isn't in its file was read."""
    is_verified: bool
    speeds: tuple[Speed, ...]


async def list_models(loader: ModelLoader) -> list[ModelSummary]:
    """Return all models, those of the models directory first, those that are faulty too.

    Raises ModelFileError where the directory can't be read.
    """
    return await asyncio.to_thread(_list_models, loader)


def _list_models(loader: ModelLoader) -> list[ModelSummary]:
    entries = list_entries(loader.models_dir)
    return [_summarize_entry(loader, entry) for entry in _reachable(entries)]


def _reachable(entries: Iterable[GalleryEntry]) -> Iterator[GalleryEntry]:
    """Yield the models but those whose name is an alias of an earlier one."""
    taken: set[str] = set()
    for entry in entries:
        if canonical(entry.name) not in taken:
            yield entry
        taken.update(map(canonical, (entry.name, *entry.aliases)))


def _summarize_entry(loader: ModelLoader, entry: GalleryEntry) -> ModelSummary:
    if entry.fault:
        return _faulty(entry, entry.fault)
    try:
        file = loader.find(entry.name)
        return summarize(loader, entry, file, find_trial(loader, file) if file else None)
    except ModelFileError as error:
        return _faulty(entry, error.message)


def _faulty(entry: GalleryEntry, fault: str) -> ModelSummary:
    return ModelSummary(
        name=entry.name,
        kind=None,
        is_here=False,
        path=None,
        size_bytes=None,
        weight_type=None,
        dimensions=None,
        context_tokens=None,
        source=str(entry.origin),
        origin=entry.origin,
        fault=fault,
    )


def find_trial(loader: ModelLoader, file: ModelFile) -> Trial | None:
    """Return what was measured of a file on this machine, if it was."""
    return find_measurement(loader.models_dir, loader.fingerprint(file))


def summarize(
    loader: ModelLoader, entry: GalleryEntry, file: ModelFile | None, trial: Trial | None
) -> ModelSummary:
    """Return what a list shows of a model, of its `file` and a `trial` of it where there are any.

    Raises ModelFileError for a record of its files that can't be read.
    """
    facts = trial.facts if trial else None
    return ModelSummary(
        name=entry.name,
        kind=kind_of(entry, facts),
        is_here=file is not None,
        path=file.path if file else None,
        size_bytes=_size_bytes(file) if file else None,
        weight_type=_weight_type(file, facts),
        dimensions=facts.dimensions if facts else entry.dimensions,
        context_tokens=_context_tokens(entry, facts),
        source=_source(entry, read_record(entry, loader.models_dir)),
        origin=entry.origin,
        fault="",
    )


def _size_bytes(file: ModelFile) -> int:
    try:
        return file.path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"{file.path} can't be read: {error.strerror}") from error


def _weight_type(file: ModelFile | None, facts: ModelFacts | None) -> str | None:
    if facts:
        return facts.weight_type
    return file.weight_type if file else None


def _context_tokens(entry: GalleryEntry, facts: ModelFacts | None) -> int | None:
    own = facts.context_tokens if facts else entry.context_tokens
    return spec_of(entry).max_tokens or own


def _source(entry: GalleryEntry, record: Record | None) -> str:
    if record:
        return record.source
    return f"hf:{entry.repository}" if entry.repository else str(entry.path or entry.origin)


async def describe_model(loader: ModelLoader, name: str) -> ModelDescription:
    """Return all that is known of a model; one that is here and was never run is tried first.

    Raises ModelNotFoundError, and ModelFileError for one that can't be used.
    """
    entry = find_entry(loader.resolve(name), loader.models_dir)
    file = await asyncio.to_thread(loader.find, entry.name)
    # Speeds aren't waited for: they are measured when the model is loaded.
    trial = await replace(loader, is_measuring=False).trial(file) if file else None
    return await asyncio.to_thread(_describe, loader, entry, file, trial)


def _describe(
    loader: ModelLoader, entry: GalleryEntry, file: ModelFile | None, trial: Trial | None
) -> ModelDescription:
    record = read_record(entry, loader.models_dir)
    facts = trial.facts if trial else None
    return ModelDescription(
        **vars(summarize(loader, entry, file, trial)),
        description=entry.description,
        architecture=facts.architecture if facts else entry.architecture,
        license=entry.license,
        languages=entry.languages,
        trained_dimensions=entry.trained_dimensions,
        min_dimensions=entry.min_dimensions,
        trained_tokens=entry.trained_tokens,
        vocabulary_size=facts.vocabulary_size if facts else None,
        pooling=spec_of(entry).pooling or (facts.pooling if facts else entry.pooling),
        query_prefix=entry.query_prefix,
        document_prefix=entry.document_prefix,
        instruction=entry.instruction,
        aliases=entry.aliases,
        repository=entry.repository,
        revision=_revision(entry, record),
        files=record.files if record else entry.files,
        memory_bytes=facts.memory_bytes if facts else None,
        facts=" ".join(entry.facts.split()),
        is_verified=entry.verified,
        speeds=speeds_of(trial) if trial else (),
    )


def _revision(entry: GalleryEntry, record: Record | None) -> str | None:
    commit = record.commit if record else None
    return commit or (entry.revision if entry.repository else None)


def suggest_names(loader: ModelLoader, name: str) -> list[str]:
    """Return the names of models that `name` may be meant for, the likeliest first."""
    names = {
        canonical(each): entry.name
        for entry in reversed(list_entries(loader.models_dir))
        for each in (*entry.aliases, entry.name)
    }
    wanted = canonical(name)
    containing = [each for each in names if len(wanted) > 2 and wanted in each]
    near = difflib.get_close_matches(wanted, names, n=2 * _MOST_SUGGESTED)
    suggested = dict.fromkeys(names[each] for each in (*sorted(containing, key=len), *near))
    return list(suggested)[:_MOST_SUGGESTED]
