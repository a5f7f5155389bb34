from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class LocalHub:
    """Serve `folder` as one model's repository, or what `answer` makes of a request."""

    folder: Path
    url: str = ""
    requested: list[str] = field(default_factory=list)
    answer: Answer | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note the request and answer it."""
        self.requested.append(request.path)
        if self.answer:
            return await self.answer(request)
        return web.FileResponse(self.folder / request.match_info["path"])
