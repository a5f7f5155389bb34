"""LocalAI's paths: its name for embeddings, and its gallery."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from model_servers import put_tiny
from polling import until
from servers import Serve
from tiny_models import WIDTH
from toys import ToyLoader, toy_vector
from wire import Client

from memoryd.embeddings.engine import Engine
from memoryd.memory import model_jobs
from memoryd.memory.model_jobs import ModelJobs
from memoryd.models.downloads import Progress

GALLERY = """
[[models]]
name = "tiny"
description = "A test's model"
license = "mit"
languages = ["en", "de"]
repository = "some/tiny"
gguf = "tiny.gguf"
"""


@dataclass
class Hub:
    """Serve one GGUF, its second half only once the gate is open."""

    content: bytes
    url: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Send the file, whichever is asked for, or a repository's list; note which."""
        self.asked.append(request.path)
        if request.path.startswith("/api/models/"):
            size = len(self.content)
            listed = {"type": "file", "oid": "0" * 40, "size": size, "path": "tiny.gguf"}
            return web.json_response([listed])
        response = web.StreamResponse(headers={"ETag": '"v1"'})
        response.content_length = len(self.content)
        await response.prepare(request)
        half = len(self.content) // 2
        await response.write(self.content[:half])
        await self.gate.wait()
        await response.write(self.content[half:])
        return response


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return put_tiny("bert", tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


@pytest_asyncio.fixture
async def hub(tiny_gguf: bytes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """Give the hub that is in use."""
    hub = Hub(tiny_gguf)
    app = web.Application()
    app.router.add_get("/{path:.*}", hub.handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    hub.url = str(server.make_url("")).rstrip("/")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    yield hub
    hub.gate.set()
    await server.close()


@asynccontextmanager
async def serve_gallery(serve: Serve, models_dir: Path) -> AsyncIterator[Client]:
    """Yield a client of a server with the toy, and `tiny` to be had."""
    (models_dir / "gallery.toml").write_text(GALLERY)
    chosen = {"models_dir": models_dir, "measure_models": False, "alias": {"wee": "tiny"}}
    async with Engine(ToyLoader(models_dir)) as engine, serve(engine, **chosen) as running:
        yield running.client


@pytest_asyncio.fixture
async def gallery(serve: Serve, hub: Hub, tmp_path: Path) -> AsyncIterator[Client]:
    """Give a client of a server whose models directory is its own, with `tiny` to be had."""
    async with serve_gallery(serve, tmp_path) as client:
        yield client


async def ended(client: Client, job: dict[str, str]) -> Any:
    """Return the job's last status."""
    async with asyncio.timeout(30):
        while True:
            status = (await client.get(f"/models/jobs/{job['uuid']}")).ok()
            if status["processed"]:
                return status
            await asyncio.sleep(0.05)


async def installed(client: Client) -> list[str]:
    """Return the names of the gallery's models that are here."""
    models = (await client.get("/models/available")).ok()
    return [model["name"] for model in models if model["installed"]]


async def fetching(client: Client, job: dict[str, str]) -> Any:
    """Return the job's first status with a file in it."""
    async with asyncio.timeout(10):
        while True:
            status = (await client.get(f"/models/jobs/{job['uuid']}")).ok()
            if status["file_name"]:
                return status
            await asyncio.sleep(0.02)


async def test_a_models_own_path_embeds_as_openai_does(shared_client: Client) -> None:
    answer = await shared_client.post("/v1/engines/toy/embeddings", {"input": ["cat", "dog"]})
    body = answer.ok()
    assert (body["object"], body["model"]) == ("list", "toy")
    for item, text in zip(body["data"], ["cat", "dog"], strict=True):
        assert np.allclose(item["embedding"], toy_vector(text), atol=1e-6)
    assert answer.headers["X-Truncated-Inputs"] == "0"


async def test_the_paths_model_comes_before_the_bodys(shared_client: Client) -> None:
    body = {"model": "nope", "input": "cat"}
    assert (await shared_client.post("/v1/engines/toy/embeddings", body)).ok()["model"] == "toy"
    swapped = await shared_client.post("/v1/engines/nope/embeddings", {**body, "model": "toy"})
    assert "nope" in swapped.refused(404, "model_not_found")["message"]


async def test_a_models_path_may_have_its_owner(real_client: Client) -> None:
    path = "/v1/engines/sentence-transformers/all-MiniLM-L6-v2/embeddings"
    [item] = (await real_client.post(path, {"input": "x"})).ok()["data"]
    assert len(item["embedding"]) == 384


async def test_a_models_path_takes_every_field_of_openais_body(shared_client: Client) -> None:
    async def embed(**fields: Any) -> Any:
        answer = await shared_client.post("/v1/engines/toy/embeddings", {"input": "cat", **fields})
        return answer.ok()["data"][0]["embedding"]

    assert isinstance(await embed(encoding_format="base64"), str)
    assert len(await embed(dimensions=4)) == 4


async def test_the_gallery_is_a_list_of_what_can_be_installed(gallery: Client, hub: Hub) -> None:
    models = (await gallery.get("/models/available")).ok()
    assert isinstance(models, list)
    by_name = {model["name"]: model for model in models}
    assert by_name["tiny"] == {
        "name": "tiny",
        "description": "A test's model",
        "license": "mit",
        "urls": [f"{hub.url}/some/tiny"],
        "tags": ["embedding", "en", "de"],
        "installed": False,
    }
    assert by_name["bge-reranker-v2-m3"]["tags"][0] == "reranker"
    assert len(by_name) == len(models) > 15


async def test_an_installation_tells_how_far_it_is(gallery: Client, hub: Hub) -> None:
    job = (await gallery.post("/models/apply", {"id": "tiny"})).ok()
    assert job == {"uuid": job["uuid"], "status": f"{gallery.url}/models/jobs/{job['uuid']}"}
    assert str(uuid.UUID(job["uuid"])) == job["uuid"]

    status = await fetching(gallery, job)
    assert status["processed"] is False
    assert (status["file_name"], status["error"]) == ("tiny.gguf", None)
    assert 0 < status["progress"] < 60
    assert status["message"] == "fetching tiny.gguf"
    assert status["file_size"].endswith(("KiB", "MiB"))
    assert status["downloaded_size"].endswith(("B", "KiB", "MiB"))
    assert status["downloaded_size"] != status["file_size"]
    assert (await gallery.get("/models/jobs")).ok() == {job["uuid"]: status}

    hub.gate.set()
    status = await ended(gallery, job)
    assert (status["progress"], status["message"], status["error"]) == (100, "completed", None)
    assert await installed(gallery) == ["tiny"]
    [item] = (await gallery.post("/v1/embeddings", {"model": "tiny", "input": "a"})).ok()["data"]
    assert len(item["embedding"]) == WIDTH


@pytest.mark.parametrize("id_", ["localai@tiny", "TINY:latest"])
async def test_an_id_may_be_written_in_other_ways(gallery: Client, hub: Hub, id_: str) -> None:
    hub.gate.set()
    job = (await gallery.post("/models/apply", {"id": id_})).ok()
    assert (await ended(gallery, job))["error"] is None
    assert await installed(gallery) == ["tiny"]


async def test_the_status_url_is_that_by_which_the_server_was_reached(
    gallery: Client, hub: Hub
) -> None:
    host = gallery.url.removeprefix("http://").replace("127.0.0.1", "localhost")
    answer = await gallery.post("/models/apply", {"id": "tiny"}, headers={"Host": host})
    assert answer.ok()["status"].startswith(f"http://{host}/models/jobs/")


async def test_a_model_can_be_installed_under_another_name(gallery: Client, hub: Hub) -> None:
    hub.gate.set()
    job = (await gallery.post("/models/apply", {"id": "tiny", "name": "wanted"})).ok()
    assert (await ended(gallery, job))["error"] is None
    for name in ("wanted", "tiny"):
        assert (await gallery.get(f"/v1/models/{name}")).ok()["id"] == name
    taken = (await gallery.post("/models/apply", {"id": "tiny", "name": "wanted"})).ok()
    status = await ended(gallery, taken)
    assert "'wanted' is taken" in status["error"]
    assert status["message"] == f"error: {status['error']}"
    error = (await gallery.post("/models/apply", {"id": "tiny", "name": "a b"})).refused(400)
    assert "'a b'" in error["message"]


async def test_a_repository_of_the_hub_can_be_installed_by_url(gallery: Client, hub: Hub) -> None:
    hub.gate.set()
    job = (await gallery.post("/models/apply", {"url": "hf:other/tiny:tiny.gguf"})).ok()
    assert (await ended(gallery, job))["error"] is None
    assert hub.asked[-1].startswith("/other/tiny/resolve/")


async def test_an_id_comes_before_a_url(gallery: Client, hub: Hub) -> None:
    hub.gate.set()
    job = (await gallery.post("/models/apply", {"id": "tiny", "url": "hf:other/x:y.gguf"})).ok()
    await ended(gallery, job)
    assert hub.asked == ["/some/tiny/resolve/main/tiny.gguf"]


async def test_an_unknown_id_is_refused_at_once(gallery: Client) -> None:
    error = (await gallery.post("/models/apply", {"id": "localai@nope"})).refused(404)
    assert "'nope'" in error["message"]
    assert (await gallery.get("/models/jobs")).ok() == {}


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"url": "https://example.com/x.gguf"}, "url", "memoryd models import"),
        ({"url": "file:///etc/passwd"}, "url", "https://"),
        ({"url": "/etc/passwd"}, "url", "memoryd models import"),
        ({"url": "ollama:llama3"}, "url", "memoryd models import"),
        ({"id": "../../etc/passwd"}, "id", "memoryd models import"),
        ({"id": "a b"}, "id", "'a b'"),
        ({"id": 5}, "id", "string"),
        ({"url": 5}, "url", "string"),
        ({"id": "tiny", "name": 5}, "name", "string"),
        ({}, "id", "/models/available"),
        ({"id": None, "url": ""}, "id", "/models/available"),
    ],
)
async def test_what_cannot_be_installed_is_refused(
    gallery: Client, hub: Hub, body: Any, param: str, told: str
) -> None:
    error = (await gallery.post("/models/apply", body)).refused(400)
    assert error["param"] == param
    assert told in error["message"]
    assert hub.asked == []


