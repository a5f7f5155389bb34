"""Embeddings in Ollama's dialect (server/routes.go and api/types.go of Ollama)."""

import time
from typing import Annotated, Any, NotRequired

from aiohttp import web
from pydantic import AfterValidator, WithJsonSchema
from typing_extensions import TypedDict

from memoryd.api.bodies import PeerBody, apart
from memoryd.api.embedding import add_notes, refuse_images
from memoryd.api.errors import json_response
from memoryd.api.fields import TEXT, Numbers, Rows
from memoryd.api.inputs import are_texts
from memoryd.api.ollama_requests import KeepAlive, check_model_name, read_body, unload, using
from memoryd.api.state import MEMORY
from memoryd.embeddings.model import EmbeddingModel
from memoryd.embeddings.types import single_field
from memoryd.errors import (
    InvalidInputError,
    MissingFieldError,
    ModelFileError,
    ModelNotFoundError,
    NotFoundError,
    NotTextError,
)
from memoryd.memory.embed import EmbedOptions
from memoryd.memory.embed import embed as embed_texts
from memoryd.memory.state import Memory
from memoryd.memory.stored_models import find_own_header
from memoryd.models.gguf_header import GgufHeader
from memoryd.vectors.similarity import EUCLIDEAN, NOT_NORMALIZED

# Of the options that concern embeddings; others are for generating, and ignored as unknown ones.
_INTEGERS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread")
_BOOLEANS = ("use_mmap",)

_TEXTS = {"anyOf": [TEXT, {"type": "array", "items": TEXT}, {"type": "null"}]}


def _check_options(options: dict[str, Any]) -> dict[str, Any]:
    for name in (*_INTEGERS, *_BOOLEANS):
        value, kind = options.get(name), "integer" if name in _INTEGERS else "boolean"
        fits = _is_integer(value) if name in _INTEGERS else isinstance(value, bool)
        if value is not None and not fits:
            raise InvalidInputError(f'option "{name}" must be of type {kind}', f"options.{name}")
    return options


