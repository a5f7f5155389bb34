"""Ollama's dialect (server/routes.go, api/types.go)."""

import time
from typing import Any

from aiohttp import web

from memoryd.api.bodies import PeerBody, parse, read_lenient_json
from memoryd.api.durations import parse_keep_alive
from memoryd.api.embedding import add_notes, refuse_images
from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.embeddings.model import EmbeddingModel
from memoryd.errors import InvalidInputError, NotFoundError
from memoryd.memory.embed import EmbedOptions
from memoryd.memory.embed import embed as embed_texts


class EmbedBody(PeerBody):
    """What /api/embed takes; other fields are ignored, null is absent."""

    model: str | None = None
    input: Any = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None
    prompt_name: str | None = None
    instruction: str | None = None


async def embed(request: web.Request) -> web.Response:
    """POST /api/embed."""
    started = time.perf_counter_ns()
    memory = request.app[MEMORY]
    body = parse(EmbedBody, _fold_keys(await read_lenient_json(request)))
    texts = _texts(body.input)
    if not body.model:
        raise NotFoundError("model '' not found", "model")
    keep_alive_s = parse_keep_alive(body.keep_alive)
    if not texts and keep_alive_s == 0:  # it unloads the model, and nothing else
        memory.engine.expire(body.model)
        return json_response({"model": body.model, "embeddings": []})
    asked = time.perf_counter_ns()
    async with memory.engine.using(body.model, keep_alive_s) as model:
        loaded = time.perf_counter_ns()
        if not texts:  # it loads the model, and nothing else
            return json_response({"model": body.model, "embeddings": []})
        options = _options(body, model)
        embeddings = await embed_texts(memory, model, texts, options)
    response = json_response(
        {
            "model": body.model,
            "embeddings": embeddings.vectors,
            "total_duration": time.perf_counter_ns() - started,
            "load_duration": loaded - asked,
            "prompt_eval_count": embeddings.token_count,
        }
    )
    add_notes(request, response, model, embeddings, options.dimensions)
    return response


def _options(body: EmbedBody, model: EmbeddingModel) -> EmbedOptions:
    return EmbedOptions(
        truncate=body.truncate is not False,
        dimensions=body.dimensions if body.dimensions and body.dimensions > 0 else None,
        max_tokens=_context(body.options, model.special_tokens),
        prompt=body.prompt_name,
        instruction=body.instruction,
    )


def _fold_keys(value: Any) -> Any:
    """Let `Model` be `model`: Go matches keys whatever their case."""
    return {key.lower(): item for key, item in value.items()} if isinstance(value, dict) else value


def _texts(value: Any) -> list[str]:
    if value is None or value == "":
        return []
    texts = [value] if isinstance(value, str) else value
    refuse_images(texts)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError("invalid input type", "input")
    return texts


def _context(options: dict[str, Any] | None, special_tokens: int) -> int | None:
    """Return options.num_ctx, an upper bound on what an input may have."""
    context = (options or {}).get("num_ctx")
    if context is None:
        return None
    if not isinstance(context, int) or isinstance(context, bool):
        raise InvalidInputError('option "num_ctx" must be of type integer', "options.num_ctx")
    if context <= 0:
        return None
    if context <= special_tokens:
        message = "input after truncation exceeds maximum context length"
        raise InvalidInputError(message, "options.num_ctx")
    return context
