"""`memoryd serve` with `--port` given several times, and with `--alias`."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from memoryd_process import MemorydProcess, command, environment, serving
from toys import ToyShelf
from wire import Client

from memoryd.config import Settings
from memoryd.embeddings.engine import Engine
from memoryd.errors import ConflictError, ModelNotFoundError, SetupError
from memoryd.memory.model_changes import import_model, pull_model
from memoryd.memory.model_removal import remove_model
from memoryd.memory.models import ModelLoader
from memoryd.postgres.server import read_lock

MXBAI, OTHER = "mxbai-embed-large=all-minilm", "Other:v2=all-minilm"


def listening() -> socket.socket:
    """Return a socket that listens on a free port."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


def port_of(taken: socket.socket) -> int:
    port: int = taken.getsockname()[1]
    return port


@pytest_asyncio.fixture(scope="module")
async def aliased(
    open_place: Path, models_dir: Path, model_file: Path
) -> AsyncIterator[MemorydProcess]:
    """Give a memoryd that listens on two ports, with two aliases and one for the default model."""
    with listening() as taken:
        port = port_of(taken)
    options = ["--port", str(port), "--alias", MXBAI, "--alias", OTHER]
    mine = ["--model", "mine", "--alias", "mine=all-minilm"]
    async with serving(open_place / "aliased", models_dir, *options, *mine) as running:
        assert running.url == f"http://127.0.0.1:{port}"
        yield running


@pytest_asyncio.fixture(scope="module")
async def aliased_client(aliased: MemorydProcess) -> AsyncIterator[Client]:
    async with Client(aliased.url) as client:
        yield client


async def test_it_listens_on_each_port_and_says_so(aliased: MemorydProcess) -> None:
    assert aliased.process.stdout is not None
    line = (await aliased.process.stdout.readline()).decode()
    second = line.removeprefix("memoryd listens on ").split()[0]
    assert second != aliased.url
    async with Client(aliased.url) as one, Client(second) as other:
        await one.store(id="d", text="a cat")
        assert await other.found("a cat") == ["d"]
    holder = read_lock(aliased.data_dir)
    assert holder is not None
    assert holder.url == aliased.url


