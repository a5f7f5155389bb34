"""The vendors' clients: where scripts/clients puts them, and how a script that uses one is run."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

_FOLDER = Path(__file__).parents[2] / ".clients"
_NODE = "node"
_SHELL = "shell"
_LIMIT_S = 120  # Aleph Alpha's client asks for a minute where it is told to try again

# What would leave this machine meets a closed door.
_VARIABLES = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9") | {
    "no_proxy": "127.0.0.1,localhost",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
}

K = TypeVar("K")


@dataclass(frozen=True)
class Run:
    """Say which script is run, where: in a folder of .clients, or in the shell."""

    script: Path
    environment: str
    arguments: tuple[str, ...] = ()


def cl100k_folder() -> Path:
    """Return the folder of litellm's package that holds the table of cl100k, for tiktoken."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = _FOLDER / "litellm" / "lib" / python / "site-packages"
    return site / "litellm" / "litellm_core_utils" / "tokenizers"


@asynccontextmanager
async def running(runs: Mapping[K, Run]) -> AsyncIterator[dict[K, asyncio.Task[bytes]]]:
    """Run scripts, as many at a time as there are cores; give what tells what each prints."""
    slots = asyncio.Semaphore(os.cpu_count() or 1)

    async def run_in_turn(run: Run) -> bytes:
        async with slots:
            return await _run(run)

    tasks = {name: asyncio.create_task(run_in_turn(run)) for name, run in runs.items()}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


async def _run(run: Run) -> bytes:
    process = await asyncio.create_subprocess_exec(
        _interpreter(run.environment),
        run.script,
        *run.arguments,
        cwd=run.script.parent,
        env={**os.environ, **_VARIABLES, "TIKTOKEN_CACHE_DIR": str(cl100k_folder())},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complained = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()
    return said


def link_node_modules(folder: Path) -> None:
    """Let scripts in `folder` import the packages for Node by their names."""
    (folder / "node_modules").symlink_to(_FOLDER / _NODE / "node_modules")


def _interpreter(environment: str) -> str | Path:
    if environment == _SHELL:
        return "bash"
    if environment == _NODE and not shutil.which("npm"):
        pytest.skip("there is no Node")
    assert (_FOLDER / environment / ".installed").exists(), "run scripts/clients first"
    return "node" if environment == _NODE else _FOLDER / environment / "bin" / "python"
