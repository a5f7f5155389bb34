"""The models that memoryd knows by name: gallery.toml as dataclasses."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True)
class SourceFile:
    """Name a file of a model's repository and what it must hold."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """Name a Python package that carries a model's files in `folder`."""

    name: str
    version: str
    folder: str


@dataclass(frozen=True)
class GalleryEntry:
    """Describe a model: what it is, how its vectors are made, and where its files are.

    `context_tokens` is the longest input it can take, `trained_tokens` the longest it was trained
    on, both with the special tokens. The prefixes are put before a text as they stand.
    """

    name: str
    description: str
    aliases: tuple[str, ...]
    license: str
    architecture: str
    dimensions: int
    context_tokens: int
    trained_tokens: int
    pooling: Pooling
    query_prefix: str
    document_prefix: str
    repository: str
    revision: str
    package: Package
    files: tuple[SourceFile, ...]

    @property
    def size_bytes(self) -> int:
        """Return how much has to be downloaded."""
        return sum(file.size_bytes for file in self.files)


@cache
def load_gallery() -> tuple[GalleryEntry, ...]:
    """Return the entries in the order of gallery.toml."""
    text = (files(__package__) / "gallery.toml").read_text(encoding="utf-8")
    return tuple(_read_entry(table) for table in tomllib.loads(text)["models"])


def _read_entry(table: dict[str, Any]) -> GalleryEntry:
    nested = {
        "aliases": tuple(table["aliases"]),
        "package": Package(**table["package"]),
        "files": tuple(SourceFile(**file) for file in table["files"]),
    }
    return GalleryEntry(**{**table, **nested})
