"""Hand files to parser processes, a few of which are kept warm."""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from memoryd.documents.parsing.types import Parsed, ParsingLimits
from memoryd.errors import InvalidInputError, StoppingError, TooLargeError, UnavailableError
from memoryd.parsers.confinement import clean_environment
from memoryd.parsers.frames import ANSWER_HEAD, READY, Request, read_answer, write_request

# Libraries keep some memory of each file: a new process begins with none.
_FILES_OF_A_PROCESS = 500
_START_S = 60.0


@dataclass(frozen=True)
class ProcessLimits:
    """Say what reading one file may take."""

    cpu_s: int = 60
    wall_s: float = 120.0
    """More than for the processor, since that may be busy with others."""
    memory_bytes: int = 2 << 30
    parsing: ParsingLimits = field(default_factory=ParsingLimits)


@asynccontextmanager
async def open_parsers(
    size: int = 2, limits: ProcessLimits | None = None, idle_s: float = 60.0
) -> AsyncIterator["ParserPool"]:
    """Give a pool that reads `size` files at once and keeps an idle process for `idle_s`."""
    pool = ParserPool(size, limits or ProcessLimits(), idle_s)
    try:
        yield pool
    finally:
        await pool.close()


class ParserPool:
    """Hold parser processes; they belong to the event loop in which it is used."""

    def __init__(self, size: int, limits: ProcessLimits, idle_s: float) -> None:
        """Take how many files are read at once, and how long an idle process is kept."""
        self._limits = limits
        self._idle_s = idle_s
        self._places = asyncio.Semaphore(size)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._is_closed = False

    async def parse_file(self, data: bytes, name: str, mime_type: str | None) -> Parsed:
        """Return what a file says; `name` and `mime_type` are the sender's word for what it is.

        Raises InvalidInputError with a reason that a person understands where it is empty, broken,
        encrypted, of an unknown type or ends the process, TooLargeError where it is over a limit,
        StoppingError once the pool is closed, UnavailableError where no process can be started.
        """
        async with self._places:
            worker = await self._take()
            self._busy.add(worker)
            try:
                return await worker.parse(data, name, mime_type)
            except UnavailableError as error:
                if self._is_closed:  # which ended the process
                    raise StoppingError("the file was not read") from error
                raise
            finally:
                self._busy.discard(worker)
                await self._give_back(worker)

    async def close(self) -> None:
        """End all processes, also those at work, whose files fail with StoppingError."""
        self._is_closed = True
        workers = [*self._idle, *self._busy]
        self._idle.clear()
        for worker in workers:
            await worker.end()

    async def _take(self) -> "_Worker":
        while self._idle:
            worker = self._idle.pop()
            worker.stay()
            if worker.is_alive:
                return worker
        if self._is_closed:
            raise StoppingError("the file was not read")
        return await _start_worker(self._limits)

    async def _give_back(self, worker: "_Worker") -> None:
        if not worker.is_reusable or self._is_closed:
            await worker.end()
            return
        self._idle.append(worker)
        worker.end_after(self._idle_s)


class _Worker:
    """Hold one process."""

    def __init__(self, process: Process, limits: ProcessLimits) -> None:
        assert process.stdin is not None  # noqa: S101 # a pipe
        assert process.stdout is not None  # noqa: S101 # a pipe
        self._process = process
        self._requests, self._answers = process.stdin, process.stdout
        self._limits = limits
        self._files = 0
        self._is_at_rest = True
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    @property
    def is_reusable(self) -> bool:
        """Whether it answered its last request, and may be given another."""
        return self.is_alive and self._is_at_rest and self._files < _FILES_OF_A_PROCESS

    async def ready(self) -> None:
        """Wait until it has started."""
        await self._answers.readexactly(len(READY))

    async def parse(self, data: bytes, name: str, mime_type: str | None) -> Parsed:
        self._files += 1
        self._is_at_rest = False
        request = Request(name, mime_type, self._limits.cpu_s, self._limits.parsing)
        try:
            async with asyncio.timeout(self._limits.wall_s):
                body = await self._exchange(request, data)
        except TimeoutError as error:
            raise TooLargeError(f"the file can't be read within {self._limits.wall_s} s") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise self._explain(await self._process.wait()) from error
        self._is_at_rest = True
        return read_answer(body)

    async def _exchange(self, request: Request, data: bytes) -> bytes:
        self._requests.write(write_request(request, data))
        self._requests.write(data)
        await self._requests.drain()
        (length,) = ANSWER_HEAD.unpack(await self._answers.readexactly(ANSWER_HEAD.size))
        return await self._answers.readexactly(length)

    def _explain(self, code: int) -> Exception:
        """Return why a process that ended with `code` gave no answer."""
        if code == -signal.SIGXCPU:
            return TooLargeError(
                f"the file can't be read within {self._limits.cpu_s} s of computing"
            )
        if code == -signal.SIGKILL:
            return UnavailableError("the system ended the process that read the file")
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        return InvalidInputError(
            f"the file ends the process that reads it ({how}): it is broken, or needs more than "
            f"{self._limits.memory_bytes >> 20} MiB"
        )

    def end_after(self, idle_s: float) -> None:
        """End it in `idle_s` seconds."""
        self._timer = asyncio.get_running_loop().call_later(idle_s, self._kill)

    def stay(self) -> None:
        """Don't end it for idleness."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def end(self) -> None:
        """End it now, and wait until it has ended."""
        self.stay()
        self._kill()
        await self._process.wait()

    def _kill(self) -> None:
        if self.is_alive:
            self._process.kill()


async def _start_worker(limits: ProcessLimits) -> _Worker:
    process = await _start_process(limits)
    worker = _Worker(process, limits)
    try:
        async with asyncio.timeout(_START_S):
            await worker.ready()
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        await worker.end()
        raise UnavailableError("the process that reads files doesn't start") from error
    except asyncio.CancelledError:
        await worker.end()
        raise
    return worker


async def _start_process(limits: ProcessLimits) -> Process:
    command = [sys.executable, "-P", "-m", "memoryd.parsers.worker", str(limits.memory_bytes)]
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=clean_environment()
        )
    except OSError as error:
        raise UnavailableError(f"no process can be started to read files: {error}") from error
