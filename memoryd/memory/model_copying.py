"""Copies of models that are here: second names, under which they stay."""

import asyncio

from memoryd.errors import ModelNotFoundError
from memoryd.memory.models import ModelLoader
from memoryd.models import imports


async def copy_model(loader: ModelLoader, source: str, name: str) -> None:
    """Give a model that is here a second name, under which it stays where the first is removed.

    Raises ModelNotFoundError for one that isn't here, InvalidInputError for a name that can't be
    one, ConflictError for one that is taken, and ModelFileError.
    """
    loader.refuse_alias(name)
    file = await asyncio.to_thread(loader.find, loader.resolve(source))
    if file is None:
        raise ModelNotFoundError(source)
    await asyncio.to_thread(imports.copy_model, file, name, loader.models_dir)
