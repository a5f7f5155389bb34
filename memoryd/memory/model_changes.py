"""Bring models here."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, get_args

from memoryd.embeddings.library import fastest_weight_type
from memoryd.embeddings.trial import Trial, try_model
from memoryd.errors import ConflictError, InvalidInputError, ModelFileError, ModelNotFoundError
from memoryd.memory.model_listing import ModelSummary, summarize
from memoryd.memory.models import ModelLoader, kind_of
from memoryd.memory.stored_models import read_stored_model
from memoryd.models import cl100k, imports
from memoryd.models.acquisition import Check
from memoryd.models.catalog import find_entry
from memoryd.models.downloads import Progress, tell_nobody
from memoryd.models.gallery import GalleryEntry, Pooling, canonical, gallery_by_name
from memoryd.models.model_files import write_model_file
from memoryd.models.single_flight import SingleFlight
from memoryd.models.sources import (
    GallerySource,
    HubSource,
    LocalSource,
    OllamaSource,
    Source,
    default_name,
    is_safe_over_http,
    parse_source,
)
from memoryd.models.store import ModelFile
from memoryd.models.weights import WEIGHT_TYPES, WeightType

Choice = TypeVar("Choice", bound=str)
_POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


@dataclass(frozen=True, kw_only=True)
class BroughtModel(ModelSummary):
    """Say what a model that was asked for is, and whether it was here before."""

    was_here: bool


@dataclass(frozen=True)
class Described:
    """Be what a user says of a model that is imported; None is left to the model's files."""

    query_prefix: str | None = None
    document_prefix: str | None = None
    instruction: str | None = None
    pooling: Pooling | None = None


_pulling: SingleFlight[BroughtModel] = SingleFlight()


def as_pooling(text: str) -> Pooling:
    """Return `text` if it names a pooling, or raise InvalidInputError."""
    return _one_of(_POOLINGS, text, "pooling")


def as_weight_type(text: str) -> WeightType:
    """Return `text` if it names a type of weights, or raise InvalidInputError."""
    return _one_of(WEIGHT_TYPES, text, "weight_type")


def _one_of(choices: tuple[Choice, ...], text: str, param: str) -> Choice:
    for choice in choices:
        if choice == text:
            return choice
    raise InvalidInputError(f"{param}: {text!r} must be one of {', '.join(choices)}", param)


async def pull_model(
    loader: ModelLoader,
    name: str,
    *,
    weight_type: WeightType | None = None,
    progress: Progress = tell_nobody,
) -> BroughtModel:
    """Fetch a model of the gallery or of the hub, convert it if need be, and try it.

    Of all who ask for it at the same time one does the work, and all are told the progress. Raises
    InvalidInputError for other sources, ModelNotFoundError, ConflictError where it is here with
    weights of another type than `weight_type`, and ModelFileError.
    """

    async def start(tell: Progress) -> BroughtModel:
        return await _pull(loader, name, weight_type, tell)

    key = (loader.models_dir, canonical(name), weight_type)
    return await _pulling.run(key, start, progress)


async def _pull(
    loader: ModelLoader, name: str, weight_type: WeightType | None, progress: Progress
) -> BroughtModel:
    if canonical(name) == cl100k.NAME:
        return await _pull_table(loader, progress)
    source = parse_pullable(name)
    if isinstance(source, HubSource) and not _is_known(loader, default_name(source)):
        return await import_model(loader, name, weight_type=weight_type, progress=progress)
    own_name = loader.resolve(default_name(source))
    found = loader.find(own_name, weight_type)
    if weight_type:
        _check_weight_type(find_entry(own_name, loader.models_dir), found, weight_type)
    file = found or await loader.ensure(own_name, progress, weight_type)
    return await _try(loader, file, progress, was_here=found is not None)


async def _pull_table(loader: ModelLoader, progress: Progress) -> BroughtModel:
    """Fetch the table of cl100k: no model, but what clients of OpenAI's models need, too."""
    was_here = await asyncio.to_thread(cl100k.is_fetched, loader.models_dir)
    return BroughtModel(
        name=cl100k.NAME,
        kind=None,
        is_here=True,
        path=await cl100k.fetch_table(loader.models_dir, progress),
        size_bytes=cl100k.SIZE_BYTES,
        weight_type=None,
        dimensions=None,
        context_tokens=None,
        source=cl100k.ADDRESS,
        origin=None,
        fault="",
        was_here=was_here,
    )


def parse_pullable(text: str) -> Source:
    """Return a source that anybody may have memoryd fetch; raise InvalidInputError for others."""
    source = parse_source(text)
    if not is_safe_over_http(source):
        raise InvalidInputError(
            f"{text} is neither a gallery name nor of the form hf:organization/repository: "
            "addresses, files and Ollama's models are brought in by `memoryd models import`",
            "name",
        )
    return source


