"""The vendors' clients: where scripts/clients puts them, and how scripts that use them are run."""

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from lacking import skip_without

NODE, SHELL = "node", "shell"
_FOLDER = Path(__file__).parents[2] / ".clients"
_RUN_SCRIPTS = Path(__file__).with_name("run_scripts.py")
_LIMIT_S = 120  # Aleph Alpha's client asks for a minute where it is told to try again
_LINE_BYTES = 1 << 24

# What would leave this machine meets a closed door.
_VARIABLES = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9") | {
    "no_proxy": "127.0.0.1,localhost",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
}


@dataclass
class Runner:
    """Run scripts, in each environment one at a time; those in Python share an interpreter."""

    url: str
    """Of the server that they ask, their first argument."""
    folder: Path
    tiktoken_folder: Path
    _turns: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _idle: dict[str, Process] = field(default_factory=dict)
    _processes: AsyncExitStack = field(default_factory=AsyncExitStack)
    _tasks: list[asyncio.Task[bytes]] = field(default_factory=list)

    def start(self, script: Path, environment: str) -> asyncio.Task[bytes]:
        """Begin to run a script, in a folder of .clients or in the shell; tell what it prints."""
        task = asyncio.create_task(self._run_in_turn(script, environment))
        self._tasks.append(task)
        return task

    async def close(self) -> None:
        """End what still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._processes.aclose()

    async def _run_in_turn(self, script: Path, environment: str) -> bytes:
        async with self._turns[environment], asyncio.timeout(_LIMIT_S):
            if environment in (NODE, SHELL):
                return await self._run(script, "bash" if environment == SHELL else _node())
            return await self._interpret(script, environment)

    async def _run(self, script: Path, program: str) -> bytes:
        async with self._process(program, script, self.url, stderr=PIPE) as process:
            said, complained = await process.communicate()
        assert process.returncode == 0, complained.decode()
        return said

    async def _interpret(self, script: Path, environment: str) -> bytes:
        # It is put back once it has answered: one that hangs gets no other script.
        process = self._idle.pop(environment, None) or await self._open_interpreter(environment)
        assert process.stdin
        assert process.stdout
        process.stdin.write(f"{script}\n".encode())
        line = await process.stdout.readline()
        assert line, f"the interpreter of {environment} has ended"
        self._idle[environment] = process
        printed, failure = orjson.loads(line)
        assert failure is None, failure
        return str(printed).encode()

    async def _open_interpreter(self, environment: str) -> Process:
        _check_installed(environment)
        python = _FOLDER / environment / "bin" / "python"
        opening = self._process(python, _RUN_SCRIPTS, self.url, stdin=PIPE, limit=_LINE_BYTES)
        return await self._processes.enter_async_context(opening)

    @asynccontextmanager
    async def _process(self, *command: str | Path, **options: int) -> AsyncIterator[Process]:
        variables = {**os.environ, **_VARIABLES, "TIKTOKEN_CACHE_DIR": str(self.tiktoken_folder)}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=variables, stdout=PIPE, **options
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def link_node_modules(folder: Path) -> None:
    """Let scripts in `folder` import the packages for Node by their names."""
    (folder / "node_modules").symlink_to(_FOLDER / NODE / "node_modules")


def _node() -> str:
    if not shutil.which("npm"):
        skip_without("npm")
    _check_installed(NODE)
    return NODE


def _check_installed(environment: str) -> None:
    assert (_FOLDER / environment / ".installed").exists(), "run scripts/clients first"
