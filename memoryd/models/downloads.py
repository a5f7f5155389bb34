"""Files over HTTP: resumed where they broke off, checked, and given their name only when right.

What has come of a file lies beside it as `….part`, and which version of it that is, in
`….part.json`. Ranges and validators: RFC 9110, sections 13 and 14; the hub's headers:
file_download.py of huggingface_hub 2.4.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from memoryd.errors import ModelFileError
from memoryd.models.gguf_magic import HEAD_BYTES, refuse_other_formats
from memoryd.models.hub import require_network, sha256_of_etag, token_for
from memoryd.models.transport import (
    Answer,
    InterruptedTransferError,
    Patience,
    UnreachableError,
    check_status,
    follow,
    read_chunks,
)

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 120.0
MAX_VERSION_BYTES = 4096
# Of a file whose size nobody says: enough for a tokenizer, too little to fill a disk.
MAX_UNANNOUNCED_BYTES = 64 << 20
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

# Told on the event loop: the step, how many bytes of it are done, of how many (None: unknown).
Progress = Callable[[str, int, int | None], None]


# How a step begins that fetches a file; its name follows.
FETCHING = "fetching "


def tell_nobody(text: str, done_bytes: int, total_bytes: int | None) -> None:
    """Take the place of a caller's progress function."""


@dataclass(frozen=True)
class Download:
    """Name a file to fetch: its address, what to call it, and what is known of it beforehand."""

    url: str
    path: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Downloaded:
    """Hold what a file turned out to be; `commit` is the hub's, of the repository."""

    size_bytes: int
    sha256: str
    commit: str | None


@dataclass(frozen=True)
class _Version:
    """Tell one version of a file from another; what is None, the server doesn't say."""

    etag: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None


