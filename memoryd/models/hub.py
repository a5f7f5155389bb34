"""The Hugging Face hub: where it is, who asks it, and what a repository holds.

Its protocol is that of huggingface_hub 2.4: constants.py (environment), utils/_auth.py (token),
utils/_validators.py (names of repositories), hf_api.py `list_repo_tree` (listing),
file_download.py (addresses and headers of files).
"""

import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from memoryd.errors import ModelFileError
from memoryd.models.transport import Patience, check_status, follow, read_body

HUB = "https://huggingface.co"
MAX_LISTING_BYTES = 8 << 20
MAX_LISTING_PAGES = 20
MAX_PATH_CHARS = 512
_REPOSITORY = re.compile(r"\b[\w\-.]{1,96}\b/\b[\w\-.]{1,96}\b", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True)
class HubFile:
    """Name a file of a repository; what is None, the hub hasn't said."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None


def hub_endpoint() -> str:
    """Return the hub's address: $HF_ENDPOINT as in Hugging Face's own clients, else the hub."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def hub_token() -> str | None:
    """Return the user's token, of the environment or of the file that `hf auth login` writes."""
    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN")
    if not token:
        try:
            token = _token_file().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
    return "".join(token.splitlines()).strip() or None


def _token_file() -> Path:
    if path := os.environ.get("HF_TOKEN_PATH"):
        return Path(path).expanduser()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    return home.expanduser() / "token"


def token_for(address: URL) -> str | None:
    """Return the user's token for an address of the hub itself, and None for any other."""
    return hub_token() if address.origin() == URL(hub_endpoint()).origin() else None


def require_network() -> None:
    """Raise ModelFileError where the user has said by HF_HUB_OFFLINE to use no network."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in _TRUE:
            raise ModelFileError(f"{name} is set, so nothing is fetched: unset it to allow that")


def is_repository(text: str) -> bool:
    """Return whether `text` is written as the hub writes the name of a repository."""
    is_plain = "--" not in text and ".." not in text and not text.endswith(".git")
    return is_plain and _REPOSITORY.fullmatch(text) is not None


def is_safe_path(path: str) -> bool:
    """Return whether `path` stays inside the folder that it is joined to."""
    parts = path.split("/")
    is_plain = path.isprintable() and "\\" not in path and len(path) <= MAX_PATH_CHARS
    return is_plain and all(part.strip() and part not in {".", ".."} for part in parts)


def file_url(repository: str, revision: str, path: str) -> str:
    """Return the address of a repository's file."""
    return f"{hub_endpoint()}/{repository}/resolve/{quote(revision, safe='')}/{quote(path)}"


def sha256_of_etag(etag: str | None) -> str | None:
    """Return the sha256 that the hub gives as the ETag of a large file; small ones have none.

    A file in git's large file storage has its sha256 there, any other the sha1 of its git blob.
    """
    value = (etag or "").removeprefix("W/").strip('"').lower()
    return value if _SHA256.fullmatch(value) else None


async def list_files(
    session: aiohttp.ClientSession, repository: str, revision: str, patience: Patience
) -> list[HubFile]:
    """Return the files of a repository, but for those with names that no folder can hold.

    Raises ModelFileError where the hub doesn't answer or doesn't have it.
    """
    require_network()
    pages = _listing_pages(session, repository, revision, patience)
    entries = [entry async for page in pages for entry in page]
    return [file for entry in entries if (file := _read_file(entry))]


async def _listing_pages(
    session: aiohttp.ClientSession, repository: str, revision: str, patience: Patience
) -> AsyncIterator[list[Any]]:
    tree = f"{hub_endpoint()}/api/models/{repository}/tree/{quote(revision, safe='')}"
    address = URL(f"{tree}?recursive=true", encoded=True)
    for _ in range(MAX_LISTING_PAGES):
        async with follow(session, address, {}, patience, token_for) as answer:
            check_status(answer, repository)
            yield _read_page(await read_body(answer, MAX_LISTING_BYTES), repository)
            links = answer.response.links
        if "next" not in links:
            return
        address = URL(str(links["next"]["url"]))
    raise ModelFileError(f"{repository} has too many files to be a model")


def _read_page(body: bytes, repository: str) -> list[Any]:
    try:
        page = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the hub's list of {repository} can't be read: {error}") from error
    if not isinstance(page, list):
        raise ModelFileError(f"the hub's list of {repository} can't be read: it is no list")
    return page


def _read_file(entry: Any) -> HubFile | None:
    if not isinstance(entry, dict) or entry.get("type") != "file":
        return None
    path, size_bytes, large = entry.get("path"), entry.get("size"), entry.get("lfs")
    if not isinstance(path, str) or not is_safe_path(path):
        return None
    etag = large.get("oid") if isinstance(large, dict) else None
    return HubFile(
        path,
        size_bytes if isinstance(size_bytes, int) and size_bytes >= 0 else None,
        sha256_of_etag(etag) if isinstance(etag, str) else None,
    )


def file_name(path: str) -> str:
    """Return the last part of a repository's path."""
    return PurePosixPath(path).name
