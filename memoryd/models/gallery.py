"""The models that memoryd knows by name: gallery.toml as dataclasses, and a user's own one."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from memoryd.errors import ModelFileError

Kind = Literal["embedding", "reranker"]
Pooling = Literal["none", "mean", "cls", "last", "rank"]

MAX_GALLERY_BYTES = 1 << 20

# [host[:port]/][namespace/]model[:tag], as Ollama writes names.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"(?:{_PART}(?::\d+)?/)*{_PART}(?::{_PART})?")
# What Ollama's clients may put before a name, in this order.
_HOSTS = ("registry.ollama.ai/", "library/", "hf.co/", "huggingface.co/")
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME_LINE = re.compile(r"""^(?:- )?name\s*[:=]\s*["']?([^"'#\s]+)""", re.MULTILINE)
_STRICT = ConfigDict(extra="forbid", strict=True)
_NOT_IN_FILES = frozenset({"origin", "fault", "stored_as"})


def is_name(text: str) -> bool:
    """Tell whether a model can be called `text`."""
    return _NAME.fullmatch(text) is not None


def canonical(name: str) -> str:
    """Return what all ways to write a name share: case, spaces and defaults don't count."""
    plain = name.strip().lower().removesuffix(":latest")
    for host in _HOSTS:
        plain = plain.removeprefix(host)
    return plain


def _as_name(text: str) -> str:
    if not is_name(text):
        raise ValueError("must be of letters, digits and ._-, with / between parts and : at a tag")
    return text


def _as_repository(text: str) -> str:
    if not _REPOSITORY.fullmatch(text):
        raise ValueError("must be of the form owner/name")
    return text


def _as_inner_path(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("must be a path inside the repository")
    return text


def _as_sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("must be 64 hexadecimal digits in lower case")
    return text


Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, AfterValidator(_as_name)]
InnerPath = Annotated[str, AfterValidator(_as_inner_path)]


@dataclass(frozen=True)
class SourceFile:
    """Name a file of a model's repository; what is None is taken from the hub's headers."""

    __pydantic_config__ = _STRICT

    path: InnerPath
    size_bytes: Positive | None = None
    sha256: Annotated[str, AfterValidator(_as_sha256)] | None = None


@dataclass(frozen=True)
class Package:
    """Name a Python package that carries a model's files in `folder`."""

    __pydantic_config__ = _STRICT

    name: str
    version: str
    folder: InnerPath


@dataclass(frozen=True)
class GalleryEntry:
    """Describe a model: what it is, how its vectors are made, and where its files are.

    What is None is not known before the model's file is read. `context_tokens` is the longest
    input it can take, `trained_tokens` the longest it was trained on, both with the special tokens.
    It was trained for the widths `trained_dimensions`, and for all from `min_dimensions` on where
    that is set. The prefixes are put before a text as they stand, but for `{instruction}` in that
    of queries, for which `instruction` stands unless another is given, and `{title}` in that of
    documents.
    """

    __pydantic_config__ = _STRICT

    name: Name
    description: str = ""
    aliases: tuple[Name, ...] = ()
    license: str = ""
    kind: Kind = "embedding"
    architecture: str = ""
    dimensions: Positive | None = None
    trained_dimensions: tuple[Positive, ...] = ()
    min_dimensions: Positive | None = None
    context_tokens: Positive | None = None
    trained_tokens: Positive | None = None
    pooling: Pooling | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    instruction: str = ""
    languages: tuple[str, ...] = ()
    repository: Annotated[str, AfterValidator(_as_repository)] | None = None
    revision: InnerPath = "main"
    gguf: InnerPath | None = None
    """The file of `repository` that is used as it is; without it, `files` are converted."""
    files: tuple[SourceFile, ...] = ()
    package: Package | None = None
    facts: str = ""
    """Where what stands here comes from."""
    verified: bool = False
    """Whether memoryd has run the model and its figures were right."""
    path: Path | None = None
    """The file of a model that is on this machine and used in place."""
    origin: Path | None = None
    """The file of the models directory that describes the model."""
    stored_as: str = ""
    """The name of the gallery's entry whose files it uses, where that isn't its own."""
    fault: str = ""
    """Why the model can't be used, where its description is broken."""

    @property
    def size_bytes(self) -> int:
        """Return how much has to be downloaded, as far as it is known."""
        return sum(file.size_bytes or 0 for file in self.files)

    @property
    def stem(self) -> str:
        """Return how the names of its files in the models directory begin.

        A user's model is told from another of that name by where it comes from.
        """
        if self.stored_as or self.origin is None:
            return self.stored_as or self.name
        source = f"{self.name.lower()} {self.repository}@{self.revision}/{self.gguf}"
        return f"{file_stem(self.name)}-{sha256(source.encode()).hexdigest()[:8]}"


_ENTRY = TypeAdapter(GalleryEntry)


def file_stem(name: str) -> str:
    """Return `name` with what a file's name can't hold replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


@cache
def load_gallery() -> tuple[GalleryEntry, ...]:
    """Return the entries in the order of gallery.toml."""
    text = (files(__package__) / "gallery.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)["models"]
    return tuple(read_entry(table, f"gallery.toml: {table['name']}") for table in tables)


@cache
def gallery_by_name() -> Mapping[str, GalleryEntry]:
    """Return the entries by all their canonical names."""
    return {
        canonical(name): entry for entry in load_gallery() for name in (entry.name, *entry.aliases)
    }


def read_entry(table: Mapping[str, Any], where: str) -> GalleryEntry:
    """Return the entry that a table of a file describes; `where` tells the file and the place.

    Raises ModelFileError naming the key.
    """
    if reserved := sorted(_NOT_IN_FILES & table.keys()):
        raise ModelFileError(f"{where}: {reserved[0]}: isn't a key that memoryd knows")
    try:
        # By way of JSON, in which lists stand for tuples however strict the types are.
        encoded = orjson.dumps(table, default=str, option=orjson.OPT_NON_STR_KEYS)
        return _ENTRY.validate_json(encoded)
    except orjson.JSONEncodeError as error:
        raise ModelFileError(f"{where}: {error}") from error
    except ValidationError as error:
        raise ModelFileError(f"{where}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "unexpected_keyword_argument":
        return f"{key}: isn't a key that memoryd knows"
    if first["type"] == "missing":
        return f"{key}: is missing"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}"


def read_gallery(path: Path) -> list[GalleryEntry]:
    """Return the models of a user's own gallery file.

    What is wrong with one is its `fault`; of a file that is no TOML, it is that of all its models.
    """
    try:
        tables = _tables(read_text(path, MAX_GALLERY_BYTES))
    except ModelFileError as error:
        return [faulty(name, path, error.message) for name in names_in(path) or [path.name]]
    entries = [_read_table(table, number, path) for number, table in enumerate(tables, 1)]
    counts = Counter(canonical(entry.name) for entry in entries)
    return [
        entry
        if counts[canonical(entry.name)] == 1
        else faulty(entry.name, path, "name: the file has it twice")
        for entry in entries
    ]


def _tables(text: str) -> list[dict[str, Any]]:
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelFileError(f"isn't TOML: {error}") from error
    if unknown := sorted(document.keys() - {"models"}):
        raise ModelFileError(f"{unknown[0]}: isn't a key that memoryd knows; write [[models]]")
    tables = document.get("models", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ModelFileError("models: must be tables that begin with [[models]]")
    return tables


def _read_table(table: dict[str, Any], number: int, path: Path) -> GalleryEntry:
    name = table.get("name")
    label = name if isinstance(name, str) else f"models[{number}]"
    try:
        entry = read_entry(table, label)
    except ModelFileError as error:
        return faulty(label, path, error.message)
    if entry.repository is None and entry.path is None:
        return faulty(label, path, f"{label}: repository: is missing (or path, for a file here)")
    where = entry.path and path.parent / entry.path
    return replace(entry, origin=path, path=where)


def read_text(path: Path, max_bytes: int) -> str:
    """Return what a file holds. Raises ModelFileError, also for one that is too long."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ModelFileError(f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelFileError("isn't UTF-8 text") from error
    if len(content) > max_bytes:
        raise ModelFileError(f"is longer than the {max_bytes:,} bytes that memoryd reads")
    return text


def names_in(path: Path) -> list[str]:
    """Return the names that a broken file seems to give its models."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_GALLERY_BYTES)
    except OSError:
        return []
    return _NAME_LINE.findall(content.decode(errors="replace"))


def faulty(name: str, path: Path, message: str) -> GalleryEntry:
    """Return the entry of a model whose description in `path` is broken."""
    return GalleryEntry(name=name, origin=path, fault=f"{path}: {message}")
