"""LocalAI's model files: a YAML per model in the models directory, with a section of memoryd's own.

The keys are those of https://localai.io/docs/advanced/model-configuration; of them memoryd reads
name, description, backend, embeddings, reranking, known_usecases, context_size, parameters.model
and the pooling among options. The section `memoryd` takes the keys of a gallery entry.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from functools import lru_cache
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import orjson
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from memoryd.errors import ModelFileError
from memoryd.models.gallery import (
    GalleryEntry,
    Kind,
    Pooling,
    canonical,
    faulty,
    file_stem,
    gallery_by_name,
    is_name,
    names_in,
    read_entry,
    read_text,
)

MAX_FILE_BYTES = 64 << 10
# Aliases and merge keys can make a file of a kilobyte hold billions of nodes.
MAX_ALIASES = 32
MAX_DEPTH = 64
MAX_NAMES_SHOWN = 20

_SUFFIXES = (".yaml", ".yml")
# LocalAI's names of backends that take a model's name on the hub instead of a file.
_HUB_BACKENDS = frozenset(
    {"sentencetransformers", "sentence-transformers", "huggingface", "huggingface-embeddings"}
    | {"transformers", "rerankers", "bert", "bert-embeddings"}
)
_HUB_FILE = re.compile(
    r"(?:huggingface://|hf://|https://huggingface\.co/)(?P<repository>[^/]+/[^/]+)"
    r"(?:/resolve/(?P<revision>[^/]+))?/(?P<file>.+\.gguf)",
    re.IGNORECASE,
)
_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")
# The keys of a gallery entry that stand outside of the section `memoryd`.
_OUTSIDE = {"name": "name", "kind": "embeddings", "context_tokens": "context_size"}


def read_model_files(models_dir: Path) -> list[GalleryEntry]:
    """Return the models that YAML files describe, in the order of the files' names.

    What is wrong with a file is the `fault` of its entry. Raises OSError for the directory itself.
    """
    entries = [_read(path) for path in sorted(models_dir.iterdir()) if is_model_file(path.name)]
    counts = Counter(canonical(entry.name) for entry in entries)
    shared = {name for name, count in counts.items() if count > 1}
    return [_without_rival(entry, entries, shared) for entry in entries]


def is_model_file(name: str) -> bool:
    """Tell by its name whether a file describes a model."""
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def _without_rival(
    entry: GalleryEntry, entries: list[GalleryEntry], shared: set[str]
) -> GalleryEntry:
    if canonical(entry.name) not in shared or entry.origin is None:
        return entry
    same = canonical(entry.name)
    rivals = [other.origin for other in entries if canonical(other.name) == same]
    names = ", ".join(path.name for path in rivals if path and path != entry.origin)
    return faulty(entry.name, entry.origin, f"name: {names} defines {entry.name!r} too")


def _read(path: Path) -> GalleryEntry:
    try:
        document = _load(read_text(path, MAX_FILE_BYTES))
    except ModelFileError as error:
        return faulty((names_in(path) or [path.stem])[0], path, error.message)
    try:
        return _entry(document, path)
    except ModelFileError as error:
        name = document.get("name")
        return faulty(name if isinstance(name, str) else path.stem, path, error.message)


@lru_cache(maxsize=512)
def _load(text: str) -> Mapping[str, Any]:
    try:
        _bound(text)
        document = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ModelFileError(f"line {line}: isn't YAML: {error.problem}") from error
    except (YAMLError, ValueError, ArithmeticError, RecursionError) as error:
        raise ModelFileError(f"isn't YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ModelFileError("line 1: must be a mapping of keys, as in `name: my-model`")
    return document


def _bound(text: str) -> None:
    depth = aliases = 0
    for event in YAML(typ="safe").parse(StringIO(text)):
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        aliases += isinstance(event, AliasEvent)
        if depth > MAX_DEPTH or aliases > MAX_ALIASES:
            line = event.start_mark.line + 1
            raise ModelFileError(f"line {line}: has too many levels or aliases")


def _entry(document: Mapping[str, Any], path: Path) -> GalleryEntry:
    own = _section(document, "memoryd")
    if misplaced := sorted(_OUTSIDE.keys() & own.keys()):
        key = misplaced[0]
        raise ModelFileError(f"memoryd.{key}: isn't a key there; `{_OUTSIDE[key]}` says it")
    table = {**_localai_keys(document, path), **own}
    read = read_entry(table, "memoryd")
    base = GalleryEntry(name=read.name)
    if not {"path", "repository"} & own.keys():
        base = _source(document, path)
    entry = replace(base, origin=path, **{key: getattr(read, key) for key in table})
    return replace(entry, path=path.parent / entry.path) if entry.path else entry


def _localai_keys(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what LocalAI's keys say, under the keys of a gallery entry."""
    name = document.get("name", path.stem)
    if not isinstance(name, str) or not is_name(name):
        raise ModelFileError(f"name: {name!r} can't be a model's name")
    table: dict[str, Any] = {"name": name, "kind": _kind(document)}
    if size := _context_size(document):
        table["context_tokens"] = size
    if pooling := _pooling(document):
        table["pooling"] = pooling
    if isinstance(description := document.get("description"), str):
        table["description"] = description
    return table


