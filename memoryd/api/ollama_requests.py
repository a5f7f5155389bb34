"""What requests in Ollama's dialect have in common: how bodies are read and models are named."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BeforeValidator, WithJsonSchema

from memoryd.api.bodies import PeerBody, apart, parse, read_lenient_json
from memoryd.api.durations import parse_keep_alive
from memoryd.embeddings.model import EmbeddingModel
from memoryd.errors import InvalidInputError, ModelNotFoundError, NotFoundError
from memoryd.memory.state import Memory
from memoryd.models.gallery import is_name
from memoryd.models.sources import MAX_NAME_CHARS

B = TypeVar("B", bound=PeerBody)

KeepAlive = Annotated[
    float | None,
    BeforeValidator(parse_keep_alive),
    WithJsonSchema(
        {
            "type": ["number", "string", "null"],
            "description": 'Seconds, or a duration such as "5m"; negative: for ever; 0: it leaves.',
        }
    ),
]
"""How many seconds a model stays after its last use, -1 for ever, None as the settings say."""


class NamedModelBody(PeerBody):
    """What names a model; older clients call it `name`."""

    model: str | None = None
    name: str | None = None

    @property
    def either(self) -> str:
        """The name, empty where there is none."""
        return self.model or self.name or ""


async def read_body(request: web.Request, kind: type[B]) -> B:
    """Return the checked body; its keys match whatever their case, as Go's decoder has it."""
    value = await read_lenient_json(request)
    return await apart(request, parse, kind, _fold_keys(value))


def _fold_keys(value: Any) -> Any:
    return {key.lower(): item for key, item in value.items()} if isinstance(value, dict) else value


def is_model_name(name: str) -> bool:
    """Say whether `name` can be a model's, with or without spaces around it."""
    return len(name.strip()) <= MAX_NAME_CHARS and is_name(name.strip())


def check_model_name(name: str) -> None:
    """Raise InvalidInputError in Ollama's words for what can't be a model's name."""
    if not is_model_name(name):
        raise InvalidInputError("invalid model name", "model")


@contextmanager
def telling_not_found(message: str) -> Iterator[None]:
    """Say of a model that isn't known, or isn't here, what Ollama says of it on this route."""
    try:
        yield
    except ModelNotFoundError as error:
        raise NotFoundError(message, "model") from error


def unload(memory: Memory, name: str) -> None:
    """Let the model that the client calls `name` leave, as Engine.expire does."""
    memory.engine.expire(memory.engine.resolve(name))


@asynccontextmanager
async def using(
    memory: Memory, name: str, keep_alive_s: float | None
) -> AsyncIterator[EmbeddingModel]:
    """Give the model during the block, as Engine.using does, and call it as the client did."""
    try:
        async with memory.engine.using(name, keep_alive_s) as model:
            yield model
    except ModelNotFoundError as error:
        raise ModelNotFoundError(name) from error
