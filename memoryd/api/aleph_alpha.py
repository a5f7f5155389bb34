"""Aleph Alpha's dialect, as aleph-alpha-client 11.5.1 speaks it; /embeddings is as OpenAI's."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Discriminator, Field
from pydantic import Tag as PydanticTag
from typing_extensions import TypedDict

from memoryd.api.bodies import ALTERNATIVE, PeerBody, apart, read_peer_body
from memoryd.api.embedding import add_notes
from memoryd.api.errors import json_response
from memoryd.api.fields import Numbers
from memoryd.api.inputs import TokenIds, check_count
from memoryd.api.state import MEMORY
from memoryd.embeddings.model import EmbeddingModel, Embeddings
from memoryd.embeddings.types import Input, InputField, list_field, single_field
from memoryd.errors import InvalidInputError, NotTextError
from memoryd.memory.embed import EmbedOptions, check_dimensions, embed
from memoryd.memory.stored_models import StoredModel, list_by_name
from memoryd.memory.token_ids import read_token_ids
from memoryd.vectors.similarity import EUCLIDEAN, NOT_NORMALIZED

# The least that the client's validate_version() takes; it wants this major version.
API_VERSION = "1.19.0"

_PROMPTS = list_field("prompts")

_TEXT, _TOKENS, _IMAGE, _STRING, _ITEMS = (
    ALTERNATIVE + name for name in ("text", "token_ids", "image", "string", "items")
)


class TextItem(PeerBody):
    """A part of a prompt: text."""

    type: Literal["text"]
    data: str
    controls: list[Any] | None = None


class TokensItem(PeerBody):
    """A part of a prompt: ids of the model's tokens."""

    type: Literal["token_ids"]
    data: TokenIds
    controls: list[Any] | None = None


class ImageItem(PeerBody):
    """A part of a prompt that no model here can read."""

    type: Literal["image"]


