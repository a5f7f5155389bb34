"""The store of an Ollama installation on this machine, whose blobs are used in place.

Its layout: docs/faq.md of Ollama ("Where are models stored?"), and the parts of a name in its
types/model/name.go. A manifest is at manifests/HOST/NAMESPACE/MODEL/TAG, and names the blobs.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from memoryd.errors import ModelFileError
from memoryd.models.gguf_magic import check_gguf

MAX_MANIFEST_BYTES = 1 << 20
MODEL_LAYER = "application/vnd.ollama.image.model"
_DEFAULT_PARTS = ("registry.ollama.ai", "library")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def ollama_folders() -> list[Path]:
    """Return where Ollama may keep its models: as it is told to, as a user, and as a service."""
    told = os.environ.get("OLLAMA_MODELS")
    usual = ["~/.ollama/models", "/usr/share/ollama/.ollama/models", "/var/lib/ollama"]
    return [Path(path).expanduser() for path in ([told, *usual] if told else usual)]


def find_ollama_blob(name: str) -> Path:
    """Return the GGUF of an Ollama model, [[host/]namespace/]model[:tag] in any case.

    Raises ModelFileError where no installation has it, or where its manifest can't be trusted.
    """
    folders = ollama_folders()
    for folder in folders:
        try:
            if manifest := _find_manifest(folder / "manifests", _name_parts(name)):
                return _find_blob(folder, manifest, name)
        except OSError as error:
            message = f"Ollama's folder {folder} can't be read: {error.strerror}"
            raise ModelFileError(message) from error
    looked = ", ".join(str(folder) for folder in folders)
    raise ModelFileError(
        f"Ollama has no model {name!r} in {looked}: run `ollama pull {name}`, or set OLLAMA_MODELS "
        "to where its models are"
    )


def _name_parts(name: str) -> list[str]:
    path, _, tag = name.partition(":")
    parts = path.split("/")
    return [*_DEFAULT_PARTS[: 3 - len(parts)], *parts, tag or "latest"]


def _find_manifest(folder: Path, parts: list[str]) -> Path | None:
    """Go down by names that are there, so none can lead out of the folder."""
    for part in parts:
        matching = [path for path in _children(folder) if path.name.lower() == part.lower()]
        if not matching:
            return None
        folder = matching[0]
    return folder if folder.is_file() and not folder.is_symlink() else None


def _children(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _find_blob(folder: Path, manifest: Path, name: str) -> Path:
    layers = [layer for layer in _read_layers(manifest) if _media_type(layer) == MODEL_LAYER]
    if len(layers) != 1:
        raise ModelFileError(f"Ollama's model {name!r} is {len(layers)} files instead of one GGUF")
    match = _DIGEST.fullmatch(str(layers[0].get("digest")))
    if match is None:
        raise ModelFileError(f"{manifest} is no manifest of Ollama: it names no sha256")
    blob = folder / "blobs" / f"sha256-{match[1]}"
    if blob.is_symlink():
        raise ModelFileError(f"{blob} is a link, which Ollama doesn't make")
    check_gguf(blob)
    if blob.stat().st_size != layers[0].get("size"):
        raise ModelFileError(f"{blob} isn't whole: run `ollama pull {name}` again")
    return blob


def _read_layers(manifest: Path) -> list[Any]:
    with manifest.open("rb") as file:
        content = file.read(MAX_MANIFEST_BYTES + 1)
    try:
        read = json.loads(content) if len(content) <= MAX_MANIFEST_BYTES else None
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{manifest} is no manifest of Ollama: {error}") from error
    layers = read.get("layers") if isinstance(read, dict) else None
    if not isinstance(layers, list):
        raise ModelFileError(f"{manifest} is no manifest of Ollama")
    return layers


def _media_type(layer: Any) -> Any:
    return layer.get("mediaType") if isinstance(layer, dict) else None
