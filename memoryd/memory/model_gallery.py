"""The gallery as something to choose from: what can be installed, and its installation."""

from memoryd.memory.model_changes import import_model, parse_pullable, pull_model
from memoryd.memory.model_jobs import ModelJob
from memoryd.memory.model_listing import ModelSummary, list_models
from memoryd.memory.models import ModelLoader
from memoryd.memory.state import Memory
from memoryd.models.gallery import canonical
from memoryd.models.sources import GallerySource, check_name


async def list_gallery(loader: ModelLoader) -> list[ModelSummary]:
    """Return the models that can be used or fetched.

    Raises ModelFileError where the models directory can't be read.
    """
    return [model for model in await list_models(loader) if not model.fault]


def install(memory: Memory, source: str, name: str | None = None) -> ModelJob:
    """Let a model of the gallery or the hub be fetched and tried, to be called `name` if given.

    What can be told without the network is told at once: raises InvalidInputError for other sources
    and for what can't be a name, ModelNotFoundError for a name that the gallery doesn't have,
    ConflictError for one that is a setting, and OverloadedError.
    """
    loader, parsed = memory.loader, parse_pullable(source)
    if isinstance(parsed, GallerySource):
        loader.resolve(parsed.name)
    if name is None or canonical(name) == canonical(source):
        return memory.model_jobs.start(
            source, lambda tell: pull_model(loader, source, progress=tell)
        )
    checked = check_name(name)
    loader.refuse_alias(checked)
    return memory.model_jobs.start(
        checked, lambda tell: import_model(loader, source, name=checked, progress=tell)
    )
