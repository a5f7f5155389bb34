"""POST /api/pull, from a hub on a local socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from model_servers import put_tiny, serve_tiny
from polling import until
from servers import Running, Serve
from wire import Answer

from memoryd.api.ollama_pull import News, progress_line

GALLERY = """
[[models]]
name = "offered"
aliases = ["offered:v1"]
repository = "some/offered"
gguf = "offered.gguf"
facts = "a test"
"""


@dataclass
class Hub:
    """Serve one GGUF as every file of every repository, once the gate is open."""

    content: bytes
    pieces: int = 1
    """In how many each half is sent, with a little time between them."""
    requested: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    transports: list[asyncio.Transport] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def list_tree(self, _request: web.Request) -> web.Response:
        """List the file, by a name that says its weights' type."""
        digest, size = sha256(self.content).hexdigest(), len(self.content)
        lfs = {"oid": digest, "size": size, "pointerSize": 134}
        path = "offered-q8_0.gguf"
        listed = {"type": "file", "oid": "0" * 40, "size": size, "path": path, "lfs": lfs}
        return web.json_response([listed])

    async def send(self, request: web.Request) -> web.StreamResponse:
        """Send the first half, and the rest when the gate is open."""
        self.requested.append(request.path)
        assert request.transport
        self.transports.append(request.transport)
        response = web.StreamResponse(headers={"Content-Length": str(len(self.content))})
        await response.prepare(request)
        middle = len(self.content) // 2
        for part, is_held in ((self.content[:middle], False), (self.content[middle:], True)):
            if is_held:
                await self.gate.wait()
            await self._send(response, part)
        return response

    async def _send(self, response: web.StreamResponse, part: bytes) -> None:
        size = -(-len(part) // self.pieces)
        for start in range(0, len(part), size):
            await response.write(part[start : start + size])
            self.sent_bytes += len(part[start : start + size])
            await asyncio.sleep(0.005 if self.pieces > 1 else 0)


@pytest_asyncio.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    hub = Hub(put_tiny("qwen3", tmp_path / "offered" / "offered.gguf").read_bytes())
    hub.gate.set()
    app = web.Application()
    app.router.add_get("/api/models/{owner}/{repository}/tree/{revision}", hub.list_tree)
    app.router.add_get("/{path:.*}", hub.send)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    monkeypatch.setenv("HF_ENDPOINT", str(server.make_url("")))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no-account"))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    yield hub
    hub.gate.set()
    await server.close()


@pytest_asyncio.fixture
async def own(hub: Hub, serve: Serve, tmp_path: Path) -> AsyncIterator[Running]:
    models_dir = tmp_path / "models"
    models_dir.mkdir()
    (models_dir / "gallery.toml").write_text(GALLERY)
    async with serve_tiny(serve, models_dir) as running:
        yield running


async def pull(running: Running, **body: Any) -> Answer:
    return await running.client.post("/api/pull", body)


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.data
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.data.endswith(b"\n")
    return [orjson.loads(line) for line in answer.data.splitlines()]


def told(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.data
    assert set(answer.json) == {"error"}
    text: str = answer.json["error"]
    return text


async def names(running: Running) -> set[str]:
    models = (await running.client.get("/api/tags")).ok()["models"]
    return {model["name"] for model in models}


@pytest.mark.parametrize("stream", [None, True])
async def test_each_step_of_a_pull_is_a_line(hub: Hub, own: Running, stream: bool | None) -> None:
    answer = await pull(own, model="offered", stream=stream)
    assert "X-Request-Id" in answer.headers
    first, *steps, last = lines_of(answer)
    assert (first, last) == ({"status": "pulling manifest"}, {"status": "success"})
    received = [line for line in steps if "digest" in line]
    assert {line["status"] for line in received} == {"pulling offered.gguf"}
    assert {line["total"] for line in received} == {len(hub.content)}
    assert received[-1]["completed"] == len(hub.content)
    assert len({line["digest"] for line in received}) == 1
    assert steps[-1] == {"status": "trying offered on this machine"}
    assert "offered:latest" in await names(own)


async def test_a_file_is_told_of_some_ten_times_a_second(hub: Hub, own: Running) -> None:
    hub.pieces = 100
    started = time.perf_counter()
    steps = [line for line in lines_of(await pull(own, model="offered")) if "digest" in line]
    assert len(steps) <= 3 + 10 * (time.perf_counter() - started)
    assert len(steps) >= 5
    assert steps[-1]["completed"] == len(hub.content)


async def test_of_what_was_not_told_yet_the_newest_is_kept() -> None:
    news = News()
    for done_bytes in range(1_000):
        for file in ("a", "b"):
            news.note(f"fetching {file}", done_bytes, 1_000)
    assert [line["completed"] for line in await news.take()] == [999, 999]
    news.note("converting a", 0, None)
    news.end()
    assert await news.take() == [{"status": "converting a"}]
    assert await news.take() == []


async def test_without_a_stream_the_end_alone_is_told(own: Running) -> None:
    assert (await pull(own, name="OFFERED:v1", stream=False)).ok() == {"status": "success"}
    assert {"offered:latest", "offered:v1"} <= await names(own)


async def test_a_pulled_model_embeds(own: Running) -> None:
    lines_of(await pull(own, model="offered:v1"))
    answer = await own.client.post("/api/embed", {"model": "offered:v1", "input": "blue"})
    assert answer.ok()["prompt_eval_count"]


async def test_a_gallery_model_that_is_not_here_is_not_fetched_by_a_request(
    hub: Hub, own: Running
) -> None:
    for path in ("/api/embed", "/api/embeddings"):
        answer = await own.client.post(path, {"model": " Qwen3-Embedding:0.6b", "prompt": "blue"})
        expected = 'model " Qwen3-Embedding:0.6b" not found, try pulling it first'
        assert told(answer, 404) == expected
    assert hub.requested == []


async def test_with_auto_pull_a_request_waits_and_is_told_to_come_back(
    hub: Hub, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoryd.embeddings.engine._LOADING_PATIENCE_S", 0.3)
    hub.gate.clear()
    async with serve_tiny(serve, tmp_path / "models", auto_pull=True) as running:
        body = {"model": "bge-m3", "input": "blue"}
        answer = await running.client.post("/api/embed", body)
        assert "try again" in told(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
        assert hub.requested


async def test_what_is_here_is_not_fetched_again(hub: Hub, own: Running) -> None:
    lines_of(await pull(own, model="offered"))
    asked = len(hub.requested)
    expected = [{"status": "pulling manifest"}, {"status": "success"}]
    assert lines_of(await pull(own, model="offered")) == expected
    assert (await pull(own, model="tiny", stream=False)).ok() == {"status": "success"}
    assert len(hub.requested) == asked


@pytest.mark.parametrize("name", ["hf.co/Some/Other:Q8_0", "hf:Some/Other:Q8_0"])
async def test_a_repository_of_the_hub_is_pulled_as_ollama_names_it(
    own: Running, name: str
) -> None:
    lines_of(await pull(own, model=name))
    assert "Some/Other:Q8_0" in await names(own)
    for asked in ("hf.co/some/other:Q8_0", "Some/Other:Q8_0"):
        answer = await own.client.post("/api/embed", {"model": asked, "input": "blue"})
        assert answer.ok()["model"] == asked


@pytest.mark.parametrize("name", ["offered", "hf.co/some/other:Q8_0"])
async def test_who_pulls_the_same_at_the_same_time_waits_for_one_download(
    hub: Hub, own: Running, name: str
) -> None:
    hub.gate.clear()
    pulls = [asyncio.create_task(pull(own, model=name, stream=it)) for it in (True, True, False)]
    await until(lambda: hub.sent_bytes > 0)
    hub.gate.set()
    streamed, other, plain = await asyncio.gather(*pulls)
    assert lines_of(streamed)[-1] == lines_of(other)[-1] == plain.ok() == {"status": "success"}
    assert len(hub.requested) == 1


async def test_a_client_that_leaves_stops_the_download(hub: Hub, own: Running) -> None:
    hub.gate.clear()
    leaving = asyncio.create_task(pull(own, model="offered"))
    await until(lambda: hub.sent_bytes > 0)
    leaving.cancel()
    await until(hub.transports[0].is_closing)
    hub.gate.set()
    assert "offered:latest" not in await names(own)
    assert lines_of(await pull(own, model="offered"))[-1] == {"status": "success"}


async def test_who_stays_gets_the_model_where_another_leaves(hub: Hub, own: Running) -> None:
    hub.gate.clear()
    leaving = asyncio.create_task(pull(own, model="offered"))
    await until(lambda: hub.sent_bytes > 0)
    staying = asyncio.create_task(pull(own, model="offered"))
    await asyncio.sleep(0.1)
    leaving.cancel()
    await asyncio.wait([leaving])
    await asyncio.sleep(0.1)
    hub.gate.set()
    assert lines_of(await staying)[-1] == {"status": "success"}
    assert len(hub.requested) == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("", 400, "invalid model name"),
        (None, 400, "invalid model name"),
        ("a b", 400, "invalid model name"),
        ("https://example.org/x.gguf", 400, "memoryd models import"),
        ("/etc/x.gguf", 400, "memoryd models import"),
        ("nope", 404, "pull model manifest: file does not exist"),
    ],
)
async def test_what_fails_before_the_first_line_has_a_status(
    own: Running, stream: bool, name: str | None, status: int, text: str
) -> None:
    assert text in told(await pull(own, model=name, stream=stream), status)


async def test_what_fails_later_is_a_line(hub: Hub, own: Running) -> None:
    hub.content = hub.content[: len(hub.content) // 2]
    *_, last = lines_of(await pull(own, model="offered"))
    assert set(last) == {"error"}
    assert "offered" in last["error"]
    assert "offered:latest" not in await names(own)


async def test_without_a_stream_what_fails_later_has_a_status(hub: Hub, own: Running) -> None:
    hub.content = hub.content[: len(hub.content) // 2]
    assert "offered" in told(await pull(own, model="offered", stream=False), 501)


async def test_a_hub_that_does_not_answer_may_be_asked_again(
    own: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    answer = await pull(own, model="hf.co/some/repository", stream=False)
    assert "127.0.0.1:9" in told(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_file_that_a_repository_does_not_have_is_not_found(own: Running) -> None:
    answer = await pull(own, model="hf.co/some/repository:Q4_K_M", stream=False)
    assert "offered-q8_0.gguf" in told(answer, 404)


def test_files_are_told_apart_by_digests_as_ollamas_own_client_cuts_them() -> None:
    one, other = (progress_line(f"fetching {name}", 1, None) for name in ("a.gguf", "b.json"))
    assert one["digest"] != other["digest"]
    assert one["digest"].startswith("sha256:")
    assert len(one["digest"]) == len("sha256:") + 64
    assert "total" not in one
    assert progress_line("converting a", 0, None) == {"status": "converting a"}
