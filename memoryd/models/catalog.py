"""Model names as clients write them → entries of the gallery."""

from functools import cache

from memoryd.errors import ModelNotFoundError
from memoryd.models.gallery import GalleryEntry, load_gallery


def find_entry(name: str) -> GalleryEntry:
    """Return the entry that `name` means: its own name or an alias, in any case.

    `:latest` and surrounding spaces don't count. Raises ModelNotFoundError.
    """
    entry = _entries_by_name().get(_plain(name))
    if entry is None:
        raise ModelNotFoundError(name)
    return entry


@cache
def _entries_by_name() -> dict[str, GalleryEntry]:
    return {
        _plain(name): entry for entry in load_gallery() for name in (entry.name, *entry.aliases)
    }


def _plain(name: str) -> str:
    return name.strip().lower().removesuffix(":latest")
