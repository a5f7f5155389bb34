"""OpenAI's dialect (platform.openai.com/docs/api-reference/embeddings)."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from aiohttp import web
from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from memoryd.api.bodies import PeerBody, apart, read_peer_body
from memoryd.api.embedding import add_notes
from memoryd.api.errors import json_response
from memoryd.api.fields import NUMBERS
from memoryd.api.inputs import Inputs, check_count, read_inputs
from memoryd.api.notes import NOTES, hash_user
from memoryd.api.state import MEMORY
from memoryd.embeddings.model import EmbeddingModel, Embeddings
from memoryd.embeddings.types import Input
from memoryd.errors import InvalidInputError, MissingFieldError
from memoryd.memory.embed import EmbedOptions, check_dimensions, embed
from memoryd.memory.state import Memory
from memoryd.memory.token_ids import read_token_ids
from memoryd.vectors.types import Vectors

Encoding = Literal["float", "base64"]

_BASE64 = {"type": "string", "contentEncoding": "base64"}


class EmbeddingsBody(PeerBody):
    """What /v1/embeddings takes; other fields are ignored, null is absent."""

    model: str | None = None
    input: Inputs = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    truncate: bool | None = None
    prompt_name: str | None = None
    instruction: str | None = None


class EmbeddingObject(TypedDict):
    """The vector of the input at `index`."""

    object: Literal["embedding"]
    index: int
    embedding: Annotated[Any, WithJsonSchema({"anyOf": [NUMBERS, _BASE64]})]


class Usage(TypedDict):
    """Tokens that the model saw: special ones included, after truncation."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    """A vector for each input, and what they cost; `model` is the name that was asked for."""

    object: Literal["list"]
    data: list[EmbeddingObject]
    model: str
    usage: Usage


async def embeddings(request: web.Request) -> web.Response:
    """Embed texts, or the ids of their tokens; a model in the path comes before the body's."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, EmbeddingsBody)
    request[NOTES].user = hash_user(body.user) if body.user else ""
    inputs = await apart(request, _inputs, memory, body.input)
    name = request.match_info.get("model") or body.model
    if not name:
        raise MissingFieldError("you must provide a model parameter", "model")
    encoding = _encoding(body.encoding_format)
    inputs = await read_token_ids(memory.settings, name, inputs)
    async with memory.engine.using(name) as model:
        options = _options(memory, model, body)
        embedded = await embed(memory, model, inputs, options)
    response = json_response(_answer(name, embedded, encoding))
    add_notes(request, response, model, embedded, options.dimensions)
    return response


def _options(memory: Memory, model: EmbeddingModel, body: EmbeddingsBody) -> EmbedOptions:
    return EmbedOptions(
        truncate=body.truncate is not False,
        dimensions=check_dimensions(memory, model, body.dimensions),
        prompt=body.prompt_name,
        instruction=body.instruction,
    )


def _answer(name: str, embedded: Embeddings, encoding: Encoding) -> EmbeddingList:
    rows = _base64(embedded.vectors) if encoding == "base64" else embedded.vectors
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": row}
            for index, row in enumerate(rows)
        ],
        "model": name,
        "usage": {"prompt_tokens": embedded.token_count, "total_tokens": embedded.token_count},
    }


def _inputs(memory: Memory, value: Any) -> Sequence[Input]:
    """Return the inputs: a text or a list of them, token ids, lists of ids, or mixed prompts."""
    if value is None:
        raise MissingFieldError("input is required", "input")
    inputs = read_inputs(value, "input")
    check_count(len(inputs), "input", memory.settings.max_inputs)
    return inputs


def _encoding(given: str | None) -> Encoding:
    match (given or "float").lower():
        case "float":
            return "float"
        case "base64":
            return "base64"
    raise InvalidInputError(
        f"Invalid value for 'encoding_format' = {given}. Supported values: ['float', 'base64'].",
        "encoding_format",
    )


def _base64(vectors: Vectors) -> list[str]:
    """Return each row as little-endian float32 in base64."""
    little = np.ascontiguousarray(vectors, dtype="<f4")
    return [base64.b64encode(row).decode("ascii") for row in little]
