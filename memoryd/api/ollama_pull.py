"""POST /api/pull of Ollama: a model is fetched, and each step is told in a line of JSON."""

import asyncio
import hashlib
import logging
from contextlib import suppress
from typing import NotRequired

import orjson
from aiohttp import web
from typing_extensions import TypedDict

from memoryd.api.errors import json_response
from memoryd.api.notes import NOTES
from memoryd.api.ollama_requests import NamedModelBody, read_body, telling_not_found
from memoryd.api.state import MEMORY
from memoryd.errors import InvalidInputError, MemorydError
from memoryd.memory.model_changes import BroughtModel, parse_pullable, pull_model
from memoryd.memory.models import ModelLoader
from memoryd.models.downloads import FETCHING

logger = logging.getLogger(__name__)


class PullBody(NamedModelBody):
    """What /api/pull takes."""

    stream: bool | None = None


class PullLine(TypedDict):
    """Tell of a step, or of bytes that have come; the last status is `success`."""

    status: NotRequired[str]
    digest: NotRequired[str]
    total: NotRequired[int]
    completed: NotRequired[int]
    error: NotRequired[str]


Lines = asyncio.Queue[PullLine | None]


async def pull(request: web.Request) -> web.StreamResponse:
    """Fetch a model, telling each step in a line of JSON.

    A client that leaves stops the download, unless others wait for it too; what has come is kept,
    and the next pull goes on from there.
    """
    body = await read_body(request, PullBody)
    name = body.either
    _check_source(name)
    loader = ModelLoader.of(request.app[MEMORY].settings)
    with telling_not_found(
        f"pull model manifest: file does not exist: memoryd knows no model {name!r}. Others of the "
        "hub are named hf.co/organization/repository"
    ):
        if body.stream is False:
            await pull_model(loader, name)
            answer: PullLine = {"status": "success"}
            return json_response(answer)
        return await _stream(request, loader, name)


def _check_source(name: str) -> None:
    try:
        parse_pullable(name)
    except InvalidInputError as error:
        raise InvalidInputError(f"invalid model name: {error.message}", "model") from error


async def _stream(request: web.Request, loader: ModelLoader, name: str) -> web.StreamResponse:
    lines: Lines = asyncio.Queue()
    pulling = asyncio.create_task(
        pull_model(loader, name, progress=lambda *step: lines.put_nowait(progress_line(*step)))
    )
    pulling.add_done_callback(lambda _: lines.put_nowait(None))
    try:
        line = await lines.get()
        if line is None:
            pulling.result()  # What fails before there is anything to tell has a status of its own.
        return await _send(request, line, lines, pulling)
    finally:
        pulling.cancel()
        await asyncio.wait([pulling])


async def _send(
    request: web.Request, line: PullLine | None, lines: Lines, pulling: asyncio.Task[BroughtModel]
) -> web.StreamResponse:
    headers = {"Content-Type": "application/x-ndjson", "X-Request-Id": request[NOTES].id}
    response = web.StreamResponse(headers=headers)
    with suppress(ConnectionResetError):  # the client has left
        await response.prepare(request)
        await response.write(_encode({"status": "pulling manifest"}))
        while line is not None:
            await response.write(_encode(line))
            line = await lines.get()
        await response.write(_encode(_last_line(request, pulling)))
        await response.write_eof()
    return response


def _encode(line: PullLine) -> bytes:
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _last_line(request: web.Request, pulling: asyncio.Task[BroughtModel]) -> PullLine:
    error = pulling.exception()
    if error is None:
        return {"status": "success"}
    if isinstance(error, MemorydError):
        return {"error": error.message}
    logger.error("request %s failed", request[NOTES].id, exc_info=error)
    return {"error": f"memoryd failed at this request: see its log for {request[NOTES].id}"}


def progress_line(step: str, done_bytes: int, total_bytes: int | None) -> PullLine:
    """Return what clients of Ollama are told of a step.

    They tell files apart by their digest, which nobody knows before a file has come: it is that of
    the file's name.
    """
    if not step.startswith(FETCHING):
        return {"status": step}
    file = step.removeprefix(FETCHING)
    digest = f"sha256:{hashlib.sha256(file.encode()).hexdigest()}"
    line: PullLine = {"status": f"pulling {file}", "digest": digest, "completed": done_bytes}
    if total_bytes is not None:
        line["total"] = total_bytes
    return line