def _is_integer(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


Options = Annotated[dict[str, Any], AfterValidator(_check_options)]


class EmbedBody(PeerBody):
    """What /api/embed takes."""

    model: str | None = None
    input: Annotated[Any, WithJsonSchema(_TEXTS)] = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None
    prompt_name: str | None = None
    instruction: str | None = None
    images: Annotated[Any, WithJsonSchema({"type": ["array", "null"], "maxItems": 0})] = None


class EmbeddingsBody(PeerBody):
    """What /api/embeddings takes."""

    model: str | None = None
    prompt: str | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None


class EmbedAnswer(TypedDict):
    """Vectors of length 1, in the order of the inputs; durations are in nanoseconds."""

    model: str
    """As the client wrote it."""
    embeddings: Rows
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    """Tokens that the model saw, special ones included."""


class EmbeddingsAnswer(TypedDict):
    """A vector as the model gives it; empty where there was no prompt."""

    embedding: Numbers


async def embed(request: web.Request) -> web.Response:
    """Embed texts; without any, load or unload a model."""
    started = time.perf_counter_ns()
    memory = request.app[MEMORY]
    body = await read_body(request, EmbedBody)
    if not body.model:
        raise NotFoundError("model '' not found", "model")
    check_model_name(body.model)
    texts = await apart(request, _texts, body)
    if not texts and body.keep_alive == 0:
        unload(memory, body.model)
        return _without_texts({"model": body.model, "embeddings": []})
    asked = time.perf_counter_ns()
    async with using(memory, body.model, body.keep_alive) as model:
        loaded = time.perf_counter_ns()
        if not texts:
            return _without_texts({"model": body.model, "embeddings": []})
        options = _options(body, model, is_padded=memory.settings.pad_dimensions)
        _refuse_nothing(texts, model, options)
        embeddings = await embed_texts(memory, model, texts, options)
    answer: EmbedAnswer = {
        "model": body.model,
        "embeddings": embeddings.vectors,
        "total_duration": time.perf_counter_ns() - started,
        "load_duration": loaded - asked,
        "prompt_eval_count": embeddings.token_count,
    }
    response = json_response(answer)
    add_notes(request, response, model, embeddings, options.dimensions)
    return response


async def embed_prompt(request: web.Request) -> web.Response:
    """Embed one text, uncut, for older clients; without any, load or unload a model."""
    memory = request.app[MEMORY]
    body = await read_body(request, EmbeddingsBody)
    if not body.model:
        raise MissingFieldError("model is required", "model")
    check_model_name(body.model)
    if not body.prompt and body.keep_alive == 0:
        unload(memory, body.model)
        return _without_texts({"embedding": []})
    async with using(memory, body.model, body.keep_alive) as model:
        if not body.prompt:
            return _without_texts({"embedding": []})
        norm = NOT_NORMALIZED if await _gave_raw_vectors(memory, model) else EUCLIDEAN
        options = EmbedOptions(
            truncate=False,
            max_tokens=_context(body.options),
            norm=norm,
            field=single_field("prompt"),
        )
        embeddings = await embed_texts(memory, model, [body.prompt], options)
    answer: EmbeddingsAnswer = {"embedding": embeddings.vectors[0]}
    response = json_response(answer)
    add_notes(request, response, model, embeddings, options.dimensions)
    return response


def _without_texts(answer: EmbedAnswer | EmbeddingsAnswer) -> web.Response:
    """Answer who only wanted to load or unload a model."""
    response = json_response(answer)
    response.headers["X-Truncated-Inputs"] = "0"
    return response


def _texts(body: EmbedBody) -> list[str]:
    if body.images:
        raise NotTextError("images")
    if body.input is None or body.input == "":
        return []
    texts = [body.input] if isinstance(body.input, str) else body.input
    refuse_images(texts)
    if not are_texts(texts):
        raise InvalidInputError("invalid input type", "input")
    return texts


def _options(body: EmbedBody, model: EmbeddingModel, *, is_padded: bool) -> EmbedOptions:
    context = _context(body.options)
    if context is not None and context <= model.special_tokens:
        message = "input after truncation exceeds maximum context length"
        raise InvalidInputError(message, "options.num_ctx")
    return EmbedOptions(
        truncate=body.truncate is not False,
        dimensions=_dimensions(body.dimensions, model.dimensions, is_padded=is_padded),
        max_tokens=context,
        prompt=body.prompt_name,
        instruction=body.instruction,
    )


def _dimensions(wanted: int | None, native: int, *, is_padded: bool) -> int | None:
    """Return a width that isn't the model's own, None for what is ignored."""
    if wanted is None or wanted <= 0 or (wanted >= native and not is_padded):
        return None
    return wanted


def _context(options: dict[str, Any] | None) -> int | None:
    """Return options.num_ctx, an upper bound on what an input may have, None for none."""
    context = (options or {}).get("num_ctx")
    return int(context) if context is not None and context > 0 else None


def _refuse_nothing(texts: list[str], model: EmbeddingModel, options: EmbedOptions) -> None:
    """Raise InvalidInputError for an empty text of which a model would see no token at all."""
    has_prefix = bool(model.prefix(options.prompt, options.instruction))
    if "" in texts and not model.special_tokens and not has_prefix:
        message = "input exceeds maximum context length and cannot be truncated further"
        raise InvalidInputError(message, f"input[{texts.index('')}]")


async def _gave_raw_vectors(memory: Memory, model: EmbeddingModel) -> bool:
    """Say whether Ollama's clients know vectors of this model from here that aren't normalized."""
    try:
        header = await find_own_header(memory.loader, model.spec.name)
    except (ModelNotFoundError, ModelFileError):  # it has gone since it was loaded
        return False
    return is_raw(header)


def is_raw(header: GgufHeader) -> bool:
    """Say whether /api/embeddings of Ollama gives a model's vectors at the length they come with.

    Source: legacyEmbeddingsWereRaw in llm/llama_server.go of Ollama.
    """
    if header.own("pooling_type") is None:
        return False
    normalizes = header.own("normalize_embeddings")
    match header.architecture:
        case "bert":
            is_wordpiece = header.values.get("tokenizer.ggml.model", "bert") == "bert"
            return not is_wordpiece or normalizes is False
        case "nomic-bert" | "nomic-bert-moe":
            return normalizes is not True
        case _:
            return False
