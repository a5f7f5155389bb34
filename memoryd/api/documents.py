"""The route that stores documents."""

from dataclasses import replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, WithJsonSchema

from memoryd.api import limits, ndjson, uploads
from memoryd.api.bodies import apart, read_bytes, read_json
from memoryd.api.collections import find
from memoryd.api.document_bodies import id_of, read_draft
from memoryd.api.idempotency import answer_once, read_key
from memoryd.api.queries import Flag, Query, Seconds, read_query
from memoryd.api.state import MEMORY
from memoryd.api.submissions import BodyType, Submission, answer
from memoryd.documents.types import Draft, Outcome
from memoryd.errors import InvalidInputError, MemorydError, TooLargeError, UnknownFieldError
from memoryd.memory.ingest import Ingested, ingest


class StoreQuery(Query):
    """How documents are stored."""

    wait: Annotated[Flag | None, WithJsonSchema({"type": "boolean"})] = Field(
        None,
        description="Whether the answer comes when they can be found: for JSON it does unless this "
        "says false, for NDJSON and files it comes as soon as they are accepted.",
    )
    wait_s: Seconds = Field(
        30,
        ge=0,
        le=limits.WAIT_S,
        description="How long it waits at most; a job goes on with the rest.",
    )


async def store(request: web.Request) -> web.Response:
    """Store documents: one or a batch in JSON, any number in NDJSON, or the files of a form.

    Of NDJSON each line is a document, and the body has no limit as a whole. `documents` tells of
    each of the first lines, as many as a batch in JSON may have; beyond, of as many of those that
    failed at once, and the job counts all. What was accepted stays, also where the client breaks
    off. Of a form each file is a document whose id is its name; the fields are for all files, and
    come first in a form that is larger than a body may be.

    A document that fails by itself answers its error; with others it is `failed`, and never fails
    the rest. An answer that takes too long is 202 with a job, which goes on with what is queued.
    """
    kind = _TYPES.get(request.content_type, _JSON)
    query = read_query(request, StoreQuery)
    waits = kind.waits if query.wait is None else query.wait
    key = read_key(request)
    submission = Submission(request, await find(request), query.wait_s if waits else 0)
    if key is None:
        return await answer(submission, kind)
    # Also where the client leaves, its next request of this key gets the answer.
    return await request.app[MEMORY].run_to_end(answer_once(key, submission, kind))


async def _store_json(submission: Submission) -> Ingested:
    request, memory = submission.request, submission.memory
    with memory.holding(request.content_length or memory.settings.max_body_bytes):
        await _skip_json(submission)
        body = await read_json(request)
        if isinstance(body, dict) and "documents" in body:
            return await _store_batch(submission, body)
        return await _store_one(submission, body)


async def _skip_json(submission: Submission) -> None:
    submission.note(await read_bytes(submission.request))


async def _store_one(submission: Submission, body: Any) -> Ingested:
    """Store one document; raise what is wrong with it."""
    draft = await apart(submission.request, _read_draft, submission, body)
    draft = replace(draft, version=submission.version)
    ingested = await ingest(
        submission.memory, submission.collection, [draft], wait_s=submission.wait_s
    )
    error = ingested.outcomes[0].error
    if error is not None:
        raise error
    return ingested


async def _store_batch(submission: Submission, body: dict[str, Any]) -> Ingested:
    if submission.version is not None:
        raise InvalidInputError("If-Match goes with one document, not with a batch", "If-Match")
    items = _batch_items(submission, body)
    outcomes, drafts = await apart(submission.request, _read_batch, submission, items)
    ingested = await ingest(
        submission.memory, submission.collection, list(drafts.values()), wait_s=submission.wait_s
    )
    outcomes |= zip(drafts, ingested.outcomes, strict=True)
    return Ingested([outcomes[index] for index in range(len(items))], ingested.job)


def _batch_items(submission: Submission, body: dict[str, Any]) -> list[Any]:
    items = body["documents"]
    most = submission.settings.max_documents
    unknown = [field for field in body if field != "documents"]
    if unknown:
        raise UnknownFieldError(f"{unknown[0]} is not a field beside documents", unknown[0])
    if not isinstance(items, list) or not items:
        raise InvalidInputError("documents: must be a list of at least one", "documents")
    if len(items) > most:
        raise TooLargeError(
            f"documents: {len(items)} are more than max_documents = {most}: send smaller batches",
            "documents",
        )
    return items


def _read_batch(
    submission: Submission, items: list[Any]
) -> tuple[dict[int, Outcome], dict[int, Draft]]:
    """Return the outcomes of what is no document, and the documents, by their places."""
    outcomes: dict[int, Outcome] = {}
    drafts: dict[int, Draft] = {}
    for index, item in enumerate(items):
        try:
            drafts[index] = _read_draft(submission, item, f"documents[{index}]")
        except MemorydError as error:
            outcomes[index] = Outcome(id_of(item), "failed", error=error)
    return outcomes, drafts


def _read_draft(submission: Submission, value: Any, at: str = "") -> Draft:
    return read_draft(value, submission.collection, submission.settings.max_text_chars, at)


_JSON = BodyType(_store_json, _skip_json, waits=True)
_TYPES = dict.fromkeys(ndjson.CONTENT_TYPES, ndjson.LINES) | {uploads.CONTENT_TYPE: uploads.FILES}

DocumentLines = Annotated[
    str, Field(description="A document in each line, as an application/json body has one.")
]
