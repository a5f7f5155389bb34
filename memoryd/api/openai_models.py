"""OpenAI's list of models (platform.openai.com/docs/api-reference/models), and what is refused."""

from typing import Literal, NoReturn

from aiohttp import web
from typing_extensions import TypedDict

from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.errors import GenerationError
from memoryd.memory.stored_models import StoredModel, find_stored_model, list_by_name


class ModelMeta(TypedDict):
    """A model's figures, called as llama.cpp calls them (tools/server/server-context.cpp)."""

    n_vocab: int | None
    n_ctx: int | None
    n_ctx_train: int | None
    n_embd: int | None
    n_params: int
    size: int


class ModelObject(TypedDict):
    """A model as OpenAI's clients know it, and what else there is to know.

    `root` is its own name, where `id` is another one. It was trained to be cut to
    `trained_dimensions`, and to all from `min_dimensions` on where that is set.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    capabilities: list[Literal["embedding", "rerank"]]
    dimensions: int | None
    trained_dimensions: list[int]
    min_dimensions: int | None
    meta: ModelMeta


class ModelList(TypedDict):
    """The models that are here, by each name that a client may have been given."""

    object: Literal["list"]
    data: list[ModelObject]


async def list_models(request: web.Request) -> web.Response:
    """List the models that are here: by their own names, the user's aliases and OpenAI's names."""
    models = await list_by_name(request.app[MEMORY].loader, "openai")
    answer: ModelList = {
        "object": "list",
        "data": [_as_json(name, model) for name, model in models],
    }
    return json_response(answer)


async def show_model(request: web.Request) -> web.Response:
    """Show a model that is here, by any of its names."""
    name = request.match_info["model"]
    model = await find_stored_model(request.app[MEMORY].loader, name)
    return json_response(_as_json(name, model))


def _as_json(name: str, model: StoredModel) -> ModelObject:
    is_reranker = model.kind == "reranker"
    return {
        "id": name,
        "object": "model",
        "created": int(model.modified_at.timestamp()),
        "owned_by": "memoryd",
        "root": model.entry.name,
        "capabilities": ["rerank" if is_reranker else "embedding"],
        "dimensions": None if is_reranker else model.dimensions,
        "trained_dimensions": list(model.entry.trained_dimensions),
        "min_dimensions": model.entry.min_dimensions,
        "meta": {
            "n_vocab": model.facts.vocabulary_size if model.facts else None,
            "n_ctx": model.context_tokens,
            "n_ctx_train": model.trained_tokens,
            "n_embd": model.dimensions,
            "n_params": model.header.parameter_count,
            "size": model.size_bytes,
        },
    }


async def refuse_generation(_request: web.Request) -> NoReturn:
    """Say that nothing is generated here."""
    raise GenerationError
