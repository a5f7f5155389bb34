"""Ollama's routes about models: what is here, what is loaded, copies, removal."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from model_servers import put_tiny, serve_tiny
from polling import until
from servers import Running, Serve
from tiny_models import POSITIONS, WIDTH
from wire import Answer, Client

from memoryd.api.ollama_models import gpu_share, shown_count, shown_name
from memoryd.api.routes import ROUTES
from memoryd.models.gguf_header import GgufHeader

DESCRIBED = """
name: described
embeddings: true
parameters: {model: hidden/described.gguf}
memoryd:
  aliases: ["family:1b", "family:1b-q8_0", "owner/described"]
  license: mit
  pooling: cls
  query_prefix: "q: "
  document_prefix: "d: "
  instruction: ""
  trained_dimensions: [64, 32]
  min_dimensions: 16
  trained_tokens: 100
"""


@pytest_asyncio.fixture(scope="module")
async def shelf(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Give a server with models that no test changes."""
    models_dir = tmp_path_factory.mktemp("models")
    put_tiny("qwen3", models_dir / "qwen.gguf")
    put_tiny("bert-rank", models_dir / "ranks.gguf")
    put_tiny("bert", models_dir / "hidden" / "described.gguf")
    (models_dir / "described.yaml").write_text(DESCRIBED)
    (models_dir / "broken.gguf").write_bytes(b"GGUF\3\0\0\0")
    aliases = {"Given": "qwen", "tiny:other": "tiny", "hidden-one": "tiny"}
    async with serve_tiny(serve, models_dir, alias=aliases) as running:
        yield running


@pytest_asyncio.fixture
async def own(serve: Serve, tmp_path: Path) -> AsyncIterator[Running]:
    """Give a server with models that the test may change."""
    put_tiny("qwen3", tmp_path / "qwen.gguf")
    async with serve_tiny(serve, tmp_path) as running:
        yield running


def models_dir_of(running: Running) -> Path:
    return running.memory.settings.models_dir


def told(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.data
    assert set(answer.json) == {"error"}
    text: str = answer.json["error"]
    return text


async def listed(client: Client) -> dict[str, Any]:
    models = (await client.get("/api/tags")).ok()["models"]
    assert all(model["name"] == model["model"] for model in models)
    return {model["name"]: model for model in models}


async def embed(client: Client, model: str, **fields: Any) -> Answer:
    return await client.post("/api/embed", {"model": model, "input": "the blue sky", **fields})


async def delete(client: Client, **body: Any) -> Answer:
    return await client.ask("DELETE", "/api/delete", json=body)


async def copy(client: Client, source: Any, destination: Any) -> Answer:
    return await client.post("/api/copy", {"source": source, "destination": destination})


async def test_a_model_is_listed_with_all_that_ollama_tells(shelf: Running) -> None:
    path = models_dir_of(shelf) / "qwen.gguf"
    model = (await listed(shelf.client))["qwen:latest"]
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    assert datetime.fromisoformat(model["modified_at"]) == written
    assert model["size"] == path.stat().st_size
    assert len(bytes.fromhex(model["digest"])) == 32
    assert model["capabilities"] == ["embedding"]
    assert model["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "qwen3",
        "families": ["qwen3"],
        "parameter_size": "163K",
        "quantization_level": "F32",
        "context_length": model["details"]["context_length"],
        "embedding_length": WIDTH,
    }


async def test_names_carry_a_tag_and_aliases_are_listed_too(shelf: Running) -> None:
    assert set(await listed(shelf.client)) == {
        *("tiny:latest", "tiny:other", "hidden-one:latest"),
        *("qwen:latest", "given:latest"),
        *("ranks:latest", "described:latest", "family:1b"),
    }


async def test_an_alias_hides_the_model_of_that_name(serve: Serve, tmp_path: Path) -> None:
    put_tiny("qwen3", tmp_path / "qwen.gguf")
    async with serve_tiny(serve, tmp_path, alias={"qwen": "tiny"}) as running:
        models = (await running.client.get("/api/tags")).ok()["models"]
        assert sorted(model["name"] for model in models) == ["qwen:latest", "tiny:latest"]
        assert {model["details"]["family"] for model in models} == {"bert"}


def test_what_changes_the_models_wants_an_admins_key() -> None:
    ollamas = [route for route in ROUTES if route.path.startswith("/api/")]
    admins = {route.path for route in ollamas if route.scope == "admin"}
    assert admins == {"/api/pull", "/api/delete", "/api/copy"}
    assert {route.scope for route in ollamas} == {"admin", "read"}


async def test_a_reranker_is_told_from_an_embedding_model(shelf: Running) -> None:
    models = await listed(shelf.client)
    assert models["ranks:latest"]["capabilities"] == ["rerank"]


async def test_what_came_last_is_listed_first(own: Running) -> None:
    put_tiny("bert", models_dir_of(own) / "newer.gguf")
    assert next(iter(await listed(own.client))) == "newer:latest"


@pytest.mark.parametrize("path", ["/", "/api/tags", "/api/version"])
async def test_clients_may_ask_for_the_head_alone(shelf: Running, path: str) -> None:
    answer = await shelf.client.ask("HEAD", path)
    assert (answer.status, answer.data) == (200, b"")


async def test_the_version_is_one_of_ollamas(shelf: Running) -> None:
    version = (await shelf.client.get("/api/version")).ok()["version"]
    # From 0.11.11 on, /api/embed takes `dimensions`.
    assert tuple(map(int, version.split("."))) >= (0, 11, 11)


@pytest.mark.parametrize("path", ["/api/nothing", "/api/status", "/api"])
async def test_an_unknown_path_is_404_in_ollamas_shape(shelf: Running, path: str) -> None:
    answer = await shelf.client.get(path)
    assert answer.status == 404
    assert "error" in answer.json
    if path != "/api":
        told(answer, 404)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/api/embed"), ("POST", "/api/tags"), ("POST", "/api/delete")]
)
async def test_another_method_is_405_in_ollamas_shape(
    shelf: Running, method: str, path: str
) -> None:
    answer = await shelf.client.ask(method, path)
    told(answer, 405)
    assert answer.headers["Allow"]


