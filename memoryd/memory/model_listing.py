"""Which models there are, and all that is known of one."""

import asyncio
import difflib
from dataclasses import dataclass, replace
from pathlib import Path

from memoryd.embeddings.trial import Trial
from memoryd.errors import ModelFileError
from memoryd.memory.model_tuning import Speed, speeds_of
from memoryd.memory.models import ModelLoader, spec_of
from memoryd.memory.stored_models import StoredModel, read_stored_model
from memoryd.models.catalog import find_entry, list_entries, list_reachable
from memoryd.models.gallery import GalleryEntry, Kind, SourceFile, canonical
from memoryd.models.records import Record, read_record

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
    description: str = ""
    license: str = ""
    languages: tuple[str, ...] = ()
    repository: str | None = None
    """Of the hub."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription(ModelSummary):
    """Say all that is known of a model, its own file's word first."""

    architecture: str
    trained_dimensions: tuple[int, ...]
    min_dimensions: int | None
    trained_tokens: int | None
    vocabulary_size: int | None
    pooling: str | None
    query_prefix: str
    document_prefix: str
    instruction: str
    aliases: tuple[str, ...]
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
    return [_summarize_entry(loader, entry) for entry, _ in list_reachable(loader.models_dir)]


def _summarize_entry(loader: ModelLoader, entry: GalleryEntry) -> ModelSummary:
    if entry.fault:
        return _faulty(entry, entry.fault)
    try:
        return summarize(loader, entry, read_stored_model(loader, entry))
    except ModelFileError as error:
        return _faulty(entry, error.message)


def _faulty(entry: GalleryEntry, fault: str) -> ModelSummary:
    outline = _outline(entry, _source(entry, None))
    return replace(outline, kind=None, dimensions=None, context_tokens=None, fault=fault)


def summarize(loader: ModelLoader, entry: GalleryEntry, stored: StoredModel | None) -> ModelSummary:
    """Return what a list shows of a model, of which `stored` is known where it is here.

    Raises ModelFileError for a record of its files that can't be read.
    """
    outline = _outline(entry, _source(entry, read_record(entry, loader.models_dir)))
    if stored is None:
        return outline
    return replace(
        outline,
        kind=stored.kind,
        is_here=True,
        path=stored.path,
        size_bytes=stored.size_bytes,
        weight_type=stored.weight_type,
        dimensions=stored.dimensions,
        context_tokens=stored.context_tokens,
    )


def _outline(entry: GalleryEntry, source: str) -> ModelSummary:
    """Return what is known of a model without its file."""
    return ModelSummary(
        name=entry.name,
        kind=entry.kind,
        is_here=False,
        path=None,
        size_bytes=None,
        weight_type=None,
        dimensions=entry.dimensions,
        context_tokens=entry.context_tokens,
        source=source,
        origin=entry.origin,
        fault="",
        description=entry.description,
        license=entry.license,
        languages=entry.languages,
        repository=entry.repository,
    )


def _source(entry: GalleryEntry, record: Record | None) -> str:
    if record:
        return record.source
    return f"hf:{entry.repository}" if entry.repository else str(entry.path or entry.origin)


async def describe_model(loader: ModelLoader, own_name: str) -> ModelDescription:
    """Return all that is known of the model whose own name is `own_name`.

    One that is here and was never run is tried first. Raises ModelNotFoundError, and ModelFileError
    for one that can't be used.
    """
    entry = find_entry(own_name, loader.models_dir)
    file = await asyncio.to_thread(loader.find_file, entry)
    # Speeds aren't waited for: they are measured when the model is loaded.
    trial = await replace(loader, is_measuring=False).trial(file) if file else None
    return await asyncio.to_thread(_describe, loader, entry, trial)


def _describe(loader: ModelLoader, entry: GalleryEntry, trial: Trial | None) -> ModelDescription:
    record = read_record(entry, loader.models_dir)
    facts = trial.facts if trial else None
    return ModelDescription(
        **vars(summarize(loader, entry, read_stored_model(loader, entry))),
        architecture=facts.architecture if facts else entry.architecture,
        trained_dimensions=entry.trained_dimensions,
        min_dimensions=entry.min_dimensions,
        trained_tokens=entry.trained_tokens,
        vocabulary_size=facts.vocabulary_size if facts else None,
        pooling=spec_of(entry).pooling or (facts.pooling if facts else entry.pooling),
        query_prefix=entry.query_prefix,
        document_prefix=entry.document_prefix,
        instruction=entry.instruction,
        aliases=entry.aliases,
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
