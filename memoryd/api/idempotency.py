"""Idempotency-Key: a request that is sent again is answered as the first time.

As draft-ietf-httpapi-idempotency-key-header-07 has it: 409 while the first is under way, 422 for
another request of the same key.
"""

import re

from aiohttp import web

from memoryd.api import limits
from memoryd.api.errors import error_response, fault_of
from memoryd.api.submissions import BodyType, Submission, answer
from memoryd.errors import InvalidInputError, KeyReusedError, MemorydError, OverloadedError
from memoryd.memory.idempotency import claiming
from memoryd.storage.idempotency import KeptAnswer

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
_KEY = re.compile(rf"[\x20-\x7e]{{1,{limits.IDEMPOTENCY_KEY_CHARS}}}", re.ASCII)


def read_key(request: web.Request) -> str | None:
    """Return the key of a request, None where it has none."""
    key = request.headers.get(HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidInputError(
            f"{HEADER}: must be 1 to {limits.IDEMPOTENCY_KEY_CHARS} printable ASCII characters",
            HEADER,
        )
    return key


async def answer_once(key: str, submission: Submission, kind: BodyType) -> web.Response:
    """Answer as the first time, or, if this is the first time, keep what is answered.

    Whatever memoryd couldn't do is not kept, nor what was answered before all was read: then the
    request is done again, as it also is where memoryd died before it answered. Ids make that
    harmless. Raises KeyReusedError, RepeatedTooEarlyError, and what `kind` raises.
    """
    async with claiming(submission.memory, submission.collection, key) as claim:
        if claim.kept is not None:
            await kind.skip(submission)
            return _replay(claim.kept, submission)
        response = await _answer(submission, kind)
        if submission.request.content.at_eof():
            assert isinstance(response.body, bytes)  # noqa: S101 - answers here are JSON
            await claim.keep(KeptAnswer(submission.hash, response.status, response.body))
        return response


def _replay(kept: KeptAnswer, submission: Submission) -> web.Response:
    if kept.request_hash != submission.hash:
        raise KeyReusedError(
            "this Idempotency-Key came with another request before: send each request with a key "
            "of its own",
            "Idempotency-Key",
        )
    return web.Response(
        body=kept.body,
        status=kept.status,
        content_type="application/json",
        headers={REPLAYED: "true"},
    )


async def _answer(submission: Submission, kind: BodyType) -> web.Response:
    """Return the answer, also where it tells an error that comes again."""
    try:
        return await answer(submission, kind)
    except OverloadedError:
        raise
    except MemorydError as error:
        if fault_of(error).status >= 500:
            raise
        return error_response(submission.request, error)