async def show(client: Client, **body: Any) -> Answer:
    return await client.post("/api/show", body)


async def test_a_model_is_shown_with_its_files_keys_and_memoryds_own(shelf: Running) -> None:
    answer = (await show(shelf.client, model="described")).ok()
    assert set(answer) == {
        *("license", "modelfile", "parameters", "template", "details", "model_info"),
        *("capabilities", "modified_at"),
    }
    assert answer["license"] == "mit"
    assert "FROM described:latest" in answer["modelfile"]
    assert str(models_dir_of(shelf)) not in str(answer)
    assert answer["capabilities"] == ["embedding"]
    model = (await listed(shelf.client))["described:latest"]
    assert answer["details"] == model["details"]
    assert answer["modified_at"] == model["modified_at"]
    info = answer["model_info"]
    assert info["general.architecture"] == "bert"
    assert info["general.parameter_count"] == 116_448
    assert (info["bert.context_length"], info["bert.embedding_length"]) == (POSITIONS, WIDTH)
    assert info["memoryd.trained_dimensions"] == [64, 32]
    assert info["memoryd.min_dimensions"] == 16
    assert info["memoryd.trained_tokens"] == 100
    assert info["memoryd.query_prefix"] == "q: "
    assert info["memoryd.document_prefix"] == "d: "
    assert info["memoryd.instruction"] == ""
    assert "general.name" not in info


async def test_a_users_pooling_comes_before_that_of_the_file(shelf: Running) -> None:
    of_user = (await show(shelf.client, model="described")).ok()["model_info"]
    of_file = (await show(shelf.client, model="tiny")).ok()["model_info"]
    assert (of_user["bert.pooling_type"], of_file["bert.pooling_type"]) == (2, 1)


async def test_long_lists_are_shown_when_asked_for(shelf: Running) -> None:
    for verbose, shown in ((None, False), (False, False), (True, True)):
        answer = (await show(shelf.client, model="tiny", verbose=verbose)).ok()
        assert bool(answer["model_info"]["tokenizer.ggml.tokens"]) is shown


@pytest.mark.parametrize(
    "body",
    [
        {"model": "QWEN:latest"},
        {"name": " qwen "},
        {"model": "", "name": "qwen"},
        {"model": "qwen", "name": "nothing"},
        {"Model": "registry.ollama.ai/library/qwen"},
        {"model": "given"},
    ],
)
async def test_a_model_is_shown_by_any_of_its_names(shelf: Running, body: dict[str, str]) -> None:
    assert (await show(shelf.client, **body)).ok()["details"]["family"] == "qwen3"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": "", "name": ""}, 400, "model is required"),
        ({"model": "a b"}, 400, "invalid model name"),
        ({"model": ".."}, 400, "invalid model name"),
        ({"model": "Nope:x"}, 404, "model 'Nope:x' not found"),
        ({"model": "bge-m3"}, 404, "model 'bge-m3' not found"),
        ({"model": "text-embedding-9"}, 404, "model 'text-embedding-9' not found"),
    ],
)
async def test_what_cannot_be_shown_is_told_in_ollamas_words(
    shelf: Running, body: dict[str, str], status: int, text: str
) -> None:
    assert told(await show(shelf.client, **body), status) == text


