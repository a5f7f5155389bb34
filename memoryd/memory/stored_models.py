"""The models that are here, as their files tell of them: nothing is loaded or tried for that."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from memoryd.embeddings.trial import ModelFacts
from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.memory.model_listing import find_trial
from memoryd.memory.models import ModelLoader, kind_of, spec_of
from memoryd.models.catalog import find_entry, list_entries
from memoryd.models.gallery import GalleryEntry, Kind, canonical
from memoryd.models.gguf_header import GgufHeader, read_header

logger = logging.getLogger(__name__)

_HASHED_BYTES = 1 << 20
_RANK = 4  # llama_pooling_type of llama.h
# A tag that says of which type the weights are is true of its publisher's file alone.
_TAG_OF_WEIGHTS = re.compile(r":.*\b(?:bf16|fp16|fp32|f16|f32|i?q\d\w*)$", re.IGNORECASE)


@dataclass(frozen=True)
class StoredModel:
    """Hold what is known of a model whose file is here."""

    entry: GalleryEntry
    path: Path
    size_bytes: int
    modified_at: datetime
    digest: str
    """64 hexadecimal digits that copies of the file share."""
    kind: Kind
    header: GgufHeader
    facts: ModelFacts | None
    """What running it has shown; None: it never ran on this machine."""

    @property
    def dimensions(self) -> int | None:
        """The width of its vectors."""
        own = self.facts.dimensions if self.facts else self.entry.dimensions
        return own or self._count("embedding_length")

    @property
    def context_tokens(self) -> int | None:
        """The longest input that it takes."""
        own = self.facts.context_tokens if self.facts else self.entry.context_tokens
        return spec_of(self.entry).max_tokens or own or self.trained_tokens

    @property
    def trained_tokens(self) -> int | None:
        """The longest input of its architecture."""
        return self._count("context_length")

    def _count(self, key: str) -> int | None:
        value = self.header.own(key)
        return value if isinstance(value, int) else None


async def list_stored_models(loader: ModelLoader) -> list[StoredModel]:
    """Return the models that can be used without being fetched, those that came last first.

    One that is described wrongly or whose file is broken isn't among them. Raises ModelFileError
    where the models directory can't be read.
    """
    return await asyncio.to_thread(_list, loader)


async def find_stored_model(loader: ModelLoader, name: str) -> StoredModel:
    """Return the model that is here under any of its names.

    Raises ModelNotFoundError where it isn't, and ModelFileError for one that can't be used.
    """
    try:
        return await asyncio.to_thread(_find, loader, loader.resolve(name))
    except ModelNotFoundError as error:
        raise ModelNotFoundError(name) from error


async def find_own_model(loader: ModelLoader, own_name: str) -> StoredModel:
    """Return the model whose own name that is, whatever else clients call so.

    Raises what `find_stored_model` raises.
    """
    return await asyncio.to_thread(_find, loader, own_name)


async def list_by_name(loader: ModelLoader, *others: str) -> list[tuple[str, StoredModel]]:
    """Return the models that are here by each name that a client may have been given.

    Those are their own, the user's aliases, which can hide an own name, and `others`. Raises what
    `list_stored_models` raises.
    """
    return await asyncio.to_thread(lambda: list(_iterate_names(loader, others)))


def _iterate_names(loader: ModelLoader, others: Iterable[str]) -> Iterator[tuple[str, StoredModel]]:
    own_names = (entry.name for entry in list_entries(loader.models_dir))
    told: set[str] = set()
    for name in (*own_names, *loader.aliases, *others):
        with suppress(ModelNotFoundError, ModelFileError):
            if canonical(name) not in told:
                yield name, _find(loader, loader.resolve(name))
                told.add(canonical(name))


def listed_names(loader: ModelLoader, entry: GalleryEntry) -> Iterator[str]:
    """Yield the names under which clients look for a model in a list of what is here.

    Its own, which an alias of the user's can hide; those aliases; and its tags at Ollama.
    """
    tags = [alias for alias in entry.aliases if ":" in alias and not _TAG_OF_WEIGHTS.search(alias)]
    given = [alias for alias, model in loader.aliases.items() if _means(loader, model, entry)]
    yield from (name for name in (entry.name, *tags) if canonical(name) not in loader.aliases)
    yield from given


def _means(loader: ModelLoader, name: str, entry: GalleryEntry) -> bool:
    try:
        return find_entry(name, loader.models_dir).name == entry.name
    except (ModelNotFoundError, ModelFileError):
        return False


def _list(loader: ModelLoader) -> list[StoredModel]:
    stored = list(_iterate(loader))
    return sorted(stored, key=lambda model: model.modified_at, reverse=True)


def _iterate(loader: ModelLoader) -> Iterator[StoredModel]:
    taken: set[str] = set()
    for entry in list_entries(loader.models_dir):
        is_hidden = canonical(entry.name) in taken
        taken.update(map(canonical, (entry.name, *entry.aliases)))
        if entry.fault or is_hidden:
            continue
        try:
            yield _find(loader, entry.name)
        except ModelNotFoundError:
            continue
        except ModelFileError as error:
            logger.warning("%s isn't listed: %s", entry.name, error.message)


def _find(loader: ModelLoader, own_name: str) -> StoredModel:
    file = loader.find(own_name)
    if file is None:
        raise ModelNotFoundError(own_name)
    try:
        status = file.path.stat()
        digest = _digest(file.path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise ModelFileError(f"{file.path} can't be read: {error.strerror}") from error
    header, trial = read_header(file.path), find_trial(loader, file)
    return StoredModel(
        entry=file.entry,
        path=file.path,
        size_bytes=status.st_size,
        modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
        digest=digest,
        kind="reranker"
        if header.own("pooling_type") == _RANK
        else kind_of(file.entry, trial.facts if trial else None),
        header=header,
        facts=trial.facts if trial else None,
    )


@lru_cache(maxsize=256)
def _digest(path: Path, _mtime_ns: int, size: int) -> str:
    """Hash the size of a file and both its ends: some have gigabytes."""
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, size - _HASHED_BYTES))
        digest.update(file.read(_HASHED_BYTES))
    return digest.hexdigest()
