"""Documents as the files of a form (multipart/form-data, RFC 7578)."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from aiohttp import BodyPartReader
from pydantic import Field, WithJsonSchema

from memoryd.api import limits
from memoryd.api.bodies import Body, decode, parse, readable
from memoryd.api.document_bodies import AttributesBody
from memoryd.api.fields import DocumentId
from memoryd.api.submissions import BodyType, Submission
from memoryd.documents.types import Draft, File
from memoryd.errors import InvalidInputError, MissingFieldError, TooLargeError, UnknownFieldError
from memoryd.memory.ingest import Ingested
from memoryd.memory.streaming import Refused, Stream, open_stream

CONTENT_TYPE = "multipart/form-data"
_FIELDS = frozenset(AttributesBody.model_fields)
_READ_BYTES = 1 << 18
# What programs say of files that they don't know the type of.
_UNTOLD = "application/octet-stream"
_PLAIN_ENCODINGS = ("", "binary", "8bit", "7bit")


class UploadForm(AttributesBody):
    """Files to store, each as a document whose id is its name; the fields are for all of them."""

    id: DocumentId | None = Field(None, description="Of one file alone, instead of its name.")
    file: list[Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": _UNTOLD})]]


class _FileName(Body):
    """Check a file's name as the id that it becomes."""

    filename: DocumentId


@dataclass(frozen=True)
class _Upload:
    index: int
    name: str
    mime_type: str | None
    data: bytes


@dataclass
class _Form:
    """Gather fields and files; the files are taken on at the end, or when they get too large.

    So up to `max_body_bytes` a form is taken on as a whole, and its parts can come in any order; a
    larger one needs no more memory than that, and its fields come first.
    """

    submission: Submission
    stream: Stream
    _fields: dict[str, list[str]] = field(default_factory=dict)
    _files: list[_Upload] = field(default_factory=list)
    _count: int = 0
    _is_begun: bool = False

    @property
    def _most_bytes(self) -> int:
        return self.submission.settings.max_body_bytes

    async def add_field(self, name: str, part: BodyPartReader) -> None:
        """Keep the value of a field."""
        if self._is_begun:
            raise InvalidInputError(
                f"{name}: in a form of more than max_body_bytes = {self._most_bytes} bytes the "
                "fields come before the files",
                name,
            )
        data = b""
        async for piece in _pieces(self.submission, part):
            data += piece
            if len(data) > limits.FORM_FIELD_BYTES:
                raise TooLargeError(
                    f"{name} has more than form_field_bytes = {limits.FORM_FIELD_BYTES}", name
                )
        values = self._fields.setdefault(name, [])
        values.append(_text(name, data))
        if len(values) > limits.TAGS:
            raise TooLargeError(f"{name} stands there more than {limits.TAGS} times", name)

    async def add_file(self, part: BodyPartReader) -> None:
        """Read a file; take those before it on where both are too large to hold."""
        index = self._count
        self._count += 1
        most = self.submission.settings.max_documents
        if self._count > most:
            raise TooLargeError(f"files: there are more than max_documents = {most}", "files")
        pieces: list[bytes] = []
        size, held = 0, sum(len(file.data) for file in self._files)
        async for piece in _pieces(self.submission, part):
            size += len(piece)
            if size > self._most_bytes:
                at = f"files[{index}]"
                raise TooLargeError(
                    f"{at} has more than max_body_bytes = {self._most_bytes} bytes", at
                )
            if held and held + size > self._most_bytes:
                await self.take_on()
                held = 0
            pieces.append(piece)
        data = await asyncio.to_thread(b"".join, pieces)
        self._files.append(_Upload(index, part.filename or "", _mime_type(part), data))

    async def finish(self) -> None:
        """Take on what is left; raise MissingFieldError for a form without files."""
        if not self._count:
            raise MissingFieldError("file is required: send at least one, with its name", "file")
        await self.take_on()

    async def take_on(self) -> None:
        """Accept the files that are held, with the fields as they are."""
        self._is_begun = True
        attributes = _read_fields(self._fields)
        self._check_is_one(attributes)
        drafts = await asyncio.to_thread(self._drafts, attributes)
        self._files.clear()
        await self.stream.add(drafts)

    def _check_is_one(self, attributes: AttributesBody) -> None:
        if self._count > 1 and attributes.id is not None:
            raise InvalidInputError("id goes with one file: others get their names", "id")
        if self._count > 1 and self.submission.version is not None:
            raise InvalidInputError("If-Match goes with one document, not with more", "If-Match")

    def _drafts(self, attributes: AttributesBody) -> Sequence[Draft | Refused]:
        return [_draft(file, attributes, self.submission.version) for file in self._files]


