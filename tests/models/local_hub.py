"""A hub on a real socket, and servers of files that break off, lie, stall and redirect."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
PIECE_BYTES = 16 << 10


@dataclass
class LocalHub:
    """Serve `folder` as one model's repository, or what `answer` makes of a request."""

    folder: Path
    url: str = ""
    requested: list[str] = field(default_factory=list)
    answer: Answer | None = None
    tree_answer: Answer | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request and answer it."""
        self.requested.append(request.path)
        if self.answer:
            return await self.answer(request)
        return web.FileResponse(self.folder / request.match_info["path"])

    async def list_tree(self, request: web.Request) -> web.StreamResponse:
        """List the files as huggingface_hub's list_repo_tree reads them."""
        self.requested.append(request.path)
        if self.tree_answer:
            return await self.tree_answer(request)
        assert request.query["recursive"] == "true"
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return web.json_response([self._listed(path) for path in paths])

    def _listed(self, path: Path) -> dict[str, object]:
        content = path.read_bytes()
        listed: dict[str, object] = {
            "type": "file",
            "oid": "0" * 40,
            "size": len(content),
            "path": str(path.relative_to(self.folder)),
        }
        if path.suffix in {".gguf", ".safetensors"}:
            oid = sha256(content).hexdigest()
            listed["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
        return listed


@dataclass
class FileServer:
    """Serve `content` with ETag, ranges and If-Range, and with the faults that are set.

    `cuts` has one number per answer to come: how many bytes are sent before the connection is cut.
    `first_statuses` are answered before anything else, `headers` are sent with each answer, and
    `announced_bytes` is what is said of the length instead of the truth.
    """

    content: bytes
    etag: str | None = '"v1"'
    url: str = ""
    cuts: list[int] = field(default_factory=list)
    first_statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    announced_bytes: int | None = None
    takes_ranges: bool = True
    stall_after: int | None = None
    location: str | None = None
    sent_bytes: int = 0
    requests: list[web.Request] = field(default_factory=list)

    @property
    def ranges(self) -> list[str | None]:
        """Return which part each request asked for."""
        return [request.headers.get("Range") for request in self.requests]

    @property
    def starts(self) -> list[int]:
        """Return from which byte on each request asked."""
        return [int(asked[6:-1]) if asked else 0 for asked in self.ranges]

    @property
    def tokens(self) -> list[str | None]:
        """Return with which credentials each request came."""
        return [request.headers.get("Authorization") for request in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for the file."""
        self.requests.append(request)
        if self.first_statuses:
            return web.Response(status=self.first_statuses.pop(0), headers=self.headers)
        if self.location:
            headers = {"Location": self.location, **self.headers}
            return web.Response(status=302, headers=headers)
        response, rest = self._begin(request)
        await response.prepare(request)
        await self._send(request, response, rest)
        return response

    def _begin(self, request: web.Request) -> tuple[web.StreamResponse, bytes]:
        headers = {**({"ETag": self.etag} if self.etag else {}), **self.headers}
        start = self._start(request)
        total = len(self.content)
        if start and start >= total:
            refused = web.StreamResponse(
                status=416, headers={**headers, "Content-Range": f"bytes */{total}"}
            )
            return refused, b""
        if start:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        if "Transfer-Encoding" not in headers:
            response.content_length = (self.announced_bytes or total) - start
        return response, self.content[start:]

    def _start(self, request: web.Request) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if match is None or not self.takes_ranges:
            return 0
        return int(match[1]) if request.headers.get("If-Range") == self.etag else 0

    async def _send(self, request: web.Request, response: web.StreamResponse, rest: bytes) -> None:
        cut = self.cuts.pop(0) if self.cuts else None
        allowed = rest if cut is None else rest[:cut]
        allowed = allowed if self.stall_after is None else allowed[: self.stall_after]
        for start in range(0, len(allowed), PIECE_BYTES):
            piece = allowed[start : start + PIECE_BYTES]
            self.sent_bytes += len(piece)
            await response.write(piece)
        if self.stall_after is not None:
            await asyncio.sleep(60)
        if cut is not None or self.announced_bytes is not None:
            # A client drops what it has received and not yet read when a connection is cut.
            await asyncio.sleep(0.1)
            assert request.transport
            request.transport.close()
