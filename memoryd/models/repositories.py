"""What of a hub's repository is fetched: one GGUF, or all that a conversion needs."""

import asyncio
import hashlib
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from memoryd.errors import ModelFileError, ModelSourceError
from memoryd.models.downloads import Download, Progress, download
from memoryd.models.gallery import GalleryEntry, SourceFile
from memoryd.models.hub import HubFile, file_url, is_safe_path
from memoryd.models.transport import Patience, open_session
from memoryd.models.weights import WeightType

# What keeps a model's quality, best first. BF16 before F16, whose range some models overflow.
_FAITHFUL = ("BF16", "F16", "F32", "Q8_0")
# As sentence-transformers names the folders of its modules: 1_Pooling, 2_Dense, 2_Normalize.
_MODULE_FOLDER = re.compile(r"\d_[A-Za-z]+")
_TEXT_SUFFIXES = frozenset({".json", ".txt", ".model"})
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
MAX_TEXT_BYTES = 256 << 20
MAX_LISTED = 20


def choose_gguf(files: Sequence[HubFile], wanted: str | None, first: WeightType) -> HubFile | None:
    """Return the GGUF that is meant: by its path, its weight type, or the most faithful one.

    `first` is the weight type that is preferred where `wanted` is None; then None is returned for a
    repository without any GGUF. Raises ModelFileError that lists the files where none is meant.
    """
    whole = [file for file in files if _is_model(file)]
    if wanted is not None:
        return _wanted_gguf(whole, files, wanted)
    if len(whole) == 1:
        return whole[0]
    for weight_type in (first.upper(), *_FAITHFUL):
        if found := [file for file in whole if _has_weight_type(file.path, weight_type)]:
            return _only(found, weight_type)
    if any(is_gguf(file) for file in files):
        raise ModelSourceError(f"say which file is meant: {_listed(files)}")
    return None


def conversion_files(files: Sequence[HubFile]) -> list[HubFile]:
    """Return what a conversion reads, small files first; nothing where the weights aren't there."""
    root = {file.path for file in files if "/" not in file.path}
    weights = [file for file in files if _is_weights(file, root)]
    if "config.json" not in root or not weights:
        return []
    texts = [file for file in files if _is_text(file)]
    modules = [file for file in files if _is_module_weights(file)]
    return [*texts, *modules, *weights]


def no_model_in(repository: str | None) -> ModelFileError:
    """Return what is raised for a repository without any file that is a model."""
    return ModelSourceError(
        f"{repository} has neither a GGUF nor config.json and model.safetensors"
    )


@dataclass(frozen=True)
class Fetched:
    """Hold what the files of a repository turned out to be, and of which commit they are."""

    files: tuple[SourceFile, ...]
    commit: str | None


async def fetch_from_hub(
    entry: GalleryEntry,
    files: Sequence[HubFile],
    directory: Path,
    progress: Progress,
    patience: Patience,
) -> Fetched:
    """Download the files of the entry's repository that `directory` lacks, and say what they are.

    Raises ModelFileError when the hub is slow to answer, refuses, breaks off or sends other bytes.
    """
    known: list[SourceFile] = []
    commit: str | None = None
    async with open_session(patience) as session:
        for file in files:
            target = directory / file.path
            if not is_safe_path(file.path):
                raise ModelFileError(f"{entry.repository} has a file of the name {file.path!r}")
            if landed := await asyncio.to_thread(_read_landed, target, file):
                known.append(landed)
                continue
            wanted = _download_of(entry, file)
            downloaded = await download(session, wanted, target, progress, patience)
            known.append(SourceFile(file.path, downloaded.size_bytes, downloaded.sha256))
            commit = downloaded.commit or commit
    return Fetched(tuple(known), commit)


def _read_landed(target: Path, file: HubFile) -> SourceFile | None:
    """Return what an earlier attempt fetched, if it is the version that is meant now."""
    if not target.is_file():
        return None
    size_bytes = target.stat().st_size
    with target.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if file.size_bytes not in {None, size_bytes} or file.sha256 not in {None, sha256}:
        return None
    return SourceFile(file.path, size_bytes, sha256)


def _download_of(entry: GalleryEntry, file: HubFile) -> Download:
    url = file_url(str(entry.repository), entry.revision, file.path)
    return Download(url, file.path, file.size_bytes, file.sha256)


def is_gguf(file: HubFile) -> bool:
    """Return whether a file is used as it is."""
    return file.path.endswith(".gguf")


def _wanted_gguf(whole: Sequence[HubFile], files: Sequence[HubFile], wanted: str) -> HubFile:
    if by_path := [file for file in whole if file.path == wanted]:
        return by_path[0]
    if by_type := [file for file in whole if _has_weight_type(file.path, wanted)]:
        return _only(by_type, wanted)
    raise ModelSourceError(f"there is no {wanted}; {_listed(files)}")


def _only(found: Sequence[HubFile], weight_type: str) -> HubFile:
    if len(found) > 1:
        raise ModelSourceError(f"several files are {weight_type}: {_listed(found)}")
    return found[0]


def _listed(files: Sequence[HubFile]) -> str:
    paths = [file.path for file in files if is_gguf(file)]
    return f"the repository has {', '.join(paths[:MAX_LISTED]) or 'no GGUF'}"


def _is_model(file: HubFile) -> bool:
    """Return whether a file is a whole model: no part of one, nor what sees images for one."""
    path = PurePosixPath(file.path)
    is_part = _SHARD.search(path.stem) is not None or path.name.startswith("mmproj")
    return path.suffix == ".gguf" and not is_part


def _has_weight_type(path: str, weight_type: str) -> bool:
    """Return whether a file's name or folder has the type as a word of its own."""
    plain = re.sub(r"(?i)fp(16|32)", r"f\1", path.removesuffix(".gguf"))
    wanted = re.sub(r"(?i)fp(16|32)", r"f\1", weight_type)
    # No `_` after it, else Q4_K would mean Q4_K_M.
    pattern = rf"(?:^|[-._/]){re.escape(wanted)}(?:$|[-./])"
    return re.search(pattern, plain, re.IGNORECASE) is not None


def _is_weights(file: HubFile, root: Set[str]) -> bool:
    """Return whether a file is the weights, or a part of them where they are split."""
    if "model.safetensors" in root:
        return file.path == "model.safetensors"
    path = PurePosixPath(file.path)
    return file.path in root and path.suffix == ".safetensors" and bool(_SHARD.search(path.stem))


def _is_text(file: HubFile) -> bool:
    path = PurePosixPath(file.path)
    is_near = len(path.parts) == 1 or (len(path.parts) == 2 and _is_module(path))
    is_meant = path.suffix in _TEXT_SUFFIXES or file.path == "README.md"
    return is_near and is_meant and (file.size_bytes or 0) <= MAX_TEXT_BYTES


def _is_module_weights(file: HubFile) -> bool:
    path = PurePosixPath(file.path)
    return len(path.parts) == 2 and _is_module(path) and path.name == "model.safetensors"


def _is_module(path: PurePosixPath) -> bool:
    return _MODULE_FOLDER.fullmatch(path.parts[0]) is not None