def _kind_of_item(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"{ALTERNATIVE}{kind}" if kind in ("token_ids", "image") else _TEXT


def _kind_of_prompt(value: Any) -> str:
    return _ITEMS if isinstance(value, list) else _STRING


Item = Annotated[
    Annotated[TextItem, PydanticTag(_TEXT)]
    | Annotated[TokensItem, PydanticTag(_TOKENS)]
    | Annotated[ImageItem, PydanticTag(_IMAGE)],
    Discriminator(_kind_of_item),
]
Prompt = Annotated[
    Annotated[str, PydanticTag(_STRING)]
    | Annotated[list[Item], Field(min_length=1, fail_fast=True), PydanticTag(_ITEMS)],
    Discriminator(_kind_of_prompt),
]


class _SemanticBody(PeerBody):
    """What both semantic routes take; other fields are ignored, null is absent."""

    model: str | None = None
    """None: that of new collections."""
    representation: Literal["symmetric", "document", "query"]
    compress_to_size: int | None = None
    normalize: bool | None = None


class SemanticEmbedBody(_SemanticBody):
    """What /semantic_embed takes."""

    prompt: Prompt


class BatchSemanticEmbedBody(_SemanticBody):
    """What /batch_semantic_embed takes."""

    prompts: list[Prompt] = Field(min_length=1, fail_fast=True)


class InstructableEmbedBody(PeerBody):
    """What /instructable_embed takes; other fields are ignored, null is absent."""

    model: str | None = None
    input: Prompt
    instruction: str
    normalize: bool | None = None


class EmbeddingAnswer(TypedDict):
    """The vector of one prompt."""

    model_version: str
    embedding: Numbers
    num_tokens_prompt_total: int


class EmbeddingsAnswer(TypedDict):
    """The vectors of several prompts."""

    model_version: str
    embeddings: list[Numbers]
    num_tokens_prompt_total: int


class ModelSettings(TypedDict):
    """A model, as the settings of models are described at docs.aleph-alpha.com (4.1)."""

    name: str
    status: Literal["available"]
    description: str
    max_context_size: int | None
    multimodal: bool
    chat: bool
    completion_type: Literal["none"]
    embedding_type: Literal["none", "semantic"]
    semantic_embedding: bool


async def version(_request: web.Request) -> web.Response:
    """Say which version of Aleph Alpha's API this is."""
    return web.Response(text=API_VERSION)


async def list_models(request: web.Request) -> web.Response:
    """List the models that are here."""
    models = await list_by_name(request.app[MEMORY].loader)
    answer = [_as_settings(name, model) for name, model in models]
    return json_response(answer)


def _as_settings(name: str, model: StoredModel) -> ModelSettings:
    gives_vectors = model.kind != "reranker"
    return {
        "name": name,
        "status": "available",
        "description": model.entry.description,
        "max_context_size": model.context_tokens,
        "multimodal": False,
        "chat": False,
        "completion_type": "none",
        "embedding_type": "semantic" if gives_vectors else "none",
        "semantic_embedding": gives_vectors,
    }


async def semantic_embed(request: web.Request) -> web.Response:
    """Embed a prompt as a query, a document, or something to compare with its like."""
    body = await read_peer_body(request, SemanticEmbedBody)
    options = _semantic_options(body, single_field("prompt"))
    return await _answer_with_one(request, body.model, body.prompt, options)


async def batch_semantic_embed(request: web.Request) -> web.Response:
    """Embed several prompts, all in the same way."""
    body = await read_peer_body(request, BatchSemanticEmbedBody)
    check_count(len(body.prompts), _PROMPTS.name, request.app[MEMORY].settings.max_inputs)
    options = _semantic_options(body, _PROMPTS)
    model, embedded = await _embed(request, body.model, body.prompts, options)
    answer: EmbeddingsAnswer = {
        "model_version": model.spec.name,
        "embeddings": list(embedded.vectors),
        "num_tokens_prompt_total": embedded.token_count,
    }
    response = json_response(answer)
    add_notes(request, response, model, embedded, options.dimensions)
    return response


async def instructable_embed(request: web.Request) -> web.Response:
    """Embed a prompt for what an instruction says; an empty one is none."""
    body = await read_peer_body(request, InstructableEmbedBody)
    options = EmbedOptions(
        instruction=body.instruction or None,
        norm=_norm(body.normalize),
        field=single_field("input"),
    )
    return await _answer_with_one(request, body.model, body.input, options)


def _semantic_options(body: _SemanticBody, field: InputField) -> EmbedOptions:
    return EmbedOptions(
        prompt=None if body.representation == "symmetric" else body.representation,
        dimensions=body.compress_to_size,
        norm=_norm(body.normalize),
        field=field,
    )


def _norm(is_normalized: bool | None) -> int:
    return EUCLIDEAN if is_normalized else NOT_NORMALIZED


def _inputs(prompts: Sequence[str | list[Item]], field: InputField) -> list[Input]:
    return [_input(prompt, field.item_name(at)) for at, prompt in enumerate(prompts)]


def _input(prompt: str | list[Item], param: str) -> Input:
    """Return a prompt as the model takes it: its parts put together."""
    if isinstance(prompt, str):
        return prompt
    parts: list[int | str] = []
    for index, item in enumerate(prompt):
        at = f"{param}[{index}]"
        if isinstance(item, ImageItem):
            raise NotTextError(at)
        if item.controls:
            message = "attention can't be controlled here: leave controls empty"
            raise InvalidInputError(message, f"{at}.controls")
        parts += [item.data] if isinstance(item, TextItem) else item.data
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if len(texts) == len(parts) else parts


async def _answer_with_one(
    request: web.Request, name: str | None, prompt: str | list[Item], options: EmbedOptions
) -> web.Response:
    model, embedded = await _embed(request, name, [prompt], options)
    answer: EmbeddingAnswer = {
        "model_version": model.spec.name,
        "embedding": embedded.vectors[0],
        "num_tokens_prompt_total": embedded.token_count,
    }
    response = json_response(answer)
    add_notes(request, response, model, embedded, options.dimensions)
    return response


async def _embed(
    request: web.Request,
    name: str | None,
    prompts: Sequence[str | list[Item]],
    options: EmbedOptions,
) -> tuple[EmbeddingModel, Embeddings]:
    memory = request.app[MEMORY]
    name = name or memory.settings.model
    parts = await apart(request, _inputs, prompts, options.field)
    inputs = await read_token_ids(memory.settings, name, parts, options.field)
    async with memory.engine.using(name) as model:
        check_dimensions(memory, model, options.dimensions, "compress_to_size")
        return model, await embed(memory, model, inputs, options)
