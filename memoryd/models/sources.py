"""Where a model may come from, as users write it."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from memoryd.errors import InvalidInputError
from memoryd.models.gallery import is_name
from memoryd.models.hub import file_name, is_repository, is_safe_path

MAX_SOURCE_CHARS = 2048
MAX_NAME_CHARS = 128
_QUANTIZATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*")
_OLLAMA_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PATH_STARTS = ("/", "./", "../", "~")
# As Ollama's clients name repositories of the hub.
_OLLAMA_HUB_STARTS = ("hf.co/", "huggingface.co/")
_OLD_BIN = (
    "llama.cpp reads GGUF, and neither bert.cpp's .bin files nor PyTorch's: give the folder or the "
    "hub's name of the model that the file was made from, and memoryd converts it"
)


@dataclass(frozen=True)
class GallerySource:
    """Name a model that memoryd knows."""

    name: str


@dataclass(frozen=True)
class HubSource:
    """Name a repository of the hub; `wanted` is the path of a GGUF in it, or a weight type."""

    repository: str
    wanted: str | None = None


@dataclass(frozen=True)
class UrlSource:
    """Name the address of a GGUF."""

    url: str


@dataclass(frozen=True)
class LocalSource:
    """Name a GGUF, or a folder of sentence-transformers, on this machine."""

    path: Path


@dataclass(frozen=True)
class OllamaSource:
    """Name a model of an Ollama installation on this machine, with or without its tag."""

    name: str


Source = GallerySource | HubSource | UrlSource | LocalSource | OllamaSource


def parse_source(text: str) -> Source:
    """Return what a source means; no file is looked at and nothing is asked.

    hf:organization/repository[:file or weight type], with hf.co/ for hf: too, ollama:name[:tag], an
    https address, a path (beginning with /, ./, ../ or ~, or ending in .gguf), else a gallery name.
    Raises InvalidInputError that says how it is written.
    """
    plain = text.strip()
    if not plain or len(plain) > MAX_SOURCE_CHARS or not plain.isprintable():
        raise _unusable("a model's source must be one line of text, at most 2,048 characters")
    if "://" in plain:
        return UrlSource(_checked_url(plain))
    scheme, _, rest = plain.partition(":")
    if scheme.lower() == "hf":
        return _hub_source(rest)
    if scheme.lower() == "ollama":
        return _ollama_source(rest)
    if plain.lower().startswith(_OLLAMA_HUB_STARTS):
        return _hub_source(plain.partition("/")[2].removesuffix(":latest"))
    if plain.startswith(_PATH_STARTS) or plain.lower().endswith((".gguf", ".bin")):
        return _local_source(plain)
    return GallerySource(check_name(plain))


def is_safe_over_http(source: Source) -> bool:
    """Return whether anybody may have memoryd fetch the source.

    Addresses and paths would let clients have it fetch and read what only it can reach.
    """
    return isinstance(source, GallerySource | HubSource)


def check_name(name: str) -> str:
    """Return the name of a model if it can be one, or raise InvalidInputError."""
    plain = name.strip()
    is_scheme = plain.lower().startswith(("hf:", "ollama:"))
    if len(plain) > MAX_NAME_CHARS or is_scheme or not is_name(plain):
        raise InvalidInputError(
            f"{plain[:MAX_NAME_CHARS]!r} can't be a model's name: it is of letters, digits and "
            f"._-, with / between parts and : at a tag, at most {MAX_NAME_CHARS} characters",
            "name",
        )
    return plain


def default_name(source: Source) -> str:
    """Return the name that a model of this source gets where the user gives none."""
    match source:
        case GallerySource(name):
            return name
        case HubSource(repository, None):
            return repository
        case HubSource(repository, wanted):
            return f"{repository}:{_plain_stem(file_name(str(wanted)))}"
        case UrlSource(url):
            return _plain_stem(URL(url).name)
        case LocalSource(path):
            return _plain_stem(path.name)
        case OllamaSource(name):
            return f"ollama/{name}"


def _hub_source(rest: str) -> HubSource:
    repository, _, wanted = rest.partition(":")
    if not is_repository(repository):
        raise _unusable(
            f"{repository!r} is no repository of the hub: write hf:organization/repository, with "
            "or without :file or :weight type after it, such as :Q8_0"
        )
    if not wanted and rest.endswith(":"):
        raise _unusable("a file or weight type must follow the last ':', such as Q8_0")
    if wanted.lower().endswith(".bin"):
        raise _unusable(_OLD_BIN)
    is_file = wanted.endswith(".gguf") and is_safe_path(wanted)
    if wanted and not is_file and not _QUANTIZATION.fullmatch(wanted):
        raise _unusable(f"{wanted!r} is neither a .gguf of {repository} nor a weight type")
    return HubSource(repository, wanted or None)


def _ollama_source(rest: str) -> OllamaSource:
    path, _, tag = rest.partition(":")
    parts = [*path.split("/"), *([tag] if ":" in rest else [])]
    is_plain = len(rest) <= MAX_NAME_CHARS and path.count("/") <= 2
    if not is_plain or not all(_OLLAMA_PART.fullmatch(part) for part in parts):
        raise _unusable(f"{rest!r} is no name of an Ollama model: write ollama:name[:tag]")
    return OllamaSource(rest)


def _checked_url(text: str) -> str:
    try:
        url = URL(text)
        host, has_credentials = url.host or "", url.user is not None or url.password is not None
    except ValueError as error:
        raise _unusable(f"{text!r} is no address: {error}") from error
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(host)):
        raise _unusable(f"a model's address must begin with https://, not {url.scheme}://")
    if not host or has_credentials:
        raise _unusable("a model's address must have a host, and neither user nor password")
    if url.path.lower().endswith(".bin"):
        raise _unusable(_OLD_BIN)
    if not url.path.endswith(".gguf"):
        raise _unusable("a model's address must be that of a .gguf file")
    return str(url)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _local_source(text: str) -> LocalSource:
    if text.lower().endswith(".bin"):
        raise _unusable(_OLD_BIN)
    try:
        return LocalSource(Path(text).expanduser())
    except RuntimeError as error:
        raise _unusable(f"{text} has no home directory: {error}") from error


def _plain_stem(name: str) -> str:
    stem = name.removesuffix(".gguf")
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "model"


def _unusable(message: str) -> InvalidInputError:
    return InvalidInputError(message, "source")
