"""What the requests that bring documents share, whichever type their body is of."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property

import orjson
from aiohttp import web

from memoryd.api.document_bodies import stored_answer
from memoryd.api.errors import json_response
from memoryd.api.queries import read_version
from memoryd.api.state import MEMORY
from memoryd.config import Settings
from memoryd.documents.types import Collection
from memoryd.memory.ingest import Ingested
from memoryd.memory.state import Memory

_HASH_BYTES = 32


@dataclass(frozen=True)
class Submission:
    """Be a request that brings documents, before its body is read."""

    request: web.Request
    collection: Collection
    wait_s: float
    """How long the client waits for the outcomes at most; 0: not at all."""
    _digest: "hashlib.blake2b" = field(
        default_factory=lambda: hashlib.blake2b(digest_size=_HASH_BYTES)
    )

    @property
    def memory(self) -> Memory:
        """What the use cases work with."""
        return self.request.app[MEMORY]

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.memory.settings

    @cached_property
    def version(self) -> int | None:
        """The version that the one document may replace; None: any."""
        return read_version(self.request)

    def note(self, data: bytes) -> None:
        """Count `data` in for the hash: all that the body brings passes here."""
        self._digest.update(data)

    @property
    def hash(self) -> bytes:
        """Thirty-two bytes that change with all that the request asks for."""
        digest = self._digest.copy()
        rest = [self.request.content_type, self.request.query_string, self.version]
        digest.update(orjson.dumps(rest))
        return digest.digest()


@dataclass(frozen=True)
class BodyType:
    """Say how bodies of one type are read."""

    store: Callable[[Submission], Awaitable[Ingested]]
    """Take on what the body brings."""
    skip: Callable[[Submission], Awaitable[None]]
    """Read the body for the request's hash alone."""
    waits: bool
    """Whether the answer comes when the documents can be found, unless the query says."""


async def answer(submission: Submission, kind: BodyType) -> web.Response:
    """Take on what the body brings, and say what became of it; raise what `kind` raises."""
    ingested = await kind.store(submission)
    job = ingested.job
    is_over = job is None or bool(submission.wait_s and job.finished_at)
    return json_response(stored_answer(ingested), status=200 if is_over else 202)
