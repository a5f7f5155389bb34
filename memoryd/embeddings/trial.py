"""Load and run a model's file in a process of its own: a broken one ends that, not the server.

llama.cpp checks much of a file, and aborts the process, or worse, over the rest.
"""

import asyncio
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from memoryd.embeddings.lanes import open_lanes
from memoryd.embeddings.library import requantize, weight_type_of
from memoryd.embeddings.llama import LlamaBackend
from memoryd.embeddings.tuning import Measured, best, compare, default_tuning, measure
from memoryd.embeddings.types import Pooling, Tuning
from memoryd.errors import MemorydError, ModelFileError
from memoryd.machine import memory_bytes

logger = logging.getLogger(__name__)

Extent = Literal["run", "measure", "measure weights"]
"""How much is tried: whether it runs, how it runs the fastest, and with which weights."""

_TIMEOUT_S = 120.0
# Reading a large file from a slow disk takes its time.
_SLOWEST_BYTES_PER_S = 50 << 20
_LENGTHS = (1, 7, 60)
# Other types of weights are tried with copies; those of larger files take too long to make.
_MOST_COPIED_BYTES = 512 << 20
_WEIGHT_TYPES = ("bf16", "f32")
_LOG_BYTES = 4096
_PASSED_ON = (
    *("PATH", "HOME", "TMPDIR", "LANG", "LC_", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV"),
    *("OMP_", "GOMP_", "GGML_", "CUDA_", "HIP_", "ROCR_"),
)


@dataclass(frozen=True)
class ModelFacts:
    """Say what a model's file says of itself."""

    architecture: str
    pooling: Pooling
    dimensions: int
    context_tokens: int
    vocabulary_size: int
    weight_type: str
    memory_bytes: int
    """About what weights and lanes take."""

    @property
    def is_reranker(self) -> bool:
        """Whether it gives scores instead of vectors."""
        return self.pooling == "rank"


@dataclass(frozen=True)
class Trial:
    """Be what a file is, and how fast it ran in each way that was measured."""

    facts: ModelFacts
    table: list[Measured]

    @property
    def used(self) -> Measured | None:
        """The way in which the file is run: the best that was measured with its own weights."""
        of_own_weights = [measured for measured in self.table if not measured.weight_type]
        return best(of_own_weights) if of_own_weights else None


async def try_model(
    path: Path,
    *,
    pooling: Pooling | None = None,
    gpu_layers: int = 0,
    extent: Extent = "run",
) -> Trial:
    """Load and run the file in a child process, and measure what `extent` says.

    Raises ModelFileError where it can't be loaded, gives no finite vectors, ends the process or
    takes too long.
    """
    told = await _run_child(path, [pooling or "", str(gpu_layers), extent])
    try:
        table = [Measured(**{**row, "tuning": Tuning(**row["tuning"])}) for row in told["table"]]
        return Trial(ModelFacts(**told["facts"]), table)
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"{path} can't be run: its trial said nothing of use") from error