@pytest.mark.parametrize("path", ["/api/show", "/api/copy", "/api/pull", "/api/generate"])
async def test_no_body_is_told_in_ollamas_words(shelf: Running, path: str) -> None:
    answer = await shelf.client.ask("POST", path, data=b"")
    assert told(answer, 400) == "missing request body"


async def running_models(client: Client) -> list[Any]:
    models: list[Any] = (await client.get("/api/ps")).ok()["models"]
    return models


def stays_s(model: dict[str, Any]) -> float:
    left = datetime.fromisoformat(model["expires_at"]) - datetime.now(UTC)
    return left.total_seconds()


async def test_what_is_loaded_is_told_and_until_when(own: Running) -> None:
    (await embed(own.client, "qwen", keep_alive="10m")).ok()
    first, second = await running_models(own.client)
    assert (first["name"], first["model"]) == ("qwen:latest", "qwen:latest")
    assert stays_s(first) == pytest.approx(600, abs=5)
    assert (second["name"], stays_s(second)) == ("tiny:latest", pytest.approx(300, abs=60))
    model = (await listed(own.client))["qwen:latest"]
    assert (first["digest"], first["details"]) == (model["digest"], model["details"])
    [loaded] = [each for each in own.memory.engine.loaded() if each.model.spec.name == "qwen"]
    assert first["size"] == loaded.memory_bytes > 0
    assert first["size_vram"] == 0
    assert first["context_length"] == loaded.model.max_tokens


async def test_for_ever_is_292_years(own: Running) -> None:
    (await embed(own.client, "qwen", keep_alive=-1)).ok()
    years = stays_s((await running_models(own.client))[0]) / timedelta(days=365).total_seconds()
    assert years == pytest.approx(292, abs=0.1)


async def test_keep_alive_moves_only_the_expiry_of_a_collections_model(own: Running) -> None:
    for name in ("tiny", "qwen"):
        (await embed(own.client, name, keep_alive=0)).ok()
    await until(lambda: not own.memory.engine.is_loaded("qwen"))
    [model] = await running_models(own.client)
    assert (model["name"], stays_s(model)) == ("tiny:latest", pytest.approx(0, abs=2))


async def test_a_model_whose_file_has_gone_is_still_told_to_be_loaded(own: Running) -> None:
    (await embed(own.client, "qwen", keep_alive=-1)).ok()
    (models_dir_of(own) / "qwen.gguf").unlink()
    model = (await running_models(own.client))[0]
    assert (model["name"], model["digest"]) == ("qwen:latest", "")


@pytest.mark.parametrize(
    ("gpu_layers", "share"), [(0, 0.0), (-1, 1.0), (1, 0.25), (4, 1.0), (100, 1.0)]
)
def test_a_part_of_a_model_can_be_on_the_gpu(gpu_layers: int, share: float) -> None:
    header = GgufHeader({"general.architecture": "bert", "bert.block_count": 3}, 0, "F32")
    assert gpu_share(gpu_layers, header) == share


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (999, "999"),
        (116_448, "116K"),
        (22_565_376, "22.57M"),
        (596_000_000, "596M"),
        (7_000_000_000, "7B"),
        (7_567_295_488, "7.6B"),
    ],
)
def test_weights_are_counted_as_ollama_writes_it(count: int, shown: str) -> None:
    assert shown_count(count) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a", "a:latest"), ("a:b", "a:b"), ("host:80/a", "host:80/a:latest"), ("o/a:b", "o/a:b")],
)
def test_a_name_without_a_tag_gets_one(name: str, shown: str) -> None:
    assert shown_name(name) == shown


async def test_a_copy_is_a_model_of_its_own_that_takes_no_room(own: Running) -> None:
    original = (await embed(own.client, "qwen")).ok()["embeddings"]
    answer = await copy(own.client, "QWEN:latest", "team/mine:v1")
    assert (answer.status, answer.data) == (200, b"")
    models = await listed(own.client)
    assert models["team/mine:v1"]["digest"] == models["qwen:latest"]["digest"]
    names = [path for path in models_dir_of(own).glob("*.gguf") if path.name != "tiny.gguf"]
    assert len(names) == 2
    assert len({path.stat().st_ino for path in names}) == 1
    assert (await embed(own.client, "team/mine:v1")).ok()["embeddings"] == original


async def test_a_copy_is_there_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    put_tiny("qwen3", tmp_path / "qwen.gguf")
    async with serve_tiny(serve, tmp_path) as running:
        await copy(running.client, "qwen", "mine")
    async with serve_tiny(serve, tmp_path) as running:
        assert "mine:latest" in await listed(running.client)
        (await embed(running.client, "mine")).ok()


