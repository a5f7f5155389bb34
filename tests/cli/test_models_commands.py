"""`memoryd models …` as a shell runs it, with tiny models and a hub of the test's own."""

import asyncio
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from polling import until
from servers import Serve
from shell import end, on_a_terminal, run, start
from tiny_models import WIDTH, make_tiny

from memoryd.cli.model_reports import print_tuned
from memoryd.memory.model_tuning import Speed, TunedModel
from memoryd.models.conversion import convert, describe_folder

GALLERY = """
[[models]]
name = "tiny"
repository = "some/tiny"
gguf = "tiny.gguf"
"""
WRONG = "name: wrong\nparameters: {model: x.gguf}\n"


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny("bert", tmp_path_factory.mktemp("tiny"))
    file = folder / "made.gguf"
    convert(describe_folder(folder, "tiny"), folder, file, "f32")
    return file


@pytest.fixture
def own_models(tmp_path: Path) -> Path:
    """Give a models directory of the test's own."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "gallery.toml").write_text(GALLERY)
    return folder


@pytest.fixture
def here(own_models: Path, tiny_file: Path) -> tuple[str, ...]:
    """Give the option that names a models directory with the file of a model in it."""
    shutil.copy(tiny_file, own_models / "mine.gguf")
    return ("--models-dir", str(own_models))


@dataclass
class Hub:
    """Serve one file, whatever is asked for, and stop after half of it the first time."""

    content: bytes
    stalls: bool = False
    half_sent: asyncio.Event = field(default_factory=asyncio.Event)
    starts: list[int] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for the whole file, or for the rest of it."""
        first = int(request.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        self.starts.append(first)
        total = len(self.content)
        headers = {"ETag": '"v1"', "Content-Range": f"bytes {first}-{total - 1}/{total}"}
        response = web.StreamResponse(status=206 if first else 200, headers=headers)
        response.content_length = total - first
        await response.prepare(request)
        if self.stalls and not first:
            await response.write(self.content[: total // 2])
            self.half_sent.set()
            await asyncio.Event().wait()
        await response.write(self.content[first:])
        return response


@pytest.fixture(scope="module")
def content(tiny_file: Path) -> bytes:
    return tiny_file.read_bytes()


@pytest.fixture
async def hub(content: bytes, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    hub = Hub(content)
    app = web.Application()
    app.router.add_get("/some/tiny/resolve/main/tiny.gguf", hub.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield hub
    await runner.cleanup()


def found(pattern: str, folder: Path) -> list[Path]:
    return list(folder.glob(pattern))


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        return str(closed_soon.getsockname()[1])


async def test_models_are_listed_between_tabs_and_as_json(
    here: tuple[str, ...], own_models: Path
) -> None:
    (own_models / "wrong.yaml").write_text(WRONG)
    said = await run("models", "list", *here)
    heading, *lines = (line.split("\t") for line in said.out.splitlines())
    rows = {line[0]: dict(zip(heading, line, strict=True)) for line in lines}
    assert (said.status, said.err, set(rows)) == (0, "", {"mine", "wrong"})
    file = own_models / "mine.gguf"
    assert rows["mine"]["size"] == str(file.stat().st_size)
    assert (rows["mine"]["source"], rows["mine"]["fault"]) == (str(file), "-")
    assert (rows["wrong"]["kind"], rows["wrong"]["size"]) == ("faulty", "-")
    assert "embeddings: is missing" in rows["wrong"]["fault"]
    answer = (await run("models", "list", "--all", "--json", *here)).json
    models = {model["name"]: model for model in answer["models"]}
    assert set(rows) | {"tiny", "all-minilm", "bge-m3"} <= set(models)
    assert (models["bge-m3"]["is_here"], models["bge-m3"]["path"]) == (False, None)
    assert (models["mine"]["is_here"], models["mine"]["path"]) == (True, str(file))


async def test_models_are_a_table_on_a_terminal(here: tuple[str, ...], own_models: Path) -> None:
    (own_models / "wrong.yaml").write_text(WRONG)
    said = await on_a_terminal("models", "list", *here)
    assert said.status == 0
    assert re.search(r"│ mine +│ embedding │ \d+\.\d kB", said.out)
    assert f"wrong can't be used: {own_models}" in said.out


async def test_a_model_is_shown_with_what_its_file_says(here: tuple[str, ...]) -> None:
    said = await run("models", "show", "mine", *here)
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in said.out.splitlines())
    assert (facts["architecture"], facts["pooling"]) == ("bert", "mean")
    assert facts["dimensions"] == str(WIDTH)
    answer = (await run("models", "show", "mine", "--json", *here)).json
    assert (answer["architecture"], answer["dimensions"]) == ("bert", WIDTH)
    assert answer["files"] == answer["speeds"] == []


@pytest.mark.parametrize("command", ["show", "pull", "tune", "path", "remove"])
async def test_of_an_unknown_name_those_that_are_near_are_told(
    command: str, here: tuple[str, ...]
) -> None:
    said = await run("models", command, "bge-m33", *here)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("memoryd: model 'bge-m33' not found; did you mean bge-m3? ")
    assert said.err.count("\n") == 1


async def test_what_is_pulled_is_told_and_what_fails_too(
    hub: Hub, here: tuple[str, ...], own_models: Path
) -> None:
    pull = ("models", "pull", "--measure-models", "false", *here)
    said = await run(*pull, "none", "tiny")
    assert said.status == 1
    [path] = found("tiny-*.gguf", own_models)
    assert said.out.startswith(f"tiny is here now: {path} (")
    failure, *steps = said.err.splitlines()
    assert failure.startswith("memoryd: model 'none' not found")
    assert steps[0].startswith("fetching tiny.gguf")
    assert re.fullmatch(r"fetching tiny\.gguf: 100 % of [\d.]+ kB", steps[-2])
    assert steps[-1] == "trying tiny on this machine"
    again = await run(*pull, "tiny", "--json")
    assert (again.status, again.err) == (0, "")
    [model] = again.json["models"]
    assert (model["name"], model["was_here"], model["path"]) == ("tiny", True, str(path))
    assert (await run("models", "path", "tiny", *here)).out == f"{path}\n"


async def test_a_pull_that_ctrl_c_ends_goes_on_where_it_was(
    hub: Hub, here: tuple[str, ...], own_models: Path
) -> None:
    hub.stalls = True
    pull = ("models", "pull", "--measure-models", "false", "tiny", *here)
    process = await start(*pull)
    await asyncio.wait_for(hub.half_sent.wait(), 30)
    await until(lambda: any(part.stat().st_size for part in found("**/*.part", own_models)))
    process.send_signal(signal.SIGINT)
    said = await end(process)
    assert (said.status, said.out) == (130, "")
    assert (await run(*pull)).status == 0
    assert hub.starts[0] == 0
    assert hub.starts[1] > 0
    [file] = found("tiny-*.gguf", own_models)
    assert file.read_bytes() == hub.content


async def test_a_file_is_imported_with_what_is_said_of_it(
    tiny_file: Path, here: tuple[str, ...], own_models: Path
) -> None:
    options = ("--query-prefix", r"Instruct: {instruction}\nQuery: ", "--instruction", "Find it")
    options += ("--document-prefix", "title: {title}", "--pooling", "cls", "--name", "own")
    said = await run(
        *("models", "import", str(tiny_file), *options, "--measure-models", "false", *here)
    )
    assert said.status == 0
    assert said.out.startswith(f"own is here now: {tiny_file} (")
    shown = (await run("models", "show", "own", "--json", *here)).json
    assert shown["query_prefix"] == "Instruct: {instruction}\nQuery: "
    assert shown["instruction"] == "Find it"
    assert shown["document_prefix"] == "title: {title}"
    assert (shown["pooling"], shown["origin"]) == ("cls", str(own_models / "own.yaml"))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--pooling", "average"), "pooling: 'average' must be one of none, mean, cls, last, rank"),
        (("--weight-type", "q8_0"), "weight_type: 'q8_0' must be one of bf16, f32"),
        (("--name", "a b"), "'a b' can't be a model's name"),
    ],
)
async def test_an_import_of_what_cannot_be_is_refused(
    option: tuple[str, str], said: str, tiny_file: Path, here: tuple[str, ...]
) -> None:
    refused = await run("models", "import", str(tiny_file), *option, *here)
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith(f"memoryd: {said}")
    assert refused.err.count("\n") == 1


async def test_the_default_model_is_removed_with_yes_alone(
    hub: Hub, here: tuple[str, ...], own_models: Path
) -> None:
    await run("models", "pull", "tiny", "--measure-models", "false", *here)
    [file] = found("tiny-*.gguf", own_models)
    remove = ("models", "remove", "tiny", "--model", "tiny", "--port", closed_port(), *here)
    said = await run(*remove)
    assert (said.status, said.err) == (
        1,
        "memoryd: tiny is the default model: add --yes to remove it\n",
    )
    assert file.exists()
    said = await run(*remove, "--yes")
    assert (said.status, said.out.splitlines()[0]) == (0, "deleted of tiny:")
    assert f"  {file}" in said.out.splitlines()
    assert "no memoryd could be asked" in said.err
    assert not file.exists()


async def test_on_a_terminal_it_is_asked_before_a_model_is_removed(
    tiny_file: Path, here: tuple[str, ...], own_models: Path
) -> None:
    await run("models", "import", str(tiny_file), "--name", "own", *here)
    remove = ("models", "remove", "own", "--port", closed_port(), *here)
    said = await on_a_terminal(*remove, types="n\n")
    assert said.status == 1
    assert "Traceback" not in said.out
    assert (own_models / "own.yaml").exists()
    said = await on_a_terminal(*remove, types="y\n")
    assert said.status == 0
    assert not (own_models / "own.yaml").exists()
    assert found(tiny_file.name, tiny_file.parent)


async def test_a_model_that_a_collection_of_the_server_works_with_is_kept(
    serve: Serve, tiny_file: Path, here: tuple[str, ...], own_models: Path
) -> None:
    await run("models", "import", str(tiny_file), "--name", "toy", *here)
    async with serve() as running:
        said = await run("models", "remove", "toy", "--yes", "--url", running.client.url, *here)
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("memoryd: a collection works with toy: ")
    assert (own_models / "toy.yaml").exists()


async def test_the_table_of_speeds_is_shown(here: tuple[str, ...], own_models: Path) -> None:
    said = await run("models", "tune", "mine", *here)
    assert said.status == 0
    heading, first, *_ = (line.split("\t") for line in said.out.splitlines())
    assert heading == ["weights", "lanes", "threads", "tokens per call", "tokens/s", "gain", "used"]
    assert (first[0], first[3]) == ("f32", "256")
    assert "\nUsed: " in said.out
    assert f"\nKept in {own_models}: " in said.out
    shown = (await run("models", "show", "mine", "--json", *here)).json
    assert f"{shown['speeds'][0]['tokens_per_s']:.0f}" == first[4]


@pytest.mark.parametrize(
    ("origin", "is_converted", "said"),
    [
        (None, True, "`memoryd models pull own --weight-type f32`"),
        (Path("/x/own.yaml"), True, "import it again with `--weight-type f32`"),
        (Path("/x/own.yaml"), False, "import a GGUF of the model with f32 weights"),
    ],
)
def test_what_to_do_for_faster_weights_is_told(
    origin: Path | None, is_converted: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    speeds = (
        Speed("bf16", 1, 2, 512, 100.0, 1.0, is_used=False),
        Speed("bf16", 2, 1, 512, 120.0, 1.15, is_used=True),
        Speed("f32", 2, 1, 512, 130.0, 1.08, is_used=False),
    )
    print_tuned(
        TunedModel("own", Path("/x"), origin, "bf16", is_converted, speeds, "f32", Path("/x"))
    )
    out = capsys.readouterr().out
    assert out.splitlines()[2] == "bf16\t2\t1\t512\t120\t+15%\tyes"
    assert (
        "2 lanes of 1 thread, 512 tokens per call. In each turn it was at least 15% faster" in out
    )
    assert said in out