class _Part:
    """Keep what has come of a file, and of which version, between attempts and processes."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._version_path = target.with_name(f"{target.name}.part.json")

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> _Version:
        """The version that can be continued; one without an ETag can't be."""
        try:
            with self._version_path.open("rb") as file:
                version = _Version(**json.loads(file.read(MAX_VERSION_BYTES)))
        except (OSError, ValueError, TypeError, RecursionError):
            return _Version()
        return version if _is_strong(version.etag) else _Version()

    def begin(self, version: _Version) -> None:
        self.discard()
        self._version_path.write_text(json.dumps(asdict(version)), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version_path.unlink(missing_ok=True)

    def land(self, target: Path) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the name on an empty file
        self.path.replace(target)
        self._version_path.unlink(missing_ok=True)


async def download(
    session: aiohttp.ClientSession,
    wanted: Download,
    target: Path,
    progress: Progress,
    patience: Patience,
) -> Downloaded:
    """Fetch a file to `target`, from where an earlier attempt broke off.

    A `target` that ends in .gguf must be a GGUF. Raises ModelFileError when the server is slow to
    answer, refuses, breaks off too often, or sends other bytes than are known or announced, and
    when the disk has too little space; then there is no `target`.
    """
    require_network()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(target)
    start_bytes = furthest_bytes = part.size_bytes
    delays = iter(patience.retry_delays_s)
    while True:
        try:
            announced = await _attempt(session, wanted, part, progress, patience)
            return await asyncio.to_thread(_land, wanted, announced, part, target)
        except (InterruptedTransferError, UnreachableError) as error:
            if part.size_bytes > furthest_bytes:
                furthest_bytes, delays = part.size_bytes, iter(patience.retry_delays_s)
            # A server that never answered is left at once: there may be another source.
            if isinstance(error, UnreachableError) and furthest_bytes == start_bytes:
                raise
            delay_s = _next_delay_s(error, next(delays, None))
            logger.info("%s; trying again in %g s", error.message, delay_s)
        await asyncio.sleep(delay_s)


def _next_delay_s(error: ModelFileError, delay_s: float | None) -> float:
    retry_after_s = error.retry_after_s if isinstance(error, InterruptedTransferError) else None
    if delay_s is None:
        raise error
    if retry_after_s is not None and retry_after_s > MAX_RETRY_AFTER_S:
        message = f"{error.message}. It asks to come back in {retry_after_s:.0f} s"
        raise ModelFileError(message) from error
    return max(delay_s, retry_after_s or 0.0)


@dataclass(frozen=True)
class _Announced:
    """Hold what a response says of the file, and from which byte on it sends it."""

    version: _Version
    offset_bytes: int
    commit: str | None


async def _attempt(
    session: aiohttp.ClientSession,
    wanted: Download,
    part: _Part,
    progress: Progress,
    patience: Patience,
) -> _Announced:
    headers = {"Accept-Encoding": "identity", **_range_headers(part)}
    async with follow(session, URL(wanted.url), headers, patience, token_for) as answer:
        if answer.response.status == 416:
            return _complete(answer, wanted, part)
        check_status(answer, wanted.path)
        announced = _read_announced(answer, wanted, part)
        if not announced.offset_bytes:
            part.begin(announced.version)
        _check_space(wanted, announced, part.path.parent)
        await _receive(answer, wanted, announced, part, progress)
    return announced


def _complete(answer: Answer, wanted: Download, part: _Part) -> _Announced:
    """Take a part that lacks nothing, as a process leaves that is killed while it checks it."""
    whole = answer.response.headers.get("Content-Range")
    if not part.size_bytes or whole != f"bytes */{part.size_bytes}":
        part.discard()
        raise InterruptedTransferError(f"{answer.address.origin()} has less of {wanted.path}")
    try:
        _agreed_size(wanted, part.version.size_bytes, part.size_bytes)
        sha256 = _agreed_sha256(wanted, part.version.sha256)
    except ModelFileError:
        part.discard()
        raise
    version = replace(part.version, sha256=sha256)
    return _Announced(version, part.size_bytes, answer.own_headers.get("X-Repo-Commit"))


def _range_headers(part: _Part) -> dict[str, str]:
    version, size_bytes = part.version, part.size_bytes
    if version.etag is None or not size_bytes:
        return {}
    return {"Range": f"bytes={size_bytes}-", "If-Range": version.etag}


def _read_announced(answer: Answer, wanted: Download, part: _Part) -> _Announced:
    response, own = answer.response, answer.own_headers
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ModelFileError(f"{answer.address.origin()} sends {wanted.path} compressed")
    offset_bytes, body_size_bytes = _extent(response, part)
    version = _Version(
        response.headers.get("ETag"),
        _agreed_size(wanted, _natural(own.get("X-Linked-Size")), body_size_bytes),
        _agreed_sha256(wanted, sha256_of_etag(own.get("X-Linked-Etag"))),
    )
    if offset_bytes and not _continues(version, part.version):
        part.discard()
        raise InterruptedTransferError(f"{wanted.path} has changed since a part of it was fetched")
    return _Announced(version, offset_bytes, own.get("X-Repo-Commit"))


def _extent(response: aiohttp.ClientResponse, part: _Part) -> tuple[int, int | None]:
    """Return from which byte on the body is, and the size of the whole file if it is said."""
    if response.status != 206:
        return 0, _natural(response.headers.get("Content-Length"))
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != part.size_bytes:
        part.discard()
        raise InterruptedTransferError(f"{response.url.origin()} sends another range than asked")
    return int(match[1]), _natural(match[3])


def _natural(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdecimal() else None


def _agreed_size(wanted: Download, linked: int | None, body: int | None) -> int | None:
    sizes = [size for size in (wanted.size_bytes, linked, body) if size is not None]
    if len(set(sizes)) > 1:
        expected = "memoryd knows" if wanted.size_bytes is not None else "the hub announces"
        raise ModelFileError(
            f"{wanted.path} is not the file that {expected}: the server sends {sizes[-1]:,} bytes "
            f"instead of {sizes[0]:,}"
        )
    return sizes[0] if sizes else None


def _agreed_sha256(wanted: Download, linked: str | None) -> str | None:
    if wanted.sha256 and linked and wanted.sha256 != linked:
        raise _other_file(wanted, linked)
    return wanted.sha256 or linked


def _other_file(wanted: Download, sha256: str) -> ModelFileError:
    return ModelFileError(
        f"{wanted.path} is not the file that memoryd knows: its sha256 is {sha256}"
    )


def _continues(version: _Version, begun: _Version) -> bool:
    """Return whether no validator that both have differs."""
    ours, theirs = asdict(begun), asdict(version)
    return all(None in (ours[key], theirs[key]) or ours[key] == theirs[key] for key in ours)


def _is_strong(etag: Any) -> bool:
    """Return whether an ETag may stand for the very bytes, as If-Range needs."""
    return isinstance(etag, str) and _STRONG_ETAG.fullmatch(etag) is not None


def _check_space(wanted: Download, announced: _Announced, folder: Path) -> None:
    if announced.version.size_bytes is None:
        return
    needed_bytes = announced.version.size_bytes - announced.offset_bytes
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise ModelFileError(
            f"{wanted.path} needs {needed_bytes:,} more bytes, and {folder} has {free_bytes:,} "
            "bytes free: free some space there, or name another models directory"
        )


async def _receive(
    answer: Answer, wanted: Download, announced: _Announced, part: _Part, progress: Progress
) -> None:
    total_bytes, done_bytes = announced.version.size_bytes, announced.offset_bytes
    most_bytes = MAX_UNANNOUNCED_BYTES if total_bytes is None else total_bytes
    with part.path.open("ab") as out:
        async for chunk in read_chunks(answer):
            if not done_bytes:
                _check_head(wanted, chunk, part)
            done_bytes += len(chunk)
            if done_bytes > most_bytes:
                part.discard()
                raise ModelFileError(f"{wanted.path} is longer than {most_bytes:,} bytes")
            await asyncio.to_thread(out.write, chunk)
            progress(f"{FETCHING}{wanted.path}", done_bytes, total_bytes)
    if total_bytes is not None and done_bytes < total_bytes:
        raise InterruptedTransferError(
            f"{answer.address.origin()} failed: {wanted.path} broke off after {done_bytes:,} of "
            f"{total_bytes:,} bytes"
        )


def _check_head(wanted: Download, chunk: bytes, part: _Part) -> None:
    """Refuse a sign-in page before gigabytes of it have come; the whole is checked at the end."""
    if wanted.path.endswith(".gguf") and len(chunk) >= HEAD_BYTES:
        try:
            refuse_other_formats(chunk[:HEAD_BYTES], wanted.path)
        except ModelFileError:
            part.discard()
            raise


def _land(wanted: Download, announced: _Announced, part: _Part, target: Path) -> Downloaded:
    with part.path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        if announced.version.sha256 not in {None, sha256}:
            raise _other_file(wanted, sha256)
        if wanted.path.endswith(".gguf"):
            refuse_other_formats(head, wanted.path)
    except ModelFileError:
        part.discard()
        raise
    size_bytes = part.size_bytes
    part.land(target)
    return Downloaded(size_bytes, sha256, announced.commit)
