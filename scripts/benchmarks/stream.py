"""Whether memoryd grows or slows down while one NDJSON request brings many documents."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import orjson

from benchmarks.report import Report, Target
from benchmarks.server import Running, data_directory, run_server

_DOCUMENTS = "/v1/collections/default/documents"
_NDJSON = {"Content-Type": "application/x-ndjson"}
_PARTS = 10
_LINES_SENT_AT_ONCE = 200
_POLL_S = 0.1
_SLOWER = Target.at_most(1.2)
_GROWTH = Target.at_most(1.2)
_TESTS = Path(__file__).parents[2] / "tests"
_MAKE_TINY = """
import sys
from pathlib import Path
from model_servers import put_tiny
put_tiny("bert", Path(sys.argv[1]))
"""


@dataclass(frozen=True)
class _Moment:
    """Be how far all was at a time."""

    at_s: float
    sent: int
    stored: int
    memory_mb: float
    cpu_s: float


@dataclass
class _Sender:
    """Send documents as fast as the server takes them, and count them."""

    count: int
    sent: int = 0

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        while self.sent < self.count:
            numbers = range(self.sent, min(self.sent + _LINES_SENT_AT_ONCE, self.count))
            yield b"".join(map(_line, numbers))
            self.sent = numbers.stop


def _line(number: int) -> bytes:
    text = f"Note {number}: the cat sat on the mat while it rained."
    return orjson.dumps({"id": f"n{number}", "text": text, "metadata": {"n": number}}) + b"\n"


async def run(count: int, json: Path | None) -> None:
    """Print the figures, and write them to `json`."""
    report = Report()
    with data_directory() as directory:
        models_dir = directory.parent / "models"
        _make_tiny(models_dir / "tiny.gguf")
        options = ("--models-dir", str(models_dir), "--model", "tiny", "--measure-models", "false")
        async with run_server(directory, *options) as server:
            moments = await _stream(server, count)
    _report(report, moments, count)
    if json:
        report.save(json)


def _make_tiny(path: Path) -> None:
    """Write the tiny model of the tests: with a real one, little else would be measured."""
    subprocess.run(
        [sys.executable, "-c", _MAKE_TINY, str(path)],
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
        check=True,
    )


async def _stream(server: Running, count: int) -> list[_Moment]:
    """Send all, and note what is there until all is stored."""
    sender = _Sender(count)
    posting = asyncio.create_task(_post(server, sender))
    started = time.perf_counter()
    moments: list[_Moment] = []
    while not moments or moments[-1].stored < count:
        await asyncio.sleep(_POLL_S)
        if posting.done():
            posting.result()
        stored = await _stored(server)
        at_s = time.perf_counter() - started
        moments.append(_Moment(at_s, sender.sent, stored, server.memory_mb(), server.cpu_s()))
    return moments


async def _post(server: Running, sender: _Sender) -> None:
    address = f"{server.url}{_DOCUMENTS}?wait=false"
    async with server.session.post(address, data=sender.lines(), headers=_NDJSON) as response:
        if response.status != 202:
            raise RuntimeError(f"{response.status}: {await response.text()}")


async def _stored(server: Running) -> int:
    jobs = (await server.request("GET", "/v1/jobs?limit=1"))["jobs"]
    if not jobs:
        return 0
    if jobs[0]["counts"].get("failed"):
        raise RuntimeError(f"failed: {jobs[0]}")
    return int(jobs[0]["progress"]["done"])


def _report(report: Report, moments: Sequence[_Moment], count: int) -> None:
    formats = {
        "sent/s": ",.0f",
        "stored/s": ",.0f",
        "memory MB": ".0f",
        "CPU ms": ".2f",
        "ratio": ".2f",
    }
    report.section(f"{count:,} short documents in one NDJSON request, a tiny model", formats)
    sent_s = [_reached_s(moments, "sent", count * part // _PARTS) for part in range(_PARTS + 1)]
    stored_s = [_reached_s(moments, "stored", count * part // _PARTS) for part in range(_PARTS + 1)]
    cpu_s = [next(m.cpu_s for m in moments if m.at_s >= at_s) for at_s in stored_s]
    sizes = [
        max(moment.memory_mb for moment in moments if low <= moment.at_s <= high)
        for low, high in pairwise(stored_s)
    ]
    for part in range(_PARTS):
        figures = {
            "sent/s": count / _PARTS / (sent_s[part + 1] - sent_s[part]),
            "stored/s": count / _PARTS / (stored_s[part + 1] - stored_s[part]),
            "memory MB": sizes[part],
            "CPU ms": 1e3 * _PARTS / count * (cpu_s[part + 1] - cpu_s[part]),
        }
        report.row(f"tenth {part + 1}", figures)
    slower = (stored_s[-1] - stored_s[-2]) / (stored_s[1] - stored_s[0])
    report.row("time of the last : the first tenth", {"ratio": slower}, {"ratio": _SLOWER})
    report.row(
        "memory in the last : the first", {"ratio": sizes[-1] / sizes[0]}, {"ratio": _GROWTH}
    )


def _reached_s(moments: Sequence[_Moment], what: str, count: int) -> float:
    """Return when so many were sent, or stored, between two looks."""
    before = _Moment(0, 0, 0, 0, 0)
    for moment in moments:
        if getattr(moment, what) >= count:
            gained = getattr(moment, what) - getattr(before, what)
            part = (count - getattr(before, what)) / gained if gained else 0
            return before.at_s + part * (moment.at_s - before.at_s)
        before = moment
    raise RuntimeError(f"never were {count} {what}")
