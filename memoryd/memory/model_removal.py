"""Remove models."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from memoryd.errors import ConflictError, ModelFileError, ModelNotFoundError
from memoryd.memory.models import ModelLoader
from memoryd.memory.state import Memory
from memoryd.models import imports
from memoryd.models.catalog import find_entry
from memoryd.storage.collections import list_models as list_models_of_collections


@dataclass(frozen=True)
class RemovedModel:
    """Say which files of a model were deleted."""

    name: str
    files: list[Path]


def remove_model(loader: ModelLoader, name: str, *, in_use: Collection[str] = ()) -> RemovedModel:
    """Delete the files that memoryd has made for a model; a file used in place stays.

    `in_use` are the models that collections work with. Raises ModelNotFoundError, ConflictError for
    one of those, one that is being fetched or an alias that the user has given, and ModelFileError
    where there is nothing of memoryd's.
    """
    loader.refuse_alias(name)
    own_name = own_name_of(loader, name)
    check_unused(own_name, in_use)
    return RemovedModel(own_name, imports.remove_model(own_name, loader.models_dir))


def own_name_of(loader: ModelLoader, name: str) -> str:
    """Return the one name of a model, or `name` itself of one that is described wrongly.

    Raises ModelNotFoundError.
    """
    try:
        return loader.resolve(name)
    except ModelFileError:
        return name


def check_unused(own_name: str, in_use: Collection[str]) -> None:
    """Raise ConflictError where a model is one that collections work with."""
    if own_name in in_use:
        raise ConflictError(
            f"a collection works with {own_name}: delete the collection first, or store its "
            "documents in one with another model",
            "model",
        )


async def remove_served_model(memory: Memory, name: str) -> RemovedModel:
    """Delete the files of a model that a running memoryd may have loaded, which lets it go.

    Raises ModelNotFoundError where it isn't here, and ConflictError for one that collections work
    with, that is used in place, or whose name is a setting.
    """
    loader = memory.loader
    loader.refuse_alias(name)
    own_name = own_name_of(loader, name)
    check_unused(own_name, await list_models_of_collections(memory.database))
    if own_name == memory.engine.resolve(memory.settings.model):
        raise ConflictError(
            f"{own_name} is the model of new collections: start memoryd with another one first, by "
            "--model or MEMORYD_MODEL",
            "model",
        )
    if not await asyncio.to_thread(_is_described_or_here, loader, own_name):
        raise ModelNotFoundError(name)
    memory.engine.expire(own_name)
    try:
        files = await asyncio.to_thread(imports.remove_model, own_name, loader.models_dir)
    except ModelFileError as error:
        raise ConflictError(error.message, "model") from error
    return RemovedModel(own_name, files)


def _is_described_or_here(loader: ModelLoader, own_name: str) -> bool:
    try:
        entry = find_entry(own_name, loader.models_dir)
        return entry.origin is not None or loader.find_file(entry) is not None
    except ModelFileError:
        return True
