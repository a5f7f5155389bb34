"""Ollama's routes that generate: here they load and unload models, and refuse the rest."""

from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from typing_extensions import TypedDict

from memoryd.api.bodies import PeerBody
from memoryd.api.errors import json_response
from memoryd.api.ollama_requests import (
    KeepAlive,
    check_model_name,
    read_body,
    telling_not_found,
    unload,
    using,
)
from memoryd.api.state import MEMORY
from memoryd.errors import GenerationError, MissingFieldError, NotFoundError
from memoryd.memory.state import Memory

Reason = Literal["load", "unload"]


class GenerateBody(PeerBody):
    """What /api/generate takes; a prompt or images are refused."""

    model: str | None = None
    prompt: str | None = None
    images: list[Any] | None = None
    keep_alive: KeepAlive = None


class ChatBody(PeerBody):
    """What /api/chat takes; messages are refused."""

    model: str | None = None
    messages: list[Any] | None = None
    keep_alive: KeepAlive = None


class GenerateAnswer(TypedDict):
    """Say what became of a model."""

    model: str
    created_at: str
    response: Literal[""]
    done: Literal[True]
    done_reason: Reason


class ChatMessage(TypedDict):
    """Say nothing, in the place of a model."""

    role: Literal["assistant"]
    content: Literal[""]


class ChatAnswer(TypedDict):
    """Say what became of a model."""

    model: str
    created_at: str
    message: ChatMessage
    done: Literal[True]
    done_reason: Reason


async def generate(request: web.Request) -> web.Response:
    """Load or unload a model; a prompt is refused."""
    body = await read_body(request, GenerateBody)
    if body.prompt or body.images:
        raise GenerationError("prompt" if body.prompt else "images")
    if not body.model:
        raise NotFoundError("model '' not found", "model")
    reason = await _load_or_unload(request.app[MEMORY], body.model, body.keep_alive)
    answer: GenerateAnswer = {
        "model": body.model,
        "created_at": _now(),
        "response": "",
        "done": True,
        "done_reason": reason,
    }
    return json_response(answer)


async def chat(request: web.Request) -> web.Response:
    """Load or unload a model; messages are refused."""
    body = await read_body(request, ChatBody)
    if body.messages:
        raise GenerationError("messages")
    if not body.model:
        raise MissingFieldError("model is required", "model")
    reason = await _load_or_unload(request.app[MEMORY], body.model, body.keep_alive)
    answer: ChatAnswer = {
        "model": body.model,
        "created_at": _now(),
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": reason,
    }
    return json_response(answer)


async def _load_or_unload(memory: Memory, name: str, keep_alive_s: float | None) -> Reason:
    check_model_name(name)
    with telling_not_found(f"model '{name}' not found"):
        if keep_alive_s == 0:
            unload(memory, name)
            return "unload"
        async with using(memory, name, keep_alive_s):
            return "load"


def _now() -> str:
    return datetime.now(UTC).isoformat()
