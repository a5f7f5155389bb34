import asyncio
import json
import os
from hashlib import sha256
from pathlib import Path

import gguf
import pytest
from local_hub import FileServer, LocalHub
from polling import until

from memoryd.errors import (
    ConflictError,
    InvalidInputError,
    ModelFileError,
    ModelNotFoundError,
)
from memoryd.models.catalog import find_entry
from memoryd.models.gallery import GalleryEntry, SourceFile, load_gallery
from memoryd.models.imports import import_model, remove_model
from memoryd.models.records import read_record
from memoryd.models.store import ensure_model, find_model


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def dropped(tmp_path: Path, tiny_gguf: bytes) -> Path:
    """Give a GGUF that lies outside of the models directory."""
    path = tmp_path / "Own model.gguf"
    path.write_bytes(tiny_gguf)
    return path


async def bring(source: str | Path, models_dir: Path, name: str | None = None) -> GalleryEntry:
    return await import_model(str(source), models_dir, name=name, weight_type="f32")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def visible_in(folder: Path) -> set[str]:
    return {name for name in names_in(folder) if not name.startswith(".")}


def names_below(folder: Path, pattern: str) -> set[str]:
    return {path.name for path in folder.rglob(pattern)}


def move_away(path: Path) -> Path:
    return path.rename(path.with_name("elsewhere"))


def is_there(path: Path) -> bool:
    return path.is_file()


async def found(name: str, models_dir: Path) -> Path:
    file = find_model(name, models_dir, "f32")
    assert file
    assert await ensure_model(name, models_dir, "f32") == file
    return file.path


async def test_a_file_is_used_in_place_and_never_removed(models_dir: Path, dropped: Path) -> None:
    entry = await bring(dropped, models_dir)
    assert entry.name == "Own-model"
    assert find_entry("own-MODEL", models_dir) == entry
    assert await found("Own-model", models_dir) == dropped
    assert remove_model("own-model", models_dir)
    assert is_there(dropped)
    assert visible_in(models_dir) == set()
    with pytest.raises(ModelNotFoundError):
        find_entry("Own-model", models_dir)


