"""Documents in NDJSON: one in each line, any number of them, in flat memory."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from memoryd.api import limits
from memoryd.api.bodies import decode, readable
from memoryd.api.document_bodies import id_of, read_draft
from memoryd.api.submissions import BodyType, Submission
from memoryd.documents.types import Draft
from memoryd.errors import EmptyInputError, InvalidInputError, TooLargeError
from memoryd.memory.ingest import Ingested
from memoryd.memory.streaming import Refused, open_stream

CONTENT_TYPES = (
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
)
_CHARSETS = ("utf-8", "utf8", "us-ascii")
_BATCH_LINES = 256
_BATCH_BYTES = 2 << 20
# After so long without a further byte, the lines that have come are taken on.
_IDLE_S = 0.5
# A line that is being read, and a batch that is being taken on.
_HELD_BYTES = limits.LINE_BYTES + 2 * _BATCH_BYTES


@dataclass(frozen=True)
class Line:
    """Be a line, counted from 1."""

    number: int
    data: bytes | None
    """None: it was too long."""

    @property
    def is_blank(self) -> bool:
        """Whether it stands for no document."""
        return self.data is not None and not self.data.strip()


class LineSplitter:
    """Cut bytes into lines as they come; of a line that is too long no more than that is held."""

    def __init__(self, most_bytes: int) -> None:
        """Take lines of up to `most_bytes`, without their end."""
        self._most_bytes = most_bytes
        self._begun = bytearray()
        self._number = 1
        self._is_too_long = False

    def feed(self, data: bytes) -> Iterator[Line]:
        """Yield the lines that end in `data`, but for those that are blank."""
        *ended, begun = data.split(b"\n")
        for part in ended:
            self._extend(part)
            yield from self._end()
        self._extend(begun)

    def finish(self) -> Iterator[Line]:
        """Yield the last line, which may have no end."""
        yield from self._end()

    def _extend(self, part: bytes) -> None:
        self._is_too_long |= len(self._begun) + len(part) > self._most_bytes
        if self._is_too_long:
            self._begun.clear()
        else:
            self._begun += part

    def _end(self) -> Iterator[Line]:
        line = Line(self._number, None if self._is_too_long else bytes(self._begun))
        self._begun.clear()
        self._is_too_long = False
        self._number += 1
        if not line.is_blank:
            yield line


async def _store(submission: Submission) -> Ingested:
    """Take on the documents of the lines; those that are none fail alone."""
    _check_headers(submission)
    memory, collection = submission.memory, submission.collection
    with memory.holding(_HELD_BYTES):
        async with open_stream(memory, collection, wait_s=submission.wait_s) as stream:
            async for lines in _batches(submission):
                await stream.add(await asyncio.to_thread(_read_lines, submission, lines))
        ingested = await stream.finish()
    if not ingested.outcomes:
        raise EmptyInputError("the request has no documents: send one in each line")
    return ingested


async def _skip(submission: Submission) -> None:
    async for data in _pieces(submission):
        submission.note(data or b"")


def _check_headers(submission: Submission) -> None:
    if submission.version is not None:
        raise InvalidInputError("If-Match goes with one document, not with a stream", "If-Match")
    charset = submission.request.charset or "utf-8"
    if charset.lower() not in _CHARSETS:
        raise InvalidInputError(
            f"the Content-Type says {charset}: send NDJSON in UTF-8", "Content-Type"
        )


async def _batches(submission: Submission) -> AsyncIterator[list[Line]]:
    """Yield the lines as they come, some together; nothing is read while they are worked on."""
    splitter = LineSplitter(limits.LINE_BYTES)
    batch: list[Line] = []
    size = 0
    async for data in _pieces(submission):
        if data is None and batch:
            yield batch
            batch, size = [], 0
        submission.note(data or b"")
        for line in splitter.feed(data or b""):
            batch.append(line)
            size += len(line.data or b"")
            if len(batch) >= _BATCH_LINES or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    batch += splitter.finish()
    if batch:
        yield batch


async def _pieces(submission: Submission) -> AsyncIterator[bytes | None]:
    """Yield the body as it comes, None where nothing came for a while."""
    content = submission.request.content
    while True:
        try:
            with readable():
                async with asyncio.timeout(_IDLE_S):
                    data = await content.readany()
        except TimeoutError:
            yield None
            continue
        if not data:
            return
        yield data


def _read_lines(submission: Submission, lines: list[Line]) -> list[Draft | Refused]:
    return [_read_line(submission, line) for line in lines]


def _read_line(submission: Submission, line: Line) -> Draft | Refused:
    value = None
    try:
        if line.data is None:
            raise TooLargeError(f"it has more than line_bytes = {limits.LINE_BYTES} bytes")
        value = decode(line.data)
        return read_draft(value, submission.collection, submission.settings.max_text_chars)
    except InvalidInputError as error:
        error.message = f"line {line.number}: {error.message}"
        return Refused(id_of(value), error)


LINES = BodyType(_store, _skip, waits=False)
