"""Send files to a server that refuses some, or has no room for them just now."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from memoryd.cli.client import Client, RequestError, pages

Outcome = dict[str, Any]

_AT_ONCE = 2  # the server works on one batch while the next is on its way
_BATCH_BYTES = 4 << 20
_BATCH_FILES = 64
_LARGEST_BYTES = 1 << 30
_WAIT_FOR_OUTCOMES_S = 300
_JOB_POLL_S = 1.0
_RETRIES = 5
_WAIT_S = 1
_LONGEST_WAIT_S = 30
# What memoryd says where there is no room, and the statuses that say it of a whole request.
_OVERLOADED = "overloaded"
_NO_ROOM = frozenset({_OVERLOADED, "rate_limited"})
_NO_ROOM_STATUSES = frozenset({429, 503})
# Whoever answers so refuses every batch: a wrong key, no such collection, another server.
_HOPELESS = frozenset({401, 403, 404, 405})


@dataclass(frozen=True)
class Item:
    """Be a file to send; its document has the id `id`."""

    id: str
    path: Path
    size_bytes: int


def failure(id_: str, code: str, message: str) -> Outcome:
    """Return the outcome of a file that the server has not stored."""
    error = {"code": code, "message": message}
    return {"id": id_, "status": "failed", "chunks": 0, "error": error}


def items_of(files: Iterable[Path], note: Callable[[list[Outcome]], None]) -> Iterator[Item]:
    """Yield what can be sent of `files`, and `note` the failures of the others."""
    for path in files:
        try:
            yield _item(path)
        except OSError as error:
            note([failure(_shown(path), "unreadable", error.strerror or str(error))])
        except ValueError as error:
            note([failure(_shown(path), "invalid_value", str(error))])


def _item(path: Path) -> Item:
    if _shown(path) != str(path):
        raise ValueError("its name is not UTF-8: rename it")
    if any(ord(char) < 32 or ord(char) == 127 for char in str(path)):
        raise ValueError("its name has control characters: rename it")
    size_bytes = path.stat().st_size
    if size_bytes > _LARGEST_BYTES:
        raise ValueError("it is larger than 1 GiB: split it")
    return Item(str(path), path, size_bytes)


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def batches_of(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield the items in their order, a few at a time."""
    batch: list[Item] = []
    size_bytes = 0
    for item in items:
        if batch and (len(batch) == _BATCH_FILES or size_bytes + item.size_bytes > _BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(item)
        size_bytes += item.size_bytes
    if batch:
        yield batch


class Sender:
    """Post files as documents of one collection, whose routes are below `path`."""

    def __init__(
        self,
        client: Client,
        path: str,
        note: Callable[[list[Outcome]], None],
        *,
        waits: bool = True,
    ) -> None:
        """Call `note` with what became of the documents of each batch, once the server knows.

        Where it doesn't wait they are `queued`, and `jobs` tells which jobs go on with them.
        """
        self.jobs: list[str] = []
        self._client = client
        self._note = note
        self._waits = waits
        wait = f"wait=true&wait_s={_WAIT_FOR_OUTCOMES_S}" if waits else "wait=false"
        self._path = f"{path}/documents?{wait}"

    async def send_all(self, batches: Iterator[list[Item]]) -> None:
        """Post the batches.

        Raises UnavailableError where there is no server, RequestError where it takes none at all.
        """

        async def work() -> None:
            for batch in batches:
                self._note(await self._send(batch))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _send(self, batch: list[Item]) -> list[Outcome]:
        """Return what became of each document; those that found no room are sent again."""
        settled: list[Outcome] = []
        outcomes, wait_s = await self._post(batch)
        for _ in range(_RETRIES):
            refused = {outcome["id"] for outcome in outcomes if _is_overloaded(outcome)}
            batch = [item for item in batch if item.id in refused]
            settled += [outcome for outcome in outcomes if outcome["id"] not in refused]
            if not batch:
                return settled
            await asyncio.sleep(min(wait_s, _LONGEST_WAIT_S))
            outcomes, wait_s = await self._post(batch)
        return settled + outcomes

    async def _post(self, batch: list[Item]) -> tuple[list[Outcome], int]:
        """Return what became of each document, and the seconds to wait before any is sent again."""
        form, unread = await asyncio.to_thread(_form, batch)
        if len(unread) == len(batch):
            return unread, _WAIT_S
        try:
            answer = await self._client.request("POST", self._path, form)
        except RequestError as error:
            if error.status < 400 or error.status in _HOPELESS:
                raise
            if error.status == 413 and len(batch) > 1:
                return await self._post_halves(batch)
            code = _OVERLOADED if error.status in _NO_ROOM_STATUSES else "refused"
            return [failure(item.id, code, error.message) for item in batch], error.retry_after_s
        return unread + await self._outcomes(answer), _WAIT_S

    async def _post_halves(self, batch: list[Item]) -> tuple[list[Outcome], int]:
        """Post what is too large together, so that only what is too large by itself fails."""
        middle = len(batch) // 2
        first, first_wait_s = await self._post(batch[:middle])
        second, second_wait_s = await self._post(batch[middle:])
        return first + second, max(first_wait_s, second_wait_s)

    async def _outcomes(self, answer: dict[str, Any]) -> list[Outcome]:
        outcomes: list[Outcome] = answer["documents"]
        job = answer["job"]
        if job is None:
            return outcomes
        if not self._waits:
            self.jobs.append(job["id"])
            return outcomes
        return await _follow(self._client, job["id"], outcomes)


def _form(batch: list[Item]) -> tuple[aiohttp.MultipartWriter, list[Outcome]]:
    """Return a form of the files, and the failures of those that can't be read any more."""
    form = aiohttp.MultipartWriter("form-data")
    unread: list[Outcome] = []
    for item in batch:
        try:
            part = form.append(item.path.read_bytes())
            # Not filename="…", of which aiohttp's reader takes a slash at the beginning away.
            name = quote(item.id, safe="")
            part.headers["Content-Disposition"] = f"form-data; name=file; filename*=utf-8''{name}"
        except OSError as error:
            unread.append(failure(item.id, "unreadable", error.strerror or str(error)))
    return form, unread


async def _follow(client: Client, job_id: str, outcomes: list[Outcome]) -> list[Outcome]:
    """Return the outcomes once the job that goes on with those that are queued has ended.

    It tells by id what failed, and of the rest how many became what.
    """
    job = await _end_of(client, job_id)
    failures = {
        failed["id"]: failed["error"]
        async for failed in pages(client, f"/v1/jobs/{job_id}/failures", "failures")
    }
    told = Counter(outcome["status"] for outcome in outcomes)
    others = Counter({status: count for status, count in job["counts"].items() if count})
    others.subtract({**told, "total": others["total"], "failed": others["failed"]})
    statuses = iter(sorted((+others).elements()))
    return [_resolved(outcome, failures, statuses) for outcome in outcomes]


async def _end_of(client: Client, job_id: str) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = await client.request("GET", f"/v1/jobs/{job_id}")
        if job["finished_at"] is not None:
            return job
        await asyncio.sleep(_JOB_POLL_S)


def _resolved(outcome: Outcome, failures: dict[str, Any], statuses: Iterator[str]) -> Outcome:
    if outcome["status"] != "queued":
        return outcome
    if outcome["id"] in failures:
        return {**outcome, "status": "failed", "error": failures[outcome["id"]]}
    status = next(statuses, "stored")
    if status == "cancelled":
        return failure(outcome["id"], "conflict", "its job was cancelled, or it was deleted")
    return {**outcome, "status": status}


def _is_overloaded(outcome: Outcome) -> bool:
    return bool(outcome["status"] == "failed" and outcome["error"]["code"] in _NO_ROOM)
