"""OpenAI's dialect (platform.openai.com/docs/api-reference/embeddings)."""

import base64
from typing import Any

import numpy as np
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from memoryd.api.bodies import parse, read_lenient_json
from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError
from memoryd.memory.embed import embed
from memoryd.memory.state import Memory
from memoryd.vectors.types import Vectors


class EmbeddingsBody(BaseModel):
    """What /v1/embeddings takes; other fields are ignored, null is absent."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: str | None = None
    input: Any = None
    encoding_format: str | None = None
    dimensions: int | None = None
    truncate: bool | None = None


async def embeddings(request: web.Request) -> web.Response:
    """POST /v1/embeddings."""
    memory = request.app[MEMORY]
    body = parse(EmbeddingsBody, await read_lenient_json(request))
    texts = _texts(memory, body.input)
    if not body.model:
        raise MissingFieldError("you must provide a model parameter", "model")
    encoding = _encoding(body.encoding_format)
    model = await memory.engine.model(body.model)
    dimensions = _dimensions(body.dimensions, model.dimensions)
    embedded = await embed(
        memory, body.model, texts, truncate=body.truncate is not False, dimensions=dimensions
    )
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
    response.headers["X-Truncated-Inputs"] = str(embedded.truncated)
    return response


def _texts(memory: Memory, value: Any) -> list[str]:
    if value is None:
        raise MissingFieldError("input is required", "input")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise InvalidInputError("input must be a string or a list of strings", "input")
    if len(texts) > memory.settings.max_inputs:
        raise TooLargeError(
            f"input has {len(texts)} items, more than max_inputs = {memory.settings.max_inputs}",
            "input",
        )
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(
                f"input[{index}] is not a string; token ids are not served: with LangChain, pass "
                "check_embedding_ctx_length=False",
                f"input[{index}]",
            )
    return texts


def _encoding(given: str | None) -> str:
    encoding = (given or "float").lower()
    if encoding not in ("float", "base64"):
        raise InvalidInputError(
            f"Invalid value for 'encoding_format' = {given}. "
            "Supported values: ['float', 'base64'].",
            "encoding_format",
        )
    return encoding


def _dimensions(given: int | None, native: int) -> int | None:
    if given is not None and not 1 <= given <= native:
        raise InvalidInputError(f"dimensions must be from 1 to {native}", "dimensions")
    return given


def _base64(vectors: Vectors) -> list[str]:
    """Return each row as little-endian float32 in base64."""
    little = np.ascontiguousarray(vectors, dtype="<f4")
    return [base64.b64encode(row).decode("ascii") for row in little]
