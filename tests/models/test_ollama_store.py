import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from memoryd.errors import ModelFileError
from memoryd.models.ollama_store import find_ollama_blob, ollama_folders

MODEL = "application/vnd.ollama.image.model"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ollama"
    (folder / "blobs").mkdir(parents=True)
    monkeypatch.setenv("OLLAMA_MODELS", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


def write_manifest(store: Path, name: str, content: Any) -> None:
    path = store / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def add_model(store: Path, name: str, blob: bytes) -> Path:
    digest = sha256(blob).hexdigest()
    path = store / "blobs" / f"sha256-{digest}"
    path.write_bytes(blob)
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:0", "size": 1},
        {"mediaType": MODEL, "digest": f"sha256:{digest}", "size": len(blob)},
    ]
    write_manifest(store, name, {"schemaVersion": 2, "layers": layers})
    return path


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        ("all-minilm", "registry.ollama.ai/library/all-minilm/latest"),
        ("all-minilm:22m", "registry.ollama.ai/library/all-minilm/22m"),
        ("ALL-minilm:L6-v2", "registry.ollama.ai/library/all-minilm/l6-v2"),
        ("me/mine:1", "registry.ollama.ai/me/mine/1"),
        ("hf.co/org/Repo-GGUF:Q8_0", "hf.co/org/Repo-GGUF/Q8_0"),
    ],
)
def test_a_model_is_found_where_ollama_keeps_it(store: Path, name: str, manifest: str) -> None:
    blob = add_model(store, manifest, b"GGUF of the model")
    add_model(store, "registry.ollama.ai/library/another/latest", b"GGUF of another")
    assert find_ollama_blob(name) == blob


def test_the_folders_of_users_and_services_are_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [str(folder) for folder in ollama_folders()] == [
        f"{tmp_path}/.ollama/models",
        "/usr/share/ollama/.ollama/models",
        "/var/lib/ollama",
    ]
    own = tmp_path / ".ollama" / "models"
    (own / "blobs").mkdir(parents=True)
    blob = add_model(own, "registry.ollama.ai/library/x/latest", b"GGUF")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "elsewhere"))
    assert find_ollama_blob("x") == blob


@pytest.mark.parametrize("name", ["x", "x:latest", "x:other", "a/b/c", "..", "../library/x", "x:."])
def test_a_model_that_is_not_there_says_where_it_was_looked_for(store: Path, name: str) -> None:
    add_model(store, "registry.ollama.ai/library/another/latest", b"GGUF")
    with pytest.raises(ModelFileError, match=rf"in {store}, .* set OLLAMA_MODELS"):
        find_ollama_blob(name)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "[]",
        "7",
        '{"layers": {}}',
        '{"layers": null}',
        "[" * 100_000,
        '{"layers": [' + " " * (1 << 20) + "]}",
    ],
)
def test_a_manifest_that_is_none_is_named(store: Path, manifest: str) -> None:
    write_manifest(store, "registry.ollama.ai/library/x/latest", manifest)
    with pytest.raises(ModelFileError, match="latest is no manifest of Ollama"):
        find_ollama_blob("x")


@pytest.mark.parametrize(
    "digest",
    [
        "../../../../etc/passwd",
        "sha256:../../../etc/passwd",
        "/etc/passwd",
        "sha256:" + "0" * 63 + "/",
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "G" * 64,
        "sha1:" + "0" * 64,
        7,
        None,
    ],
)
def test_a_digest_that_is_no_hash_leads_nowhere(store: Path, digest: Any) -> None:
    layer = {"mediaType": MODEL, "digest": digest, "size": 4}
    write_manifest(store, "registry.ollama.ai/library/x/latest", {"layers": [layer]})
    with pytest.raises(ModelFileError, match="it names no sha256"):
        find_ollama_blob("x")


@pytest.mark.parametrize("layers", [[], ["x", None, 7], [{"mediaType": MODEL}] * 2])
def test_a_model_of_none_or_several_files_is_refused(store: Path, layers: list[Any]) -> None:
    write_manifest(store, "registry.ollama.ai/library/x/latest", {"layers": layers})
    with pytest.raises(ModelFileError, match="instead of one GGUF"):
        find_ollama_blob("x")


def test_a_blob_that_is_a_link_is_refused(store: Path, tmp_path: Path) -> None:
    blob = add_model(store, "registry.ollama.ai/library/x/latest", b"GGUF")
    blob.rename(tmp_path / "secret")
    blob.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFileError, match="is a link"):
        find_ollama_blob("x")


def test_a_manifest_that_is_a_link_is_not_read(store: Path, tmp_path: Path) -> None:
    add_model(store, "registry.ollama.ai/library/x/latest", b"GGUF")
    manifest = store / "manifests" / "registry.ollama.ai" / "library" / "x" / "latest"
    manifest.rename(tmp_path / "secret")
    manifest.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelFileError, match="Ollama has no model 'x'"):
        find_ollama_blob("x")


def test_a_blob_that_is_not_whole_is_refused(store: Path) -> None:
    blob = add_model(store, "registry.ollama.ai/library/x/latest", b"GGUF and more")
    blob.write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match="isn't whole: run `ollama pull x` again"):
        find_ollama_blob("x")


def test_a_blob_that_is_gone_or_no_gguf_is_refused(store: Path) -> None:
    blob = add_model(store, "registry.ollama.ai/library/x/latest", b"PK\3\4")
    with pytest.raises(ModelFileError, match="is not a GGUF"):
        find_ollama_blob("x")
    blob.unlink()
    with pytest.raises(ModelFileError, match="is no file"):
        find_ollama_blob("x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(store: Path) -> None:
    (store / "manifests").mkdir()
    (store / "manifests").chmod(0)
    with pytest.raises(ModelFileError, match="can't be read: Permission denied"):
        find_ollama_blob("x")