def _kind(document: Mapping[str, Any]) -> Kind:
    uses = document.get("known_usecases")
    uses = {str(use).lower() for use in uses} if isinstance(uses, list) else set()
    if _is_true(document, "reranking") or "rerank" in uses or _backend(document) == "rerankers":
        return "reranker"
    if _is_true(document, "embeddings") or "embeddings" in uses:
        return "embedding"
    state = "is false" if "embeddings" in document else "is missing"
    raise ModelFileError(
        f"embeddings: {state}, so the model is neither for embeddings nor a reranker; "
        "write `embeddings: true` (or `reranking: true`)"
    )


def _is_true(document: Mapping[str, Any], key: str) -> bool:
    # LocalAI's parser also takes the words of YAML 1.1.
    return str(document.get(key)).lower() in {"true", "yes", "on", "y"}


def _backend(document: Mapping[str, Any]) -> str:
    return str(document.get("backend") or "").lower()


def _context_size(document: Mapping[str, Any]) -> int | None:
    size = document.get("context_size")
    if size is None or size == 0:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ModelFileError(f"context_size: {size!r} must be a number of tokens")
    return size


def _pooling(document: Mapping[str, Any]) -> str | None:
    options = document.get("options")
    for option in options if isinstance(options, list) else ():
        key, _, value = (part.strip().lower() for part in str(option).partition(":"))
        if key not in {"pooling", "pooling_type"}:
            continue
        if value not in get_args(Pooling):
            raise ModelFileError(f"options: {option} must be one of {', '.join(get_args(Pooling))}")
        return value
    return None


