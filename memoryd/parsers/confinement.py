"""What processes that read files may take, and what they may know."""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PASSED_ON = ("PATH", "TMPDIR", "LANG", "LC_", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_OOM_SCORE = "1000"  # proc(5): of all processes, this is to be ended first
_OPEN_FILES = 64


def clean_environment() -> dict[str, str]:
    """Return this process's environment without secrets, which a hostile file might look for."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}


def confine(memory_bytes: int) -> None:
    """Let what a file may lead to end this process, and reach nothing else.

    It takes at most `memory_bytes` beyond what it has.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
