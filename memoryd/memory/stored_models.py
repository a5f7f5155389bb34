"""The models that are here, as their files tell of them: nothing is loaded or tried for that."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from memoryd.embeddings.measurements import file_digest
from memoryd.embeddings.trial import ModelFacts
from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.memory.models import ModelLoader, kind_of, spec_of
from memoryd.models.catalog import OPENAI_NAMES, find_entry, list_reachable
from memoryd.models.gallery import GalleryEntry, Kind, canonical
from memoryd.models.gguf_header import GgufHeader, read_header

# A tag that says of which type the weights are is true of its publisher's file alone.
_TAG_OF_WEIGHTS = re.compile(r":.*\b(?:bf16|fp16|fp32|f16|f32|i?q\d\w*)$", re.IGNORECASE)

OtherNames = Literal["tags", "openai"]


@dataclass(frozen=True)
class StoredModel:
    """Hold what is known of a model whose file is here."""

    entry: GalleryEntry
    path: Path
    size_bytes: int
    modified_at: datetime
    digest: str
    """64 hexadecimal digits that copies of the file share."""
    header: GgufHeader
    facts: ModelFacts | None
    """What running it has shown; None: it never ran on this machine."""

    @property
    def kind(self) -> Kind:
        """What it is for."""
        return kind_of(self.entry, self.facts, self.header)

    @property
    def weight_type(self) -> str:
        """The type of most of its weights, such as bf16."""
        return self.facts.weight_type if self.facts else self.header.weight_type.lower()

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


async def find_stored_model(loader: ModelLoader, name: str) -> StoredModel:
    """Return the model that is here under any of its names.

    Raises ModelNotFoundError where it isn't, and ModelFileError for one that can't be used.
    """
    try:
        return await find_own_model(loader, loader.resolve(name))
    except ModelNotFoundError as error:
        raise ModelNotFoundError(name) from error


async def find_own_model(loader: ModelLoader, own_name: str) -> StoredModel:
    """Return the model whose own name that is, whatever else clients call so.

    Raises what `find_stored_model` raises.
    """
    entry = find_entry(own_name, loader.models_dir)
    stored = await asyncio.to_thread(read_stored_model, loader, entry)
    if stored is None:
        raise ModelNotFoundError(own_name)
    return stored


async def find_own_header(loader: ModelLoader, own_name: str) -> GgufHeader:
    """Return what the file of the model whose own name that is says of itself.

    Raises what `find_stored_model` raises.
    """
    return await asyncio.to_thread(_read_own_header, loader, own_name)


def _read_own_header(loader: ModelLoader, own_name: str) -> GgufHeader:
    file = loader.find(own_name)
    if file is None:
        raise ModelNotFoundError(own_name)
    return read_header(file.path)


def read_stored_model(loader: ModelLoader, entry: GalleryEntry) -> StoredModel | None:
    """Return the model that `entry` describes, None where it isn't here.

    Raises ModelFileError for a file that can't be read, or is no GGUF.
    """
    file = loader.find_file(entry)
    if file is None:
        return None
    try:
        status = file.path.stat()
        digest = file_digest(file.path)
    except OSError as error:
        raise ModelFileError(f"{file.path} can't be read: {error.strerror}") from error
    trial = loader.find_trial(file)
    return StoredModel(
        entry=entry,
        path=file.path,
        size_bytes=status.st_size,
        modified_at=datetime.fromtimestamp(status.st_mtime, UTC),
        digest=digest,
        header=read_header(file.path),
        facts=trial.facts if trial else None,
    )


async def list_by_name(loader: ModelLoader, *others: OtherNames) -> list[tuple[str, StoredModel]]:
    """Return the models that are here by each name that clients look for.

    Those are their own and the user's aliases, which come before own names. `others` are `tags`,
    which models have at Ollama, and `openai`, the names of OpenAI's models. One that is described
    wrongly or whose file is broken isn't among them. Raises ModelFileError where the models
    directory can't be read.
    """
    return await asyncio.to_thread(_list_by_name, loader, others)


def _list_by_name(
    loader: ModelLoader, others: tuple[OtherNames, ...]
) -> list[tuple[str, StoredModel]]:
    reachable = list_reachable(loader.models_dir)
    stored: dict[str, StoredModel] = {}
    for entry, _ in reachable:
        with suppress(ModelFileError):
            if not entry.fault and (model := read_stored_model(loader, entry)):
                stored[entry.name] = model
    named = dict((*_own_names(loader, reachable, others), *_given_names(loader, others)))
    return [(name, stored[own_name]) for name, own_name in named.items() if own_name in stored]


def _own_names(
    loader: ModelLoader,
    reachable: Iterable[tuple[GalleryEntry, tuple[str, ...]]],
    others: tuple[OtherNames, ...],
) -> Iterator[tuple[str, str]]:
    """Yield the names that models have themselves, each with the model's own name."""
    for entry, names in reachable:
        shown = [name for name in names[1:] if "tags" in others and _is_shown_tag(name)]
        for name in (entry.name, *shown):
            if canonical(name) not in loader.aliases:
                yield name, entry.name


def _is_shown_tag(name: str) -> bool:
    return ":" in name and not _TAG_OF_WEIGHTS.search(name)


def _given_names(loader: ModelLoader, others: tuple[OtherNames, ...]) -> Iterator[tuple[str, str]]:
    """Yield the names that models were given, each with the own name of the model."""
    for name in (*loader.aliases, *(OPENAI_NAMES if "openai" in others else ())):
        with suppress(ModelNotFoundError, ModelFileError):
            yield name, loader.resolve(name)