async def test_a_file_that_lies_in_the_models_directory_can_be_named(
    models_dir: Path, tiny_gguf: bytes
) -> None:
    (models_dir / "mine.gguf").write_bytes(tiny_gguf)
    await bring(models_dir / "mine.gguf", models_dir)
    await bring(models_dir / "mine.gguf", models_dir, "another")
    assert await found("mine", models_dir) == await found("another", models_dir)
    remove_model("mine", models_dir)
    remove_model("another", models_dir)
    assert visible_in(models_dir) == {"mine.gguf"}


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"lmgg" + bytes(8), "bert.cpp"), (b"<html>", "a web page"), (b"", "not a GGUF")],
)
async def test_a_file_that_is_no_gguf_is_refused(
    models_dir: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(ModelFileError, match=said):
        await bring(tmp_path / "x.gguf", models_dir)
    assert visible_in(models_dir) == set()


async def test_what_is_no_file_is_refused(models_dir: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("pipe.gguf", "gone.gguf"):
        with pytest.raises(ModelFileError, match="is no file"):
            await bring(tmp_path / name, models_dir)


async def test_a_file_of_the_hub_comes_with_its_hash(
    gguf_hub: LocalHub, tiny_gguf: bytes, models_dir: Path
) -> None:
    (gguf_hub.folder / "x-q8_0.gguf").write_bytes(tiny_gguf)
    (gguf_hub.folder / "x-q4_0.gguf").write_bytes(b"GGUF of less")
    entry = await bring("hf:Some/Repo-GGUF:Q8_0", models_dir)
    assert entry.name == "Some/Repo-GGUF:Q8_0"
    assert find_entry(entry.name, models_dir) == entry
    assert (await found(entry.name, models_dir)).read_bytes() == tiny_gguf
    expected = SourceFile("x-q8_0.gguf", len(tiny_gguf), sha256(tiny_gguf).hexdigest())
    assert entry.files == (expected,)
    record = read_record(entry, models_dir)
    assert record
    assert (record.source, record.files) == ("hf:Some/Repo-GGUF", (expected,))
    assert gguf_hub.requested == [
        "/api/models/Some/Repo-GGUF/tree/main",
        "/Some/Repo-GGUF/resolve/main/x-q8_0.gguf",
    ]


async def test_an_import_that_was_removed_leaves_nothing_but_its_lock(
    gguf_hub: LocalHub, tiny_gguf: bytes, models_dir: Path
) -> None:
    (gguf_hub.folder / "x.gguf").write_bytes(tiny_gguf)
    entry = await bring("hf:some/repo", models_dir, "x")
    path = await found("x", models_dir)
    removed = remove_model("x", models_dir)
    assert set(removed) >= {path, entry.origin}
    assert all(name.startswith(".lock-") for name in names_in(models_dir))


async def test_a_hub_model_that_the_gallery_knows_has_its_facts(
    gguf_hub: LocalHub, tiny_gguf: bytes, models_dir: Path
) -> None:
    (gguf_hub.folder / "other-f16.gguf").write_bytes(tiny_gguf)
    known = next(entry for entry in load_gallery() if entry.query_prefix and entry.gguf)
    entry = await bring(f"hf:{known.repository}:F16", models_dir, "mine")
    assert entry.query_prefix == known.query_prefix
    assert entry.pooling == known.pooling
    assert (entry.gguf, entry.verified, entry.aliases) == ("other-f16.gguf", False, ())


async def test_a_folder_of_the_hub_is_converted(hub: LocalHub, models_dir: Path) -> None:
    entry = await bring("hf:some/sentence-model", models_dir)
    path = await found("some/sentence-model", models_dir)
    assert path.name.endswith("-f32.gguf")
    assert (entry.dimensions, entry.pooling) == (384, "mean")
    assert {"config.json", "model.safetensors"} <= {file.path for file in entry.files}
    assert all(file.sha256 for file in entry.files)
    assert gguf.GGUFReader(path).fields["bert.embedding_length"].contents() == 384
    assert find_entry("some/sentence-model", models_dir) == entry


async def test_a_folder_of_this_machine_is_converted_and_stays(
    model_files: Path, models_dir: Path
) -> None:
    before = names_in(model_files)
    entry = await bring(model_files, models_dir, "mine")
    assert (entry.dimensions, entry.pooling) == (384, "mean")
    assert (await found("mine", models_dir)).parent == models_dir
    removed = remove_model("mine", models_dir)
    assert len([path for path in removed if path.suffix == ".gguf"]) == 1
    assert names_in(model_files) == before
    assert visible_in(models_dir) == set()


async def test_a_folder_that_is_no_model_is_refused(models_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelFileError):
        await bring(tmp_path / "folder", models_dir)
    assert visible_in(models_dir) == set()


async def test_an_address_is_downloaded_and_its_query_forgotten(
    file_server: FileServer, models_dir: Path
) -> None:
    entry = await bring(f"{file_server.url}/x.gguf?token=secret", models_dir)
    assert file_server.requests[0].query == {"token": "secret"}
    assert (await found("x", models_dir)).read_bytes() == file_server.content
    record = read_record(entry, models_dir)
    assert record
    assert record.source == f"{file_server.url}/x.gguf"
    assert record.files[0].sha256 == sha256(file_server.content).hexdigest()
    assert entry.origin
    assert "secret" not in entry.origin.read_text()


async def test_an_import_that_breaks_off_is_continued(
    file_server: FileServer, models_dir: Path
) -> None:
    file_server.first_statuses = [404]
    file_server.cuts = [400_000]
    with pytest.raises(ModelFileError):
        await bring(f"{file_server.url}/x.gguf", models_dir)
    await bring(f"{file_server.url}/x.gguf", models_dir)
    assert file_server.starts[:2] == [0, 0]
    assert file_server.sent_bytes == 400_000 + len(file_server.content) - file_server.starts[2]
    assert file_server.starts[2] > 0


async def test_a_model_of_ollama_is_used_where_it_is(
    models_dir: Path, tmp_path: Path, tiny_gguf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "ollama"
    digest = sha256(tiny_gguf).hexdigest()
    blob = store / "blobs" / f"sha256-{digest}"
    manifest = (
        store / "manifests" / "registry.ollama.ai" / "library" / "nomic-embed-text" / "latest"
    )
    for path in (blob, manifest):
        path.parent.mkdir(parents=True)
    blob.write_bytes(tiny_gguf)
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{digest}",
        "size": len(tiny_gguf),
    }
    manifest.write_text(json.dumps({"layers": [layer]}))
    monkeypatch.setenv("OLLAMA_MODELS", str(store))
    entry = await bring("ollama:nomic-embed-text", models_dir)
    assert entry.name == "ollama/nomic-embed-text"
    assert entry.query_prefix == find_entry("nomic-embed-text", models_dir).query_prefix
    assert await found("ollama/nomic-embed-text", models_dir) == blob
    remove_model("ollama/nomic-embed-text", models_dir)
    assert blob.is_file()
    assert manifest.is_file()


async def test_a_gallery_model_can_have_another_name(hub: LocalHub, models_dir: Path) -> None:
    assert (await bring("all-minilm", models_dir)).name == "all-minilm"
    entry = await bring("all-minilm", models_dir, "mine")
    assert await found("mine", models_dir) == await found("all-minilm", models_dir)
    assert (entry.pooling, entry.trained_tokens) == ("mean", 256)
    remove_model("mine", models_dir)
    path = await found("all-minilm", models_dir)
    assert remove_model("all-minilm", models_dir) == [path]
    with pytest.raises(ModelFileError, match="nothing of the model all-minilm"):
        remove_model("all-minilm", models_dir)


@pytest.mark.parametrize(
    "name",
    [" ", "../x", "/x", "a//b", "a/../b", "x/", "a b", "hf:a/b", "ollama:x", "x" * 129, ".x"],
)
async def test_a_name_that_would_be_no_file_is_refused(
    models_dir: Path, dropped: Path, name: str
) -> None:
    with pytest.raises(InvalidInputError) as raised:
        await bring(dropped, models_dir, name)
    assert raised.value.param == "name"
    assert not names_in(models_dir)


async def test_a_name_that_is_taken_is_not_given_twice(models_dir: Path, dropped: Path) -> None:
    await bring(dropped, models_dir, "mine")
    for name in ("mine", "MINE", "all-minilm", "sentence-transformers/all-MiniLM-L6-v2"):
        with pytest.raises(ConflictError, match="is taken by the model"):
            await bring(dropped, models_dir, name)


async def test_of_two_imports_at_once_one_gets_the_name(
    file_server: FileServer, models_dir: Path
) -> None:
    results = await asyncio.gather(
        *(bring(f"{file_server.url}/x.gguf", models_dir) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["ConflictError", "GalleryEntry"]
    assert len(file_server.requests) == 1


async def test_a_broken_file_gets_no_name_and_what_is_used_in_place_stays(
    file_server: FileServer, models_dir: Path, dropped: Path
) -> None:
    async def check(path: Path) -> None:
        raise ModelFileError("it ends the process that loads it")

    for source in (str(dropped), f"{file_server.url}/x.gguf"):
        with pytest.raises(ModelFileError, match="it ends the process"):
            await import_model(source, models_dir, weight_type="f32", check=check)
    assert is_there(dropped)
    assert visible_in(models_dir) == set()
    assert not names_below(models_dir, "*.gguf*")


async def test_a_model_that_somebody_else_described_is_left_to_them(
    models_dir: Path, tiny_gguf: bytes
) -> None:
    (models_dir / "mine.gguf").write_bytes(tiny_gguf)
    (models_dir / "own.yaml").write_text(
        "name: own\nembeddings: true\nparameters: {model: mine.gguf}\n"
    )
    with pytest.raises(ModelFileError, match=r"own.yaml and uses .*mine.gguf"):
        remove_model("own", models_dir)
    (models_dir / "own.yaml").unlink()
    with pytest.raises(ModelFileError, match=r"stands in .*mine.gguf"):
        remove_model("mine", models_dir)
    assert visible_in(models_dir) == {"mine.gguf"}


async def test_another_name_for_a_gallery_model_is_not_removed_with_its_file(
    models_dir: Path, tiny_gguf: bytes
) -> None:
    (models_dir / "all-minilm-f32.gguf").write_bytes(tiny_gguf)
    (models_dir / "own.yaml").write_text(
        "name: own\nembeddings: true\nparameters: {model: all-minilm}\n"
    )
    assert await found("own", models_dir) == models_dir / "all-minilm-f32.gguf"
    with pytest.raises(ModelFileError, match=r"stands in .*own.yaml"):
        remove_model("own", models_dir)
    assert visible_in(models_dir) == {"all-minilm-f32.gguf", "own.yaml"}


async def test_an_import_whose_file_is_gone_can_be_removed(models_dir: Path, dropped: Path) -> None:
    await bring(dropped, models_dir, "mine")
    dropped = move_away(dropped)
    remove_model("mine", models_dir)
    assert visible_in(models_dir) == set()
    assert is_there(dropped)


async def test_a_record_that_names_files_elsewhere_removes_nothing(
    models_dir: Path, dropped: Path, tmp_path: Path
) -> None:
    entry = await bring(dropped, models_dir, "mine")
    (tmp_path / "precious").write_text("precious")
    record = models_dir / f".{entry.stem}.json"
    for made in ("../precious", str(tmp_path / "precious"), "..", ".", "", "x"):
        record.write_text(json.dumps({"source": "x", "made": [made]}))
        with pytest.raises(ModelFileError, match="isn't memoryd's"):
            remove_model("mine", models_dir)
    for content in ("", "{", "[" * 10_000, '{"made": 7}'):
        record.write_text(content)
        with pytest.raises(ModelFileError, match="can't be read"):
            remove_model("mine", models_dir)
    assert (tmp_path / "precious").is_file()


async def test_a_model_that_is_being_fetched_is_not_removed(
    file_server: FileServer, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models_dir / "gallery.toml").write_text(
        '[[models]]\nname = "x"\nrepository = "some/x"\ngguf = "x.gguf"\n'
    )
    file_server.stall_after = 1000
    monkeypatch.setenv("HF_ENDPOINT", file_server.url)
    fetching = asyncio.create_task(ensure_model("x", models_dir, "f32"))
    await until(lambda: file_server.sent_bytes > 0)
    with pytest.raises(ConflictError, match="is being fetched"):
        remove_model("x", models_dir)
    fetching.cancel()
    await asyncio.wait([fetching])
    assert remove_model("x", models_dir) == [models_dir / f".making-{stem_of('x', models_dir)}"]


def stem_of(name: str, models_dir: Path) -> str:
    return find_entry(name, models_dir).stem


async def test_an_unknown_model_is_not_removed(models_dir: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        remove_model("no-such-model", models_dir)
