"""OpenAI's dialect (platform.openai.com/docs/api-reference/embeddings)."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from aiohttp import web

from memoryd.api.bodies import PeerBody, parse, read_lenient_json
from memoryd.api.embedding import add_notes, refuse_images
from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.embeddings.types import Input
from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError
from memoryd.memory.embed import MAX_PADDED_DIMENSIONS, EmbedOptions, embed
from memoryd.memory.state import Memory
from memoryd.models.catalog import OPENAI_NAMES
from memoryd.vectors.types import Vectors


class EmbeddingsBody(PeerBody):
    """What /v1/embeddings takes; other fields are ignored, null is absent."""

    model: str | None = None
    input: Any = None
    encoding_format: str | None = None
    dimensions: int | None = None
    truncate: bool | None = None
    prompt_name: str | None = None
    instruction: str | None = None


async def embeddings(request: web.Request) -> web.Response:
    """POST /v1/embeddings."""
    memory = request.app[MEMORY]
    body = parse(EmbeddingsBody, await read_lenient_json(request))
    refuse_images(body.input)
    inputs = _inputs(memory, body.input)
    if not body.model:
        raise MissingFieldError("you must provide a model parameter", "model")
    if body.model.strip().lower() in OPENAI_NAMES:
        _refuse_tokens(body.model, inputs)
    encoding = _encoding(body.encoding_format)
    async with memory.engine.using(body.model) as model:
        most = MAX_PADDED_DIMENSIONS if memory.settings.pad_dimensions else model.dimensions
        options = EmbedOptions(
            truncate=body.truncate is not False,
            dimensions=_dimensions(body.dimensions, most),
            prompt=body.prompt_name,
            instruction=body.instruction,
        )
        embedded = await embed(memory, model, inputs, options)
    rows = _base64(embedded.vectors) if encoding == "base64" else list(embedded.vectors)
    response = json_response(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": row}
                for index, row in enumerate(rows)
            ],
            "model": body.model,
            "usage": {
                "prompt_tokens": embedded.token_count,
                "total_tokens": embedded.token_count,
            },
        }
    )
    add_notes(request, response, model, embedded, options.dimensions)
    return response


def _inputs(memory: Memory, value: Any) -> list[Input]:
    """Return the inputs: a text or a list of them, token ids, lists of ids, or mixed prompts."""
    if value is None:
        raise MissingFieldError("input is required", "input")
    inputs = [value] if _is_one_input(value) else value
    if not isinstance(inputs, list) or not inputs:
        raise InvalidInputError("input must be a string or a list of strings", "input")
    if len(inputs) > memory.settings.max_inputs:
        raise TooLargeError(
            f"input has {len(inputs)} items, more than max_inputs = {memory.settings.max_inputs}",
            "input",
        )
    for index, item in enumerate(inputs):
        if not _is_one_input(item):
            raise InvalidInputError(
                f"input[{index}] must be a string or a list of token ids", f"input[{index}]"
            )
    return inputs


def _refuse_tokens(model: str, inputs: Sequence[Input]) -> None:
    """Refuse ids that are OpenAI's: as those of the model behind the name they mean other words."""
    for index, item in enumerate(inputs):
        if not isinstance(item, str):
            raise InvalidInputError(
                f"input[{index}] has token ids of {model}, which mean other words to the model "
                "behind that name. With LangChain's OpenAIEmbeddings pass "
                "check_embedding_ctx_length=False, so that it sends texts",
                f"input[{index}]",
            )


def _is_one_input(value: Any) -> bool:
    """Say whether `value` is a text, or a list that has ids in it and so is one input."""
    if isinstance(value, str):
        return True
    return (
        isinstance(value, list)
        and all(map(_is_text_or_id, value))
        and not all(isinstance(part, str) for part in value)
    )


def _is_text_or_id(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _encoding(given: str | None) -> str:
    encoding = (given or "float").lower()
    if encoding not in ("float", "base64"):
        raise InvalidInputError(
            f"Invalid value for 'encoding_format' = {given}. "
            "Supported values: ['float', 'base64'].",
            "encoding_format",
        )
    return encoding


def _dimensions(given: int | None, most: int) -> int | None:
    if given is not None and not 1 <= given <= most:
        raise InvalidInputError(f"dimensions must be from 1 to {most}", "dimensions")
    return given


def _base64(vectors: Vectors) -> list[str]:
    """Return each row as little-endian float32 in base64."""
    little = np.ascontiguousarray(vectors, dtype="<f4")
    return [base64.b64encode(row).decode("ascii") for row in little]