def _is_known(loader: ModelLoader, name: str) -> bool:
    try:
        find_entry(name, loader.models_dir)
    except ModelNotFoundError:
        return False
    return True


def _check_weight_type(
    entry: GalleryEntry, found: ModelFile | None, weight_type: WeightType
) -> None:
    if entry.path or entry.gguf:
        raise InvalidInputError(
            f"{entry.name} is a GGUF that is used as it is: weight types can be chosen only for "
            "what memoryd converts",
            "weight_type",
        )
    if found and found.weight_type != weight_type:
        raise ConflictError(
            f"{entry.name} is here with other weights, in {found.path}: run `memoryd models remove "
            f"{entry.name}` first",
            "weight_type",
        )


async def _try(
    loader: ModelLoader, file: ModelFile, progress: Progress, *, was_here: bool
) -> BroughtModel:
    """Run a model for the first time, so that its first use needn't wait for it."""
    if await asyncio.to_thread(loader.find_trial, file) is None:
        progress(f"trying {file.entry.name} on this machine", 0, None)
    await loader.trial(file)
    stored = await asyncio.to_thread(read_stored_model, loader, file.entry)
    summary = await asyncio.to_thread(summarize, loader, file.entry, stored)
    return BroughtModel(**vars(summary), was_here=was_here)


async def import_model(
    loader: ModelLoader,
    source: str,
    *,
    name: str | None = None,
    described: Described | None = None,
    weight_type: WeightType | None = None,
    progress: Progress = tell_nobody,
) -> BroughtModel:
    """Bring a model from any source under a name, try it, and write down what is said of it.

    Raises InvalidInputError for a source, name or description that can't be one, ConflictError for
    a name that is taken or a setting, ModelNotFoundError, and ModelFileError. Where it raises,
    nothing but what was downloaded stays.
    """
    described = described or Described()
    parsed = parse_source(source)
    _check_description(parsed, name, described)
    if isinstance(parsed, GallerySource) and name is None:
        return await pull_model(loader, source, weight_type=weight_type, progress=progress)
    loader.refuse_alias(name or default_name(parsed))
    if weight_type:
        await asyncio.to_thread(_check_choice, parsed)
    trials: list[Trial] = []
    entry = await imports.import_model(
        source,
        loader.models_dir,
        name=name,
        weight_type=weight_type or fastest_weight_type(),
        check=_check(loader, described.pooling or _known_pooling(parsed), trials),
        progress=progress,
    )
    # Before anything else is awaited: the model is never seen without it.
    _write_description(loader, entry, described, trials)
    return await _try_imported(loader, entry.name, progress)


def _check_description(source: Source, name: str | None, described: Described) -> None:
    if described.instruction and "{instruction}" not in (described.query_prefix or ""):
        raise InvalidInputError(
            "an instruction needs a query prefix with {instruction} where it stands", "instruction"
        )
    if isinstance(source, GallerySource) and name is None and described != Described():
        raise InvalidInputError(
            f"{source.name} is described by the gallery: give it a name of its own to describe it "
            "in another way",
            "name",
        )


def _check_choice(source: Source) -> None:
    is_folder = isinstance(source, LocalSource) and source.path.is_dir()
    if not is_folder and not isinstance(source, HubSource):
        raise InvalidInputError(
            "the weights of a GGUF are as they are: a type can be chosen for folders and "
            "repositories that memoryd converts",
            "weight_type",
        )


def _known_pooling(source: Source) -> Pooling | None:
    """Return the pooling that the gallery has for a source, whose file may not say it."""
    match source:
        case HubSource(repository):
            known = gallery_by_name().get(canonical(repository))
        case OllamaSource(name):
            known = gallery_by_name().get(canonical(name))
        case _:
            known = None
    return known.pooling if known else None


def _check(loader: ModelLoader, pooling: Pooling | None, trials: list[Trial]) -> Check:
    """Return what tries a new file and notes in `trials` what it is."""

    async def check(path: Path) -> None:
        trials.append(await try_model(path, pooling=pooling, gpu_layers=loader.gpu_layers))

    return check


def _write_description(
    loader: ModelLoader, entry: GalleryEntry, described: Described, trials: Sequence[Trial]
) -> None:
    """Write the model's YAML again, with what the user says and its file shows."""
    given = {key: value for key, value in vars(described).items() if value is not None}
    kind = kind_of(entry, trials[-1].facts if trials else None)
    changed = replace(entry, kind=kind, **given)
    if changed != entry:
        write_model_file(changed, loader.models_dir)


async def _try_imported(loader: ModelLoader, name: str, progress: Progress) -> BroughtModel:
    """Try a model that has just come; one that can't be run goes again."""
    file = await loader.ensure(name, progress)
    try:
        return await _try(loader, file, progress, was_here=False)
    except ModelFileError:
        await asyncio.to_thread(imports.remove_model, name, loader.models_dir)
        raise