def _draft(upload: _Upload, attributes: AttributesBody, version: int | None) -> Draft | Refused:
    try:
        parse(_FileName, {"filename": upload.name}, f"files[{upload.index}]")
    except InvalidInputError as error:
        return Refused(None, error)
    fields = attributes.model_dump() | {"mime_type": attributes.mime_type or upload.mime_type}
    draft = Draft(**fields, file=File(upload.name, upload.data), version=version)
    # A large file takes long: it is made here, in a thread, and then is known.
    draft.content_hash  # noqa: B018 - it is cached
    return draft


def _read_fields(given: Mapping[str, list[str]]) -> AttributesBody:
    """Return the fields of a form; one that is empty counts as absent, as forms send it."""
    values: dict[str, Any] = {}
    for name, texts in given.items():
        texts = [text for text in texts if text]
        if name == "tags":
            values[name] = _read_tags(texts)
        elif len(texts) > 1:
            raise InvalidInputError(f"{name} stands there more than once", name)
        elif texts:
            values[name] = _read_json(name, texts[0]) if name == "metadata" else texts[0]
    return parse(AttributesBody, values)


def _read_tags(texts: Sequence[str]) -> Any:
    """Return the tags: one for each field, or a JSON list in one."""
    if len(texts) == 1 and texts[0].startswith("["):
        return _read_json("tags", texts[0])
    return list(texts)


def _read_json(name: str, text: str) -> Any:
    try:
        return decode(text.encode(), name)
    except InvalidInputError as error:
        error.param = error.param or name
        raise


def _text(name: str, data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{name} is not UTF-8: {error}", name) from error
    if "\0" in text:
        raise InvalidInputError(f"{name} has a NUL character", name)
    return text


def _mime_type(part: BodyPartReader) -> str | None:
    told = part.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return told if told and told != _UNTOLD else None


# --- Parts ----


async def _store(submission: Submission) -> Ingested:
    """Take on the files of a form; those that can't be read fail alone, when their turn comes."""
    memory, most = submission.memory, submission.settings.max_body_bytes
    with memory.holding(min(submission.request.content_length or most, most)):
        async with open_stream(memory, submission.collection, wait_s=submission.wait_s) as stream:
            form = _Form(submission, stream)
            async for part in _parts(submission):
                name = _name_of(part)
                if name in _FIELDS:
                    await form.add_field(name, part)
                else:
                    await form.add_file(part)
            await form.finish()
        return await stream.finish()


async def _skip(submission: Submission) -> None:
    async for part in _parts(submission):
        async for _ in _pieces(submission, part):
            pass


def _name_of(part: BodyPartReader) -> str:
    """Return the name of a field, or of a file, which can be any other."""
    name = part.name
    if name is None:
        raise InvalidInputError("a part of the form has no name")
    if name in _FIELDS or part.filename is not None:
        return name
    if name in ("file", "files"):
        raise InvalidInputError(f"{name}: send the file with its name (filename=…)", name)
    raise UnknownFieldError(f"{name} is not a field of this request", name)


async def _parts(submission: Submission) -> AsyncIterator[BodyPartReader]:
    with _well_formed():
        reader = await submission.request.multipart()
    while True:
        with _well_formed():
            part = await reader.next()
        if part is None:
            with readable():
                await submission.request.release()  # what may come after the last part
            return
        if not isinstance(part, BodyPartReader):
            raise InvalidInputError("a part of the form has parts itself: send each by itself")
        encoding = part.headers.get("Content-Transfer-Encoding", "").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise InvalidInputError(f"a part of the form is sent in {encoding}: send it as it is")
        yield part


async def _pieces(submission: Submission, part: BodyPartReader) -> AsyncIterator[bytes]:
    """Yield what a part holds, counted in for the request's hash: the boundaries are not."""
    submission.note(_line([part.name, part.filename, part.headers.get("Content-Type")]))
    size = 0
    while True:
        with _well_formed():
            piece = await part.read_chunk(_READ_BYTES)
        if not piece:
            break
        size += len(piece)
        submission.note(piece)
        yield piece
    submission.note(_line([size]))


def _line(values: list[Any]) -> bytes:
    # A name may have come in no encoding, which JSON can't tell.
    return repr(values).encode("utf-8", "backslashreplace") + b"\n"


@contextmanager
def _well_formed() -> Iterator[None]:
    """Raise InvalidInputError where aiohttp can't make parts of a body."""
    try:
        with readable():
            yield
    except (ValueError, RuntimeError, LookupError, AssertionError) as error:
        raise InvalidInputError(f"the form can't be read: {error}") from error


FILES = BodyType(_store, _skip, waits=False)