async def _run_child(path: Path, arguments: Sequence[str]) -> dict[str, Any]:
    timeout_s = _timeout_s(path)
    command = [sys.executable, "-P", "-m", "memoryd.embeddings.trial", os.fspath(path), *arguments]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
        )
    except OSError as error:
        raise ModelFileError(f"no process can be started to try {path}: {error}") from error
    try:
        output, log = await asyncio.wait_for(process.communicate(), timeout_s)
    except TimeoutError as error:
        raise ModelFileError(f"{path} was tried, and gave nothing in {timeout_s:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    logger.debug("trial of %s: %s", path, log[-_LOG_BYTES:].decode("utf-8", "replace"))
    return _read_told(path, process.returncode or 0, output)


def _environment() -> dict[str, str]:
    """Return what the child needs of the environment: a hostile file finds no secrets there."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}


def _timeout_s(path: Path) -> float:
    try:
        return _TIMEOUT_S + path.stat().st_size / _SLOWEST_BYTES_PER_S
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror}") from error


def _read_told(path: Path, code: int, output: bytes) -> dict[str, Any]:
    if code == -signal.SIGKILL:
        raise ModelFileError(f"{path} was tried, and the system ended it: it may lack memory")
    if code < 0:
        raise ModelFileError(
            f"{path} ends the process that loads it ({signal.Signals(-code).name}): it is broken, "
            "made for another llama.cpp, or needs more memory than there is"
        )
    try:
        told = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise ModelFileError(f"{path} can't be run: its trial ended with {code}") from error
    if not isinstance(told, dict) or "fault" in told:
        raise ModelFileError(str(told["fault"] if isinstance(told, dict) else told))
    return told


def _main(arguments: Sequence[str]) -> None:
    path, pooling, gpu_layers, extent = arguments
    _limit_resources(Path(path), is_on_gpu=gpu_layers != "0")
    try:
        told = _try(Path(path), pooling or None, int(gpu_layers), extent)  # type: ignore[arg-type] # try_model wrote them
    except MemorydError as error:
        told = {"fault": error.message}
    except MemoryError:
        told = {"fault": f"{path} needs more memory than this machine has"}
    sys.stdout.write(json.dumps(told) + "\n")


def _limit_resources(path: Path, *, is_on_gpu: bool) -> None:
    """Let what asks for more than the machine has end here, and nothing else on the machine."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if is_on_gpu:  # drivers reserve addresses far beyond the memory there is
        return
    wanted = memory_bytes() + path.stat().st_size
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _try(path: Path, pooling: Pooling | None, gpu_layers: int, extent: Extent) -> dict[str, Any]:
    backend = LlamaBackend(path, pooling=pooling, gpu_layers=gpu_layers)
    lanes = open_lanes(backend, default_tuning(on_gpu=backend.on_gpu))
    _check_vectors(path, backend)
    facts = ModelFacts(
        architecture=backend.architecture,
        pooling=backend.pooling,
        dimensions=backend.dimensions,
        context_tokens=backend.max_tokens,
        vocabulary_size=backend.vocabulary_size,
        weight_type=weight_type_of(backend.model),
        memory_bytes=backend.weights_bytes + lanes.memory_bytes,
    )
    lanes.close()
    table = [] if extent == "run" else measure(backend, on_gpu=backend.on_gpu)
    if extent == "measure weights" and not backend.on_gpu:
        table += _measure_weight_types(path, backend, best(table).tuning)
    return {"facts": asdict(facts), "table": [asdict(measured) for measured in table]}


def _check_vectors(path: Path, backend: LlamaBackend) -> None:
    random = np.random.default_rng(0)
    lengths = [min(length, backend.max_tokens) for length in _LENGTHS]
    batch = [random.integers(0, backend.vocabulary_size, each, np.int32) for each in lengths]
    lane = backend.open_lane(min(256, backend.max_tokens), 1, backend.pooling)
    for tokens in batch:
        if not np.isfinite(lane.encode([tokens], 1)[0]).all():
            raise ModelFileError(f"{path} was tried, and gives no finite vectors")
    lane.close()


def _measure_weight_types(path: Path, backend: LlamaBackend, tuning: Tuning) -> list[Measured]:
    """Measure copies of the weights in the types that memoryd converts to, the file's own too."""
    own = weight_type_of(backend.model)
    if own not in (*_WEIGHT_TYPES, "f16") or path.stat().st_size > _MOST_COPIED_BYTES:
        return []
    table = []
    with TemporaryDirectory(prefix="memoryd-weights-") as folder:
        for weight_type in _WEIGHT_TYPES:
            copy = Path(folder) / f"{weight_type}.gguf"
            if weight_type != own and requantize(path, copy, weight_type):
                other = LlamaBackend(copy, pooling=backend.pooling)
                table.append(compare(backend, tuning, other, tuning, weight_type))
                other.close()
    return table


if __name__ == "__main__":
    _main(sys.argv[1:])
