"""Names of models that mean one thing to clients and another to memoryd: aliases, hidden names."""

import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from model_servers import put_tiny, serve_tiny
from servers import Running, Serve

from memoryd.models.catalog import find_entry
from memoryd.models.layout import gguf_path

GALLERY = """
[[models]]
name = "own"
aliases = ["family/own", "own:tag"]
repository = "some/own"
gguf = "own.gguf"
"""


def fill(models_dir: Path) -> None:
    """Put `own`, which is also family/own, and `two` into a models directory."""
    (models_dir / "gallery.toml").write_text(GALLERY)
    put_tiny("qwen3", own_path(models_dir))
    put_tiny("bert", models_dir / "two.gguf")


def own_path(models_dir: Path) -> Path:
    """Return where the file of `own` lies once it was fetched."""
    return gguf_path(find_entry("family/own", models_dir), models_dir)


@pytest_asyncio.fixture
async def hidden(serve: Serve, tmp_path: Path) -> AsyncIterator[Running]:
    """Give a server where `own` means `two`, and the model of that name is reached by others."""
    fill(tmp_path)
    async with serve_tiny(serve, tmp_path, alias={"own": "two"}) as running:
        yield running


def models_dir_of(running: Running) -> Path:
    return running.memory.settings.models_dir


async def embed(running: Running, model: str, **fields: Any) -> Any:
    body = {"model": model, "input": "the blue sky", **fields}
    return (await running.client.post("/api/embed", body)).ok()["embeddings"]


async def loaded(running: Running) -> set[str]:
    return {model["name"] for model in (await running.client.get("/api/ps")).ok()["models"]}


async def test_a_model_is_deleted_by_another_of_its_names_though_an_alias_has_its_own(
    hidden: Running,
) -> None:
    await embed(hidden, "two", keep_alive=-1)
    path = own_path(models_dir_of(hidden))
    assert path.exists()
    answer = await hidden.client.ask("DELETE", "/api/delete", json={"model": "family/own"})
    assert (answer.status, answer.data) == (200, b"")
    assert not path.exists()
    assert await loaded(hidden) == {"tiny:latest", "two:latest"}
    await embed(hidden, "own")


async def test_localais_route_deletes_it_too(hidden: Running) -> None:
    (await hidden.client.post("/models/delete/family/own", {})).ok()
    assert not own_path(models_dir_of(hidden)).exists()


async def test_the_default_model_is_described_though_an_alias_has_its_own_name(
    serve: Serve, tmp_path: Path
) -> None:
    fill(tmp_path)
    chosen = {"model": "family/own", "alias": {"own": "two"}}
    async with serve_tiny(serve, tmp_path, **chosen) as running:
        assert (await running.client.get("/info")).ok()["served_model_name"] == "own"
        props = (await running.client.get("/props")).ok()
        assert props["model_path"] == str(own_path(tmp_path))


async def test_the_only_reranker_is_found_though_an_alias_has_its_own_name(
    serve: Serve, tmp_path: Path
) -> None:
    put_tiny("bert-rank", tmp_path / "judge.gguf")
    aliases = {"judge": "tiny", "ranks": "judge"}
    async with serve_tiny(serve, tmp_path, alias=aliases) as running:
        body = {"query": "a cat", "documents": ["a dog", "a bird"]}
        assert len((await running.client.post("/v1/rerank", body)).ok()["results"]) == 2


async def test_each_list_has_the_names_that_lead_to_a_model_and_no_others(hidden: Running) -> None:
    tags = (await hidden.client.get("/api/tags")).ok()["models"]
    ollamas = {model["name"]: model["details"]["family"] for model in tags}
    assert ollamas == {
        "tiny:latest": "bert",
        "two:latest": "bert",
        "own:latest": "bert",
        "own:tag": "qwen3",
    }
    openais = (await hidden.client.get("/v1/models")).ok()["data"]
    roots = {model["id"]: model["root"] for model in openais}
    assert {name: root for name, root in roots.items() if not name.startswith("text-")} == {
        "tiny": "tiny",
        "two": "two",
        "own": "two",
    }
    assert list(roots)[-1] == "text-embedding-3-large"
    alephs = (await hidden.client.get("/models_available")).ok()
    assert [model["name"] for model in alephs] == [name for name in roots if len(name) < 20]


async def test_all_lists_tell_of_an_untried_reranker_that_it_is_one(
    serve: Serve, tmp_path: Path
) -> None:
    put_tiny("bert-rank", tmp_path / "judge.gguf")
    async with serve_tiny(serve, tmp_path) as running:
        [ollamas] = [
            model["capabilities"]
            for model in (await running.client.get("/api/tags")).ok()["models"]
            if model["name"] == "judge:latest"
        ]
        openais = (await running.client.get("/v1/models/judge")).ok()["capabilities"]
        available = (await running.client.get("/models/available")).ok()
        [localais] = [model["tags"] for model in available if model["name"] == "judge"]
    assert (ollamas, openais, localais) == (["rerank"], ["rerank"], ["reranker"])


async def test_a_file_that_is_no_gguf_is_not_offered(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "wreck.gguf").write_bytes(b"GGUF" + 100 * b"\xff")
    async with serve_tiny(serve, tmp_path) as running:
        names = {model["name"] for model in (await running.client.get("/models/available")).ok()}
    assert "tiny" in names
    assert "wreck" not in names


async def test_no_model_is_installed_under_an_alias(hidden: Running) -> None:
    for body in ({"id": "two", "name": "OWN:latest"}, {"url": "hf:some/x:x.gguf", "name": "own"}):
        answer = await hidden.client.post("/models/apply", body)
        assert "setting alias" in answer.refused(409, "conflict")["message"]
    assert (await hidden.client.get("/models/jobs")).ok() == {}


async def test_openais_name_that_was_given_to_a_model_which_has_gone_is_not_found(
    serve: Serve, tmp_path: Path
) -> None:
    put_tiny("qwen3", tmp_path / "gone.gguf")
    name = "text-embedding-3-small"
    async with serve_tiny(serve, tmp_path, alias={name: "gone"}) as running:
        (tmp_path / "gone.gguf").unlink()
        answer = await running.client.post("/v1/embeddings", {"model": name, "input": "a"})
        answer.refused(404, "model_not_found")
        (await running.client.get(f"/v1/models/{name}")).refused(404, "model_not_found")


async def test_what_cannot_be_kept_is_tried_once(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".measurements.json").mkdir()  # nothing can be written in its place
    caplog.set_level(logging.INFO)
    async with serve_tiny(serve, tmp_path) as running:
        first = (await running.client.get("/info")).ok()
        tried = caplog.text.count("trying tiny.gguf")
        assert (await running.client.get("/info")).ok() == first
        (await running.client.get("/props")).ok()
        assert caplog.text.count("trying tiny.gguf") == tried


async def test_a_file_that_comes_in_place_of_another_is_told_anew(hidden: Running) -> None:
    target = models_dir_of(hidden) / "two.gguf"
    before = (await hidden.client.get("/v1/models/two")).ok()
    shutil.copy(own_path(models_dir_of(hidden)), target)
    after = (await hidden.client.get("/v1/models/two")).ok()
    assert after["meta"]["n_params"] != before["meta"]["n_params"]