async def test_an_unknown_job_is_404(gallery: Client) -> None:
    error = (await gallery.get(f"/models/jobs/{uuid.uuid4()}")).refused(404, "not_found")
    assert "forgotten" in error["message"]


async def test_only_so_many_models_are_fetched_at_once(
    gallery: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_jobs, "MAX_UNDER_WAY", 2)
    jobs = [(await gallery.post("/models/apply", {"id": "tiny"})).ok() for _ in range(2)]
    answer = await gallery.post("/models/apply", {"id": "tiny"})
    answer.refused(429, "rate_limited")
    assert int(answer.headers["Retry-After"]) > 0
    hub.gate.set()
    assert [(await ended(gallery, job))["error"] for job in jobs] == [None, None]
    (await gallery.post("/models/apply", {"id": "tiny"})).ok()


async def test_jobs_are_forgotten_after_a_while(
    gallery: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gate.set()
    jobs = [(await gallery.post("/models/apply", {"id": "tiny"})).ok() for _ in range(3)]
    for job in jobs:
        await ended(gallery, job)
    monkeypatch.setattr(model_jobs, "MAX_KEPT", 2)
    assert list((await gallery.get("/models/jobs")).ok()) == [job["uuid"] for job in jobs[1:]]
    monkeypatch.setattr(model_jobs, "KEPT_S", 0.0)
    assert (await gallery.get("/models/jobs")).ok() == {}
    (await gallery.get(f"/models/jobs/{jobs[2]['uuid']}")).refused(404)


async def test_a_model_that_was_installed_can_be_deleted(gallery: Client, hub: Hub) -> None:
    hub.gate.set()
    await ended(gallery, (await gallery.post("/models/apply", {"id": "tiny"})).ok())
    job = (await gallery.post("/models/delete/tiny", {})).ok()
    assert job["status"] == f"{gallery.url}/models/jobs/{job['uuid']}"
    status = await ended(gallery, job)
    assert (status["error"], status["progress"]) == (None, 100)
    assert await installed(gallery) == []
    (await gallery.post("/models/delete/nope", {})).refused(404, "model_not_found")


async def test_an_alias_is_not_deleted_with_its_model(gallery: Client, hub: Hub) -> None:
    hub.gate.set()
    await ended(gallery, (await gallery.post("/models/apply", {"id": "tiny"})).ok())
    error = (await gallery.post("/models/delete/wee", {})).refused(409, "conflict")
    assert "tiny" in error["message"]
    assert await installed(gallery) == ["tiny"]


async def test_a_download_ends_with_the_server(serve: Serve, hub: Hub, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(serve_gallery(serve, tmp_path))
        (await client.post("/models/apply", {"id": "tiny"})).ok()
        await until(lambda: bool(hub.asked))
        async with asyncio.timeout(5):
            await stack.aclose()
    assert not (tmp_path / "tiny.gguf").exists()


async def test_a_job_that_fails_unexpectedly_names_itself_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def explode(_tell: Progress) -> None:
        raise ValueError("zebra")

    jobs = ModelJobs()
    job = jobs.start("tiny", explode)
    await until(lambda: jobs.find(job.id).has_ended)
    assert job.error is not None
    assert job.id in job.error
    assert "zebra" not in job.error
    assert job.id in caplog.text
    assert "ValueError: zebra" in caplog.text
