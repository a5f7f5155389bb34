"""Send documents to a server that refuses some, or has no room for them just now."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from memoryd.cli.client import Client, RequestError

Item = dict[str, Any]
Outcome = dict[str, Any]

_AT_ONCE = 2  # the server works on one batch while the next is on its way
_RETRIES = 5
_WAIT_S = 1
_LONGEST_WAIT_S = 30
# What memoryd says where there is no room, and the statuses that say it of a whole request.
_OVERLOADED = "overloaded"
_NO_ROOM = frozenset({_OVERLOADED, "rate_limited"})
_NO_ROOM_STATUSES = frozenset({429, 503})
# Whoever answers so refuses every batch: a wrong key, no such collection, another server.
_HOPELESS = frozenset({401, 403, 404, 405})


def failure(id_: str, code: str, message: str) -> Outcome:
    """Return the outcome of a document that the server has not stored."""
    return {"id": id_, "status": "failed", "error": {"code": code, "message": message}}


async def send_all(
    client: Client, path: str, batches: Iterator[list[Item]], note: Callable[[list[Outcome]], None]
) -> None:
    """Post the batches, and `note` what became of the documents of each.

    Raises UnavailableError where there is no server, RequestError where it takes no batch at all.
    """

    async def work() -> None:
        for batch in batches:
            note(await _send(client, path, batch))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def _send(client: Client, path: str, batch: list[Item]) -> list[Outcome]:
    """Return what became of each document; those that found no room are sent again."""
    settled: list[Outcome] = []
    outcomes, wait_s = await _post(client, path, batch)
    for _ in range(_RETRIES):
        pairs = list(zip(batch, outcomes, strict=True))
        batch = [item for item, outcome in pairs if _is_overloaded(outcome)]
        settled += [outcome for outcome in outcomes if not _is_overloaded(outcome)]
        if not batch:
            return settled
        await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
        outcomes, wait_s = await _post(client, path, batch)
    return settled + outcomes


async def _post(client: Client, path: str, batch: list[Item]) -> tuple[list[Outcome], int]:
    """Return what became of each document, and the seconds to wait before any is sent again."""
    try:
        answer = await client.request("POST", path, {"documents": batch})
    except RequestError as error:
        if error.status < 400 or error.status in _HOPELESS:
            raise
        if error.status == 413 and len(batch) > 1:
            return await _post_halves(client, path, batch)
        code = _OVERLOADED if error.status in _NO_ROOM_STATUSES else "refused"
        return [failure(item["id"], code, error.message) for item in batch], error.retry_after_s
    return answer["documents"], _WAIT_S


async def _post_halves(client: Client, path: str, batch: list[Item]) -> tuple[list[Outcome], int]:
    """Post what is too large together, so that only what is too large by itself fails."""
    middle = len(batch) // 2
    first, first_wait_s = await _post(client, path, batch[:middle])
    second, second_wait_s = await _post(client, path, batch[middle:])
    return first + second, max(first_wait_s, second_wait_s)


def _is_overloaded(outcome: Outcome) -> bool:
    return bool(outcome["status"] == "failed" and outcome["error"]["code"] in _NO_ROOM)