async def test_a_port_that_is_taken_is_named(
    data_dir: Path, models_dir: Path, model_file: Path
) -> None:
    with listening() as taken:
        port = port_of(taken)
        options = ("--port", "0", "--port", str(port))
        process = await asyncio.create_subprocess_exec(
            *command(data_dir, models_dir, *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        printed, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert printed == b""
    assert f"cannot listen on 127.0.0.1 port {port}" in said.decode()
    assert "--port" in said.decode()


@pytest.mark.parametrize(
    "name", ["mxbai-embed-large", "MXBAI-Embed-Large:latest", " other:v2", "OTHER:V2", "Mine"]
)
async def test_an_alias_is_a_name_of_its_model(aliased_client: Client, name: str) -> None:
    body = {"input": ["why is the sky blue?"]}
    own = (await aliased_client.post("/api/embed", {"model": "all-minilm", **body})).ok()
    answer = await aliased_client.post("/api/embed", {"model": name, **body})
    assert answer.ok()["model"] == name
    assert answer.ok()["embeddings"] == own["embeddings"]
    assert "Warning" not in answer.headers
    assert len(own["embeddings"][0]) == 384
    openai = (await aliased_client.post("/v1/embeddings", {"model": name, **body})).ok()
    assert (openai["model"], len(openai["data"][0]["embedding"])) == (name, 384)


async def test_an_alias_wins_over_the_gallerys_own_name_alone(aliased_client: Client) -> None:
    for name in ("mxbai-embed-large:335m", "mixedbread-ai/mxbai-embed-large-v1", "other"):
        answer = await aliased_client.post("/api/embed", {"model": name, "input": "x"})
        assert answer.status == 404, name


async def test_another_width_than_the_names_model_has_is_told_at_the_start(
    aliased: MemorydProcess,
) -> None:
    told = [line for line in aliased.said.splitlines() if " WARNING " in line]
    assert len(told) == 1
    assert "mxbai-embed-large means all-minilm here" in told[0]
    assert "384 dimensions" in told[0]
    assert "1024" in told[0]
    assert "vector(384)" in told[0]


async def test_a_collection_keeps_the_models_own_name(aliased_client: Client) -> None:
    body = {"name": "by-alias", "model": "mxbai-embed-large"}
    made = (await aliased_client.post("/v1/collections", body)).ok(201)
    assert (made["model"], made["dimensions"]) == ("all-minilm", 384)
    default = (await aliased_client.get("/v1/collections/default")).ok()
    assert default["model"] == "all-minilm"
    assert (await aliased_client.get("/health/ready")).status == 200


async def test_an_alias_stands_in_the_lists(aliased_client: Client) -> None:
    names = {"all-minilm", "mxbai-embed-large", "other:v2", "mine"}
    usable = (await aliased_client.get("/models_available")).ok()
    assert names <= {model["name"] for model in usable}
    models = (await aliased_client.get("/v1/models")).ok()["data"]
    assert names <= {model["id"].lower() for model in models}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--alias", "a=all-minlm"], "alias a=all-minlm: there is no model 'all-minlm'; did you"),
        (["--alias", "a=x/y"], "`memoryd models list --all`"),
        (["--alias", "a=b", "--alias", "b=all-minilm"], "alias a=b: b is an alias itself"),
        (["--alias", "a=A:latest"], "alias a=A:latest: A:latest is an alias itself"),
        (["--alias", "a b=all-minilm"], "alias a b=all-minilm: 'a b' can't be a model's name"),
        (["--alias", "a"], "option --alias: 'a' must be of the form name=model"),
    ],
)
async def test_an_alias_that_leads_nowhere_is_refused_at_the_start(
    data_dir: Path, models_dir: Path, options: list[str], told: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *command(data_dir, models_dir, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    printed, said = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, printed) == (1, b"")
    [line] = said.decode().splitlines()
    assert line.startswith("memoryd: ")
    assert told in line


class AliasedShelf(ToyShelf):
    """Call the model `a` by the own name of another, as an alias does."""

    def resolve(self, name: str) -> str:
        """Return the one name of the model that clients call `name`."""
        return super().resolve("a" if name == "b" else name)


async def test_an_alias_takes_no_collection_from_its_own_model() -> None:
    async with Engine(AliasedShelf("a", "b")) as engine:
        async with engine.using("b") as model:
            assert model.spec.name == "a"
        async with engine.pinning("b") as model:
            assert model.spec.name == "b"


async def test_an_alias_does_not_expire_in_the_place_of_the_model_that_it_hides() -> None:
    async with Engine(AliasedShelf("a", "b")) as engine:
        async with engine.using("b", -1) as model:
            assert model.spec.name == "a"
        engine.expire("b")
        await asyncio.sleep(0.05)
        assert engine.is_loaded("a")


@pytest.mark.parametrize("name", ["mine", "MINE:latest", "bge-m3"])
def test_who_removes_an_alias_does_not_remove_the_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "all-minilm-bf16.gguf").touch()
    (tmp_path / "bge-m3.gguf").touch()
    loader = ModelLoader(tmp_path, aliases={"mine": "all-minilm", "bge-m3": "all-minilm"})
    with pytest.raises(ConflictError, match="all-minilm"):
        remove_model(loader, name)
    assert len(list(tmp_path.glob("*.gguf"))) == 2


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.mark.parametrize("name", ["mine", "MINE:latest", "org/x"])
async def test_no_model_is_brought_in_under_an_alias(tmp_path: Path, name: str) -> None:
    loader = ModelLoader(tmp_path, aliases={"mine": "all-minilm", "org/x": "all-minilm"})
    with pytest.raises(ConflictError, match="setting alias"):
        await import_model(loader, "hf:some/tiny:tiny.gguf", name=name)
    with pytest.raises(ConflictError, match="setting alias"):
        await pull_model(loader, "hf:org/x")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    "given",
    [
        "A=all-minilm,a:latest=bge-m3",
        {"a": "all-minilm", "A": "bge-m3"},
        {"library/a": "all-minilm", "a": "all-minilm"},
    ],
)
def test_an_alias_that_is_given_twice_in_two_spellings_is_refused(given: Any) -> None:
    with pytest.raises(SetupError, match="gives the same name"):
        ModelLoader.of(Settings(alias=given))


def test_an_alias_that_leads_nowhere_any_more_is_no_other_model(tmp_path: Path) -> None:
    loader = ModelLoader(tmp_path, aliases={"text-embedding-3-small": "gone"})
    with pytest.raises(ModelNotFoundError, match="gone"):
        loader.resolve("text-embedding-3-small")


def test_an_alias_may_be_one_of_openais_names(tmp_path: Path) -> None:
    loader = ModelLoader(tmp_path, aliases={"text-embedding-3-small": "bge-m3"})
    assert loader.resolve("Text-Embedding-3-Small") == "bge-m3"
    assert loader.resolve("text-embedding-3-large") == "all-minilm"
    with pytest.raises(ModelNotFoundError):
        loader.resolve("text-embedding-4")
