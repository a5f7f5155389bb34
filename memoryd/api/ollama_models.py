"""Ollama's routes about models: what is here, what is loaded, other names, removal."""

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NotRequired

from aiohttp import web
from typing_extensions import TypedDict

from memoryd.api.bodies import PeerBody
from memoryd.api.errors import json_response
from memoryd.api.ollama_requests import (
    NamedModelBody,
    check_model_name,
    is_model_name,
    read_body,
    telling_not_found,
)
from memoryd.api.state import MEMORY
from memoryd.embeddings.engine import LoadedModel
from memoryd.errors import (
    InvalidInputError,
    MissingFieldError,
    ModelFileError,
    ModelNotFoundError,
)
from memoryd.memory.model_copying import copy_model
from memoryd.memory.model_removal import remove_served_model
from memoryd.memory.models import ModelLoader
from memoryd.memory.stored_models import (
    StoredModel,
    find_own_model,
    find_stored_model,
    list_by_name,
)
from memoryd.models.gguf_header import GgufHeader, read_whole_header

# Clients ask for a least version; of this one's release notes `dimensions` of /api/embed is new.
_OLLAMA_VERSION = "0.11.11"
# What Ollama adds to now for a model that stays for ever: what its durations can hold.
_FOR_EVER = timedelta(days=292 * 365)
# llama_pooling_type of llama.h.
_POOLINGS = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}
_NOT_SHOWN = frozenset({"general.name", "tokenizer.chat_template"})

Capability = Literal["embedding", "rerank"]


class ShowBody(NamedModelBody):
    """What /api/show takes."""

    verbose: bool | None = None


class CopyBody(PeerBody):
    """What /api/copy takes."""

    source: str | None = None
    destination: str | None = None


class Details(TypedDict):
    """Say of which kind a model is."""

    parent_model: Literal[""]
    format: Literal["gguf"]
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str
    context_length: NotRequired[int]
    embedding_length: NotRequired[int]


class ListedModel(TypedDict):
    """Tell of a model that is here, under one of its names."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[Capability]


class ModelList(TypedDict):
    """Tell of the models that are here, those that came last first."""

    models: list[ListedModel]


class ShowAnswer(TypedDict):
    """Tell all that is known of a model: `model_info` has its file's keys, and memoryd's own."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[Capability]
    modified_at: str


class RunningModel(TypedDict):
    """Tell of a model that is loaded; sizes are in bytes."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class RunningModels(TypedDict):
    """Tell of the models that are loaded, the one that stays longest first."""

    models: list[RunningModel]


class VersionAnswer(TypedDict):
    """Tell whose API this is: a version of Ollama's."""

    version: str


async def show_version(_request: web.Request) -> web.Response:
    """Tell which version's API of Ollama this is."""
    answer: VersionAnswer = {"version": _OLLAMA_VERSION}
    return json_response(answer)


async def list_models(request: web.Request) -> web.Response:
    """List the models that are here, by each name that clients look for."""
    models = await list_by_name(request.app[MEMORY].loader, "tags")
    models.sort(key=lambda named: named[1].modified_at, reverse=True)
    answer: ModelList = {"models": [_listed(name, model) for name, model in models]}
    return json_response(answer)


def _listed(name: str, model: StoredModel) -> ListedModel:
    return {
        "name": shown_name(name),
        "model": shown_name(name),
        "modified_at": model.modified_at.isoformat(),
        "size": model.size_bytes,
        "digest": model.digest,
        "details": _details(model.header),
        "capabilities": _capabilities(model),
    }


def shown_name(name: str) -> str:
    """Return a name with its tag, as Ollama lists it: clients look for `name:` at its start."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _details(header: GgufHeader) -> Details:
    details: Details = {
        "parent_model": "",
        "format": "gguf",
        "family": header.architecture,
        "families": [header.architecture],
        "parameter_size": shown_count(header.parameter_count),
        "quantization_level": header.weight_type,
    }
    context, embedding = header.own("context_length"), header.own("embedding_length")
    if isinstance(context, int):
        details["context_length"] = context
    if isinstance(embedding, int):
        details["embedding_length"] = embedding
    return details


def shown_count(count: int) -> str:
    """Return a number as Ollama writes that of a model's weights: 22.57M (format/format.go)."""
    for unit, letter, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= unit:
            return f"{count / unit:.{0 if count % unit == 0 else digits}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def _capabilities(model: StoredModel) -> list[Capability]:
    return ["rerank" if model.kind == "reranker" else "embedding"]


