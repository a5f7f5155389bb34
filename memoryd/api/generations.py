"""Routes of a collection's models: the one that is searched, and the one before."""

from typing import Any

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from memoryd.api.bodies import Body, parse, read_json
from memoryd.api.collections import (
    ChunkingBody,
    GenerationAnswer,
    collection_answer,
    find,
    generation_answer,
)
from memoryd.api.errors import json_response
from memoryd.api.fields import NotBlank
from memoryd.api.jobs import JobAnswer, job_answer
from memoryd.api.state import MEMORY
from memoryd.documents.types import Chunking, Precision
from memoryd.memory import collections, reembedding
from memoryd.memory.reembedding import ModelChange


class ModelBody(Body):
    """How a collection is to be embedded.

    What is absent stays, as far as it is not another model's. Null asks for the model's own.
    """

    model: str
    dimensions: int | None = Field(None, gt=0)
    precision: Precision | None = None
    chunking: ChunkingBody | None = None
    instruction: NotBlank | None = None


class ModelChangeAnswer(TypedDict):
    """The job that builds what takes the active model's place."""

    job: JobAnswer


class GenerationDroppedAnswer(TypedDict):
    """What the collection can't go back to any more."""

    deleted: GenerationAnswer


async def change_model(request: web.Request) -> web.Response:
    """Embed a collection anew, beside the vectors that are searched meanwhile."""
    memory = request.app[MEMORY]
    collection = await find(request)
    body = parse(ModelBody, await read_json(request))
    job = await reembedding.change_model(memory, collection, _change(body))
    answer: ModelChangeAnswer = {"job": job_answer(job)}
    return json_response(answer, status=202)


def _change(body: ModelBody) -> ModelChange:
    given: dict[str, Any] = body.model_dump(include={"model", "precision"}, exclude_none=True)
    given |= {
        name: getattr(body, name)
        for name in ("dimensions", "instruction")
        if name in body.model_fields_set
    }
    if body.chunking is not None:
        given["chunking"] = Chunking(**body.chunking.model_dump())
    return ModelChange(**given)


async def roll_back(request: web.Request) -> web.Response:
    """Search the vectors of the model before again; what was written since is there too."""
    memory = request.app[MEMORY]
    collection = await reembedding.roll_back(memory, await find(request))
    return json_response(collection_answer(await collections.describe(memory, collection)))


async def drop_previous(request: web.Request) -> web.Response:
    """Delete the vectors of the model before: there is no going back to it any more."""
    dropped = await reembedding.drop_previous(request.app[MEMORY], await find(request))
    answer: GenerationDroppedAnswer = {"deleted": generation_answer(dropped)}
    return json_response(answer)
