"""Other names that the user has given to models: checked at the start."""

import logging

from memoryd.errors import ModelFileError, ModelNotFoundError, SetupError
from memoryd.memory.model_listing import suggest_names
from memoryd.memory.models import ModelLoader
from memoryd.models.catalog import find_entry
from memoryd.models.gallery import GalleryEntry, canonical, is_name

logger = logging.getLogger(__name__)


def check_aliases(loader: ModelLoader) -> None:
    """Warn of aliases that hide a model whose vectors have another width.

    Raises SetupError for an alias that can't be a name or leads to no model, and ModelFileError for
    one that leads to a model which can't be used.
    """
    for alias, model in loader.aliases.items():
        _warn_of_width(loader, alias, _entry_behind(loader, alias, model))


def _entry_behind(loader: ModelLoader, alias: str, model: str) -> GalleryEntry:
    given = f"alias {alias}={model}"
    if not is_name(alias):
        raise SetupError(
            f"{given}: {alias!r} can't be a model's name: it is of letters, digits and ._-, with / "
            "between parts and : at a tag"
        )
    if canonical(model) in loader.aliases:
        raise SetupError(f"{given}: {model} is an alias itself: name the model that it stands for")
    try:
        return find_entry(model, loader.models_dir)
    except ModelNotFoundError as error:
        near = suggest_names(loader, model)
        meant = f"; did you mean {' or '.join(near)}?" if near else "."
        raise SetupError(
            f"{given}: there is no model {model!r}{meant} `memoryd models list --all` lists those "
            "that can be had by name, and `memoryd models import` brings in others"
        ) from error


def _warn_of_width(loader: ModelLoader, alias: str, entry: GalleryEntry) -> None:
    try:
        shadowed = find_entry(alias, loader.models_dir)
    except (ModelNotFoundError, ModelFileError):
        return
    expected, given = shadowed.dimensions, _dimensions(loader, entry)
    if expected and given and expected != given:
        logger.warning(
            "%s means %s here: its vectors have %d dimensions, those of the model %s have %d. "
            "A table that keeps them needs vector(%d)",
            *(alias, entry.name, given, shadowed.name, expected, given),
        )


def _dimensions(loader: ModelLoader, entry: GalleryEntry) -> int | None:
    """Return how wide a model's vectors are: by its file where that has been tried."""
    file = loader.find(entry.name)
    trial = loader.find_trial(file) if file else None
    return trial.facts.dimensions if trial else entry.dimensions