async def show_model(request: web.Request) -> web.Response:
    """Show all that is known of a model that is here."""
    body = await read_body(request, ShowBody)
    name = body.either
    if not name:
        raise MissingFieldError("model is required", "model")
    check_model_name(name)
    with telling_not_found(f"model '{name}' not found"):
        model = await find_stored_model(request.app[MEMORY].loader, name)
    header = model.header
    if body.verbose:
        header = await asyncio.to_thread(read_whole_header, model.path)
    answer: ShowAnswer = {
        "license": model.entry.license,
        "modelfile": _modelfile(model),
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": _details(header),
        "model_info": {**_file_info(header), **_own_info(model)},
        "capabilities": _capabilities(model),
        "modified_at": model.modified_at.isoformat(),
    }
    return json_response(answer)


def _modelfile(model: StoredModel) -> str:
    name = shown_name(model.entry.name)
    return f'# Modelfile generated by "ollama show"\nFROM {name}\nTEMPLATE {{{{ .Prompt }}}}\n'


def _file_info(header: GgufHeader) -> dict[str, Any]:
    """Return what the file says, and how many weights it has."""
    values = {key: value for key, value in header.values.items() if key not in _NOT_SHOWN}
    return {**values, "general.parameter_count": header.parameter_count}


def _own_info(model: StoredModel) -> dict[str, Any]:
    """Return what memoryd knows of a model and its file doesn't say."""
    entry, family = model.entry, model.header.architecture
    info: dict[str, Any] = {
        "memoryd.trained_dimensions": list(entry.trained_dimensions),
        "memoryd.min_dimensions": entry.min_dimensions,
        "memoryd.trained_tokens": entry.trained_tokens,
        "memoryd.query_prefix": entry.query_prefix,
        "memoryd.document_prefix": entry.document_prefix,
        "memoryd.instruction": entry.instruction,
    }
    if entry.pooling:
        info[f"{family}.pooling_type"] = _POOLINGS[entry.pooling]
    return info


async def list_running_models(request: web.Request) -> web.Response:
    """List the models that are loaded, and until when."""
    memory = request.app[MEMORY]
    answer: RunningModels = {
        "models": [
            _running(loaded, await _find_file(memory.loader, loaded), memory.settings.gpu_layers)
            for loaded in memory.engine.loaded()
        ]
    }
    return json_response(answer)


async def _find_file(loader: ModelLoader, loaded: LoadedModel) -> StoredModel | None:
    """Return what is known of a model that is loaded, None where its file has gone."""
    try:
        return await find_own_model(loader, loaded.model.spec.name)
    except (ModelNotFoundError, ModelFileError):
        return None


def _running(loaded: LoadedModel, stored: StoredModel | None, gpu_layers: int) -> RunningModel:
    name = shown_name(loaded.model.spec.name)
    header = stored.header if stored else GgufHeader({}, 0, "")
    return {
        "name": name,
        "model": name,
        "size": loaded.memory_bytes,
        "digest": stored.digest if stored else "",
        "details": _details(header),
        "expires_at": _expiry(loaded.expires_in_s).isoformat(),
        "size_vram": round(loaded.memory_bytes * gpu_share(gpu_layers, header)),
        "context_length": loaded.model.max_tokens,
    }


def _expiry(expires_in_s: float) -> datetime:
    stays = _FOR_EVER if math.isinf(expires_in_s) else timedelta(seconds=expires_in_s)
    return datetime.now(UTC) + stays


def gpu_share(gpu_layers: int, header: GgufHeader) -> float:
    """Return which part of a model is on the GPU, where `gpu_layers` of it are there (-1: all)."""
    layers = int(header.own("block_count") or 0) + 1  # the last is the output's
    return 1.0 if gpu_layers < 0 else min(1.0, gpu_layers / layers)


async def delete_model(request: web.Request) -> web.Response:
    """Delete the files of a model that no collection works with."""
    body = await read_body(request, NamedModelBody)
    name = body.either
    if not name:
        raise MissingFieldError("model is required", "model")
    if not is_model_name(name):
        raise InvalidInputError(f'name "{name}" is invalid', "model")
    with telling_not_found(f"model '{name}' not found"):
        await remove_served_model(request.app[MEMORY], name)
    return web.Response()


async def copy(request: web.Request) -> web.Response:
    """Give a model a second name, which stays where the first is deleted."""
    body = await read_body(request, CopyBody)
    source, destination = body.source or "", body.destination or ""
    for field, name in (("source", source), ("destination", destination)):
        if not is_model_name(name):
            raise InvalidInputError(f'{field} "{name}" is invalid', field)
    with telling_not_found(f'model "{source}" not found'):
        await copy_model(request.app[MEMORY].loader, source, destination)
    return web.Response()
