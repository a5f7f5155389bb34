"""POST /api/pull of Ollama: a model is fetched, and each step is told in a line of JSON."""

import asyncio
import hashlib
import logging
from contextlib import suppress
from functools import lru_cache
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

# Between lines of the same file: a chunk comes each few milliseconds.
_PAUSE_S = 0.1


NDJSON = "application/x-ndjson"
"""In which progress is told: an object in each line."""


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


class News:
    """Hold what is to be told of a download: of each step, and of each file, the newest alone."""

    def __init__(self) -> None:
        """Begin with nothing to tell."""
        self._steps: dict[str, tuple[int, int | None]] = {}
        self._is_there = asyncio.Event()
        self._has_ended = False

    def note(self, step: str, done_bytes: int, total_bytes: int | None) -> None:
        """Note how far a step is, in place of what was noted of it and isn't told yet."""
        self._steps[step] = done_bytes, total_bytes
        self._is_there.set()

    def end(self) -> None:
        """Let no one wait for more."""
        self._has_ended = True
        self._is_there.set()

    async def take(self) -> list[PullLine]:
        """Return what is new, once there is something; nothing where nothing comes any more."""
        await self._is_there.wait()
        if not self._has_ended:
            self._is_there.clear()
        steps, self._steps = self._steps, {}
        return [progress_line(step, *state) for step, state in steps.items()]


async def pull(request: web.Request) -> web.StreamResponse:
    """Fetch a model, telling each step in a line of JSON.

    A client that leaves stops the download, unless others wait for it too; what has come is kept,
    and the next pull goes on from there.
    """
    body = await read_body(request, PullBody)
    name = body.either
    _check_source(name)
    loader = request.app[MEMORY].loader
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
    news = News()
    pulling = asyncio.create_task(pull_model(loader, name, progress=news.note))
    pulling.add_done_callback(lambda _: news.end())
    try:
        lines = await news.take()
        if not lines:
            pulling.result()  # What fails before there is anything to tell has a status of its own.
        return await _send(request, lines, news, pulling)
    finally:
        pulling.cancel()
        await asyncio.wait([pulling])


async def _send(
    request: web.Request, lines: list[PullLine], news: News, pulling: asyncio.Task[BroughtModel]
) -> web.StreamResponse:
    headers = {"Content-Type": NDJSON, "X-Request-Id": request[NOTES].id}
    response = web.StreamResponse(headers=headers)
    with suppress(ConnectionResetError):  # the client has left
        await response.prepare(request)
        await response.write(_encode({"status": "pulling manifest"}))
        while lines:
            await response.write(b"".join(map(_encode, lines)))
            await asyncio.wait([pulling], timeout=_PAUSE_S)
            lines = await news.take()
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
    line: PullLine = {
        "status": f"pulling {file}",
        "digest": _digest(file),
        "completed": done_bytes,
    }
    if total_bytes is not None:
        line["total"] = total_bytes
    return line


@lru_cache(maxsize=64)
def _digest(file: str) -> str:
    return f"sha256:{hashlib.sha256(file.encode()).hexdigest()}"