def _section(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = document.get(key)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ModelFileError(f"{key}: must be a mapping of keys")
    return section


def _source(document: Mapping[str, Any], path: Path) -> GalleryEntry:
    """Return where the model's file is: here, in the gallery or on the hub."""
    model = _section(document, "parameters").get("model")
    if not isinstance(model, str) or not model.strip():
        raise ModelFileError(
            "parameters.model: is missing; name a .gguf file or a model of the hub"
        )
    model = model.strip()
    if match := _HUB_FILE.fullmatch(model):
        revision = match["revision"] or "main"
        return GalleryEntry(
            name=model, repository=match["repository"], revision=revision, gguf=match["file"]
        )
    if "://" in model:
        raise ModelFileError(
            f"parameters.model: nothing is fetched from there; run `memoryd models import {model}`"
        )
    return _file_here(model, path.parent) or _hub_model(model, document, path.parent)


def _file_here(model: str, models_dir: Path) -> GalleryEntry | None:
    relative = PurePosixPath(model)
    if relative.is_absolute() or ".." in relative.parts:
        raise ModelFileError(
            f"parameters.model: {model} is outside of the models directory; "
            "`memoryd models import` brings it in, or uses it where it is"
        )
    if relative.suffix.lower() == ".bin":
        raise ModelFileError(
            f"parameters.model: {model} is of bert.cpp's old format, which llama.cpp doesn't read; "
            "name the model on the hub instead, and memoryd converts it"
        )
    file = models_dir / relative
    is_file_name = relative.suffix.lower() == ".gguf" or file.is_file()
    return GalleryEntry(name=model, path=file) if is_file_name else None


def _hub_model(model: str, document: Mapping[str, Any], models_dir: Path) -> GalleryEntry:
    if known := gallery_by_name().get(canonical(model)):
        return replace(known, aliases=(), stored_as=known.stem)
    if _HUB_NAME.fullmatch(model):
        return GalleryEntry(name=model, repository=model)
    if _backend(document) in _HUB_BACKENDS and is_name(model) and ":" not in model:
        # As sentence-transformers itself takes names without an owner.
        return GalleryEntry(name=model, repository=f"sentence-transformers/{model}")
    raise ModelFileError(f"parameters.model: {_absent(models_dir / model)}")


def missing_file(entry: GalleryEntry) -> str | None:
    """Return what is wrong where the file of an entry isn't there."""
    if entry.path is None or entry.origin is None or entry.path.is_file():
        return None
    key = "parameters.model" if is_model_file(entry.origin.name) else f"{entry.name}: path"
    return f"{entry.origin}: {key}: {_absent(entry.path)}"


def _absent(file: Path) -> str:
    names = sorted(_names_of_gguf_files(file.parent))
    shown = ", ".join(names[:MAX_NAMES_SHOWN])
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return f"there is no file {file}; the .gguf files there are: {shown or 'none'}{more}"


def _names_of_gguf_files(folder: Path) -> Iterator[str]:
    with suppress(OSError):
        for path in folder.iterdir():
            if path.suffix.lower() == ".gguf" and not path.name.startswith("."):
                yield path.name


def check_against_file(
    entry: GalleryEntry, context_tokens: int, dimensions: int, kind: Kind
) -> None:
    """Compare what a user's file says of a model with what the model's own file holds.

    Raises ModelFileError naming the user's file and key, where a context is longer than the model
    was trained for, or a width or kind is another. What nobody wrote isn't compared.
    """
    if entry.origin is None or entry.origin == entry.path:
        return
    written = _written_keys(entry)
    if "context_tokens" in written and (entry.context_tokens or 0) > context_tokens:
        raise _contradiction(
            entry, "context_tokens", f"the model was trained for {context_tokens} tokens at most"
        )
    if "dimensions" in written and entry.dimensions != dimensions:
        raise _contradiction(entry, "dimensions", f"the model's vectors have {dimensions}")
    if "kind" in written and entry.kind != kind:
        raise _contradiction(entry, "kind", f"the model's file is of kind {kind}")


def _written_keys(entry: GalleryEntry) -> set[str]:
    inherited = gallery_by_name().get(canonical(entry.stored_as))
    return {
        key
        for key in ("context_tokens", "dimensions", "kind")
        if getattr(entry, key) is not None and getattr(entry, key) != getattr(inherited, key, None)
    }


def _contradiction(entry: GalleryEntry, key: str, truth: str) -> ModelFileError:
    if entry.origin is None or not is_model_file(entry.origin.name):
        said = f"{entry.name}: {key} is {getattr(entry, key)}"
    elif key == "kind":
        said = f"{'embeddings' if entry.kind == 'embedding' else 'reranking'} is true"
    else:
        said = f"{_OUTSIDE.get(key, f'memoryd.{key}')} is {getattr(entry, key)}"
    return ModelFileError(f"{entry.origin}: {said}, but {truth}")


def write_model_file(entry: GalleryEntry, models_dir: Path) -> Path:
    """Write the YAML that describes `entry`, atomically; read again, it is equal but for `origin`.

    Raises ModelFileError where another file has that name, or the directory can't be written.
    """
    path = models_dir / f"{file_stem(entry.name)}.yaml"
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        _refuse_rival(entry, path)
        _write(_document(entry, models_dir), path)
    except OSError as error:
        raise ModelFileError(f"cannot write {path}: {error.strerror}") from error
    return path


def _refuse_rival(entry: GalleryEntry, path: Path) -> None:
    for other in read_model_files(path.parent):
        is_same = canonical(other.name) == canonical(entry.name)
        if other.origin is not None and is_same != (other.origin == path):
            raise ModelFileError(
                f"{other.origin} defines the model {other.name!r}: remove it, or take another name"
            )


def _document(entry: GalleryEntry, models_dir: Path) -> dict[str, Any]:
    own = _own_keys(entry)
    model = entry.path.name if entry.path else entry.repository
    if entry.path and entry.path.parent == models_dir and entry.path.suffix.lower() == ".gguf":
        del own["path"]
    elif entry.gguf:
        model = f"huggingface://{entry.repository}/{entry.gguf}"
    size = {"context_size": entry.context_tokens} if entry.context_tokens else {}
    return {
        "name": entry.name,
        "backend": "llama-cpp",
        "embeddings" if entry.kind == "embedding" else "reranking": True,
        **size,
        "parameters": {"model": model},
        "memoryd": own,
    }


def _own_keys(entry: GalleryEntry) -> dict[str, Any]:
    plain = GalleryEntry(name=entry.name)
    outside = {*_OUTSIDE, "origin", "stored_as", "fault"}
    changed = {
        field.name: getattr(entry, field.name)
        for field in fields(entry)
        if field.name not in outside and getattr(entry, field.name) != getattr(plain, field.name)
    }
    keys: dict[str, Any] = orjson.loads(orjson.dumps(changed, default=str))
    return keys


def _write(document: Mapping[str, Any], path: Path) -> None:
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # inferred as None
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        yaml.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