async def test_of_a_model_and_its_copy_each_can_be_deleted(own: Running) -> None:
    await copy(own.client, "qwen", "first")
    await copy(own.client, "first", "second")
    (await embed(own.client, "first")).ok()
    answer = await delete(own.client, model="first")
    assert (answer.status, answer.data) == (200, b"")
    assert set(await listed(own.client)) == {"tiny:latest", "qwen:latest", "second:latest"}
    assert told(await embed(own.client, "first"), 404).startswith('model "first" not found')
    (await embed(own.client, "qwen")).ok()
    (await embed(own.client, "second")).ok()


async def test_a_copy_keeps_what_is_said_of_the_model(own: Running) -> None:
    folder = models_dir_of(own)
    put_tiny("bert", folder / "hidden" / "described.gguf")
    (folder / "described.yaml").write_text(DESCRIBED)
    await copy(own.client, "described", "mine")
    original = (await show(own.client, model="described")).ok()["model_info"]
    assert (await show(own.client, model="mine")).ok()["model_info"] == original
    (folder / "hidden" / "described.gguf").unlink()  # It is used in place, and so is its copy.
    assert told(await show(own.client, model="mine"), 501)


async def test_a_copy_may_have_the_name_of_a_gallery_model_that_is_not_here(own: Running) -> None:
    assert (await copy(own.client, "qwen", "mxbai-embed-large")).status == 200
    vectors = (await embed(own.client, "mxbai-embed-large")).ok()["embeddings"]
    assert np.shape(vectors) == (1, WIDTH)


async def test_copying_again_changes_nothing(own: Running) -> None:
    for _ in range(2):
        assert (await copy(own.client, "qwen", "mine")).status == 200
    assert (await copy(own.client, "qwen", "qwen:latest")).status == 200
    assert set(await listed(own.client)) == {"tiny:latest", "qwen:latest", "mine:latest"}


@pytest.mark.parametrize(
    ("source", "destination", "status", "text"),
    [
        (None, "x", 400, 'source "" is invalid'),
        ("a b", "x", 400, 'source "a b" is invalid'),
        ("tiny", None, 400, 'destination "" is invalid'),
        ("tiny", "../x", 400, 'destination "../x" is invalid'),
        ("nope", "x", 404, 'model "nope" not found'),
        ("bge-m3", "x", 404, 'model "bge-m3" not found'),
    ],
)
async def test_what_cannot_be_copied_is_told_in_ollamas_words(
    shelf: Running, source: str, destination: str, status: int, text: str
) -> None:
    assert told(await copy(shelf.client, source, destination), status) == text


async def test_a_copy_takes_no_name_away(shelf: Running) -> None:
    assert "taken" in told(await copy(shelf.client, "tiny", "qwen"), 409)
    assert "taken" in told(await copy(shelf.client, "tiny", "Family:1b"), 409)
    assert "alias" in told(await copy(shelf.client, "tiny", "given"), 409)


async def test_a_deleted_model_leaves_at_once(own: Running) -> None:
    await copy(own.client, "qwen", "mine")
    (await embed(own.client, "mine", keep_alive=-1)).ok()
    assert (await delete(own.client, name="MINE:latest")).status == 200
    await until(lambda: not own.memory.engine.is_loaded("mine"))
    assert [model["name"] for model in await running_models(own.client)] == ["tiny:latest"]
    assert told(await delete(own.client, name="mine"), 404) == "model 'mine' not found"


async def test_a_model_that_a_collection_works_with_is_not_deleted(own: Running) -> None:
    await copy(own.client, "qwen", "mine")
    body = {"name": "kb", "model": "mine", "chunking": {"max_tokens": 64, "overlap_tokens": 0}}
    (await own.client.post("/v1/collections", body)).ok(201)
    assert "a collection works with mine" in told(await delete(own.client, model="mine"), 409)
    assert "mine:latest" in await listed(own.client)


async def test_the_model_of_new_collections_is_not_deleted(serve: Serve, tmp_path: Path) -> None:
    async with serve_tiny(serve, tmp_path) as running:
        await copy(running.client, "tiny", "mine")
        object.__setattr__(running.memory.settings, "model", "mine")
        assert "new collections" in told(await delete(running.client, model="mine"), 409)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": "a b"}, 400, 'name "a b" is invalid'),
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"name": "bge-m3"}, 404, "model 'bge-m3' not found"),
        ({"model": "", "name": "nope"}, 404, "model 'nope' not found"),
    ],
)
async def test_what_cannot_be_deleted_is_told_in_ollamas_words(
    shelf: Running, body: dict[str, str], status: int, text: str
) -> None:
    assert told(await delete(shelf.client, **body), status) == text


async def test_what_is_not_memoryds_to_delete_is_a_conflict(shelf: Running) -> None:
    assert "remove yourself" in told(await delete(shelf.client, model="qwen"), 409)
    assert "setting alias" in told(await delete(shelf.client, model="Given"), 409)
    assert (models_dir_of(shelf) / "qwen.gguf").is_file()
