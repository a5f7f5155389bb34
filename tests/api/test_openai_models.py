"""GET /v1/models and /v1/models/{model}, over a models directory of tiny real models."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from servers import Running, Serve
from tiny_models import POSITIONS, WIDTH, make_tiny
from wire import Client

from memoryd.memory.models import ModelLoader
from memoryd.models.catalog import OPENAI_NAMES
from memoryd.models.conversion import convert, describe_folder

GALLERY = """
[[models]]
name = "some/tiny"
aliases = ["tiny:v1"]
path = "elsewhere/tiny.gguf"
trained_dimensions = [16, 8]
min_dimensions = 24

[[models]]
name = "lost"
path = "elsewhere/lost.gguf"
"""
FIELDS = {"id", "object", "created", "owned_by", "root", "capabilities", "dimensions"}
FIELDS |= {"trained_dimensions", "min_dimensions", "meta"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a models directory: an embedding model, a reranker, one lost, and one broken."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "elsewhere").mkdir()
    for kind, target in (("bert", "elsewhere/tiny.gguf"), ("bert-rank", "judge.gguf")):
        source = make_tiny(kind, tmp_path_factory.mktemp("tiny") / kind)
        convert(describe_folder(source, kind), source, folder / target, "f32")
    (folder / "gallery.toml").write_text(GALLERY)
    (folder / "wreck.gguf").write_bytes(b"GGUF" + 100 * b"\xff")
    return folder


def use(running: Running, models_dir: Path, **settings: Any) -> None:
    """Let a running server have another models directory."""
    changed = {"models_dir": models_dir, "model": "some/tiny", **settings}
    running.memory.settings = running.memory.settings.model_copy(update=changed)
    running.memory.loader = ModelLoader.of(running.memory.settings)


@pytest_asyncio.fixture(scope="module")
async def shelved(serve: Serve, shelf: Path) -> AsyncIterator[Running]:
    async with serve() as running:
        use(running, shelf, alias={"mxbai-embed-large": "tiny:v1", "astray": "lost"})
        yield running


@pytest.fixture
def on_shelf(shelved: Running) -> Client:
    return shelved.client


async def test_those_that_are_here_are_listed_by_each_name_that_clients_use(
    on_shelf: Client,
) -> None:
    answer = (await on_shelf.get("/v1/models")).ok()
    assert set(answer) == {"object", "data"}
    assert answer["object"] == "list"
    roots = {model["id"]: model["root"] for model in answer["data"]}
    others = dict.fromkeys(("mxbai-embed-large", *OPENAI_NAMES), "some/tiny")
    assert roots == {"some/tiny": "some/tiny", "judge": "judge", **others}
    assert [model["id"] for model in answer["data"]][-3:] == list(OPENAI_NAMES)


async def test_a_model_is_told_with_its_figures(on_shelf: Client, shelf: Path) -> None:
    models = (await on_shelf.get("/v1/models")).ok()["data"]
    tiny, judge = (next(m for m in models if m["id"] == name) for name in ("some/tiny", "judge"))
    file = shelf / "elsewhere" / "tiny.gguf"
    assert set(tiny) == FIELDS
    assert (tiny["object"], tiny["owned_by"]) == ("model", "memoryd")
    assert tiny["created"] == int(file.stat().st_mtime)
    assert (tiny["capabilities"], judge["capabilities"]) == (["embedding"], ["rerank"])
    assert (tiny["dimensions"], judge["dimensions"]) == (WIDTH, None)
    assert (tiny["trained_dimensions"], tiny["min_dimensions"]) == ([16, 8], 24)
    meta = tiny["meta"]
    assert (meta["n_embd"], meta["n_ctx"], meta["n_ctx_train"]) == (WIDTH, POSITIONS, POSITIONS)
    assert meta["size"] == file.stat().st_size
    assert meta["n_params"] > WIDTH * POSITIONS
    assert meta["n_vocab"] is None


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


async def test_to_list_and_to_show_runs_nothing(on_shelf: Client, shelf: Path) -> None:
    before = files_in(shelf)
    (await on_shelf.get("/v1/models")).ok()
    (await on_shelf.get("/v1/models/judge")).ok()
    assert files_in(shelf) == before  # a model that was run leaves a measurement


@pytest.mark.parametrize(
    "name",
    ["some/tiny", "some%2Ftiny", "Some/Tiny", "tiny:v1", "tiny%3Av1", "mxbai-embed-large:latest"],
)
async def test_a_model_is_shown_by_any_name_and_called_as_asked(
    on_shelf: Client, name: str
) -> None:
    model = (await on_shelf.get(f"/v1/models/{name}")).ok()
    asked = name.replace("%2F", "/").replace("%3A", ":")
    assert (model["id"], model["root"]) == (asked, "some/tiny")


@pytest.mark.parametrize("name", ["gpt-4", "bge-m3", "no/such/model", "%20", ".."])
async def test_a_model_that_is_not_here_is_not_found(on_shelf: Client, name: str) -> None:
    error = (await on_shelf.get(f"/v1/models/{name}")).refused(404, "model_not_found")
    assert (error["type"], error["param"]) == ("not_found_error", "model")


@pytest.mark.parametrize("name", ["lost", "wreck"])
async def test_a_model_that_cannot_be_used_is_told_with_its_fault(
    on_shelf: Client, name: str
) -> None:
    error = (await on_shelf.get(f"/v1/models/{name}")).refused(501, "model_unusable")
    assert name in error["message"]


async def test_without_a_model_the_list_is_empty(running: Running, tmp_path: Path) -> None:
    use(running, tmp_path)
    assert (await running.client.get("/v1/models")).ok() == {"object": "list", "data": []}


async def test_an_alias_stands_in_the_place_of_the_model_that_it_hides(
    running: Running, shelf: Path
) -> None:
    use(running, shelf, alias={"Judge": "some/tiny", "text-embedding-ada-002": "judge"})
    listed = (await running.client.get("/v1/models")).ok()["data"]
    roots = [(model["id"], model["root"]) for model in listed]
    assert sorted(roots)[:3] == [
        ("judge", "some/tiny"),
        ("some/tiny", "some/tiny"),
        ("text-embedding-3-large", "some/tiny"),
    ]
    assert ("text-embedding-ada-002", "judge") in roots
    assert len(roots) == 5


async def test_a_file_that_comes_is_listed_at_once(
    running: Running, shelf: Path, tmp_path: Path
) -> None:
    use(running, tmp_path)
    (await running.client.get("/v1/models/judge")).refused(404)
    shutil.copy(shelf / "judge.gguf", tmp_path)
    listed = (await running.client.get("/v1/models")).ok()["data"]
    assert [model["id"] for model in listed] == ["judge"]


async def test_openais_client_lists_and_retrieves(shelved: Running) -> None:
    url = f"{shelved.client.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
        names = [model.id async for model in client.models.list()]
        assert {"some/tiny", "text-embedding-3-small"} <= set(names)
        model = await client.models.retrieve("some/tiny")
        assert (model.id, model.object, model.owned_by) == ("some/tiny", "model", "memoryd")
        assert model.created > 0
        with pytest.raises(openai.NotFoundError) as missing:
            await client.models.retrieve("gpt-4")
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
