"""LocalAI's gallery of models (core/http/endpoints/localai/gallery.go, core/gallery/)."""

from aiohttp import web
from typing_extensions import TypedDict

from memoryd.api.bodies import PeerBody, read_peer_body
from memoryd.api.errors import json_response
from memoryd.api.state import MEMORY
from memoryd.errors import InvalidInputError, MissingFieldError
from memoryd.memory.model_gallery import install, list_gallery
from memoryd.memory.model_jobs import ModelJob
from memoryd.memory.model_listing import ModelSummary
from memoryd.memory.model_removal import remove_served_model
from memoryd.models.hub import hub_endpoint


class ApplyBody(PeerBody):
    """What /models/apply takes: `id` or `url`; other fields are ignored, null is absent."""

    id: str | None = None
    """A name of the gallery, which may have its gallery's name and an @ before it."""
    url: str | None = None
    """hf:organization/repository, where there is no `id`."""
    name: str | None = None
    """What to call the model."""


class AvailableModel(TypedDict):
    """A model that can be installed."""

    name: str
    description: str
    license: str
    urls: list[str]
    tags: list[str]
    installed: bool


class JobStarted(TypedDict):
    """Where to ask how far a job is."""

    uuid: str
    status: str


class JobStatus(TypedDict):
    """How far a job is."""

    processed: bool
    """Whether it has ended, in one way or another."""
    progress: float
    """Percent of the step that it is at."""
    message: str
    error: str | None
    file_name: str
    downloaded_size: str
    file_size: str


async def list_available(request: web.Request) -> web.Response:
    """List the models that can be installed."""
    models = await list_gallery(request.app[MEMORY].loader)
    answer = list(map(_as_available, models))
    return json_response(answer)


async def apply(request: web.Request) -> web.Response:
    """Install a model in the background; the answer says where to ask how far it is."""
    memory = request.app[MEMORY]
    body = await read_peer_body(request, ApplyBody)
    if body.id:
        field, source = "id", body.id.rpartition("@")[2]
    elif body.url:
        field, source = "url", body.url
    else:
        raise MissingFieldError("id is required: a name of the list at /models/available", "id")
    try:
        job = install(memory, source, body.name or None)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field) from error
    return _started(request, job)


async def show_job(request: web.Request) -> web.Response:
    """Show how far an installation is."""
    return json_response(_as_status(_find_job(request)))


async def list_jobs(request: web.Request) -> web.Response:
    """Show how far all installations of the last hour are, by their ids."""
    jobs = request.app[MEMORY].model_jobs.all()
    answer: dict[str, JobStatus] = {job.id: _as_status(job) for job in jobs}
    return json_response(answer)


async def delete(request: web.Request) -> web.Response:
    """Delete a model's files; it is done when this answers, and its job has ended."""
    memory = request.app[MEMORY]
    removed = await remove_served_model(memory, request.match_info["name"])
    return _started(request, memory.model_jobs.record(removed.name))


def _started(request: web.Request, job: ModelJob) -> web.Response:
    status = f"{request.scheme}://{request.host}/models/jobs/{job.id}"
    answer: JobStarted = {"uuid": job.id, "status": status}
    return json_response(answer)


def _find_job(request: web.Request) -> ModelJob:
    return request.app[MEMORY].model_jobs.find(request.match_info["uuid"])


def _as_available(model: ModelSummary) -> AvailableModel:
    kinds = [model.kind] if model.kind else []
    return {
        "name": model.name,
        "description": model.description,
        "license": model.license,
        "urls": [f"{hub_endpoint()}/{model.repository}"] if model.repository else [],
        "tags": [*kinds, *model.languages],
        "installed": model.is_here,
    }


def _as_status(job: ModelJob) -> JobStatus:
    return {
        "processed": job.has_ended,
        "progress": _percent(job),
        "message": _message(job),
        "error": job.error,
        "file_name": job.file_name,
        "downloaded_size": _size_text(job.done_bytes) if job.file_name else "",
        "file_size": _size_text(job.total_bytes) if job.file_name and job.total_bytes else "",
    }


def _percent(job: ModelJob) -> float:
    if job.has_ended and job.error is None:
        return 100.0
    return round(100 * job.done_bytes / job.total_bytes, 1) if job.total_bytes else 0.0


def _message(job: ModelJob) -> str:
    if not job.has_ended:
        return job.step or f"processing {job.model}"
    return "completed" if job.error is None else f"error: {job.error}"


def _size_text(size_bytes: int) -> str:
    """Return a size as people read it: 86.7 MiB."""
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}" if unit != "B" else f"{size_bytes} B"
