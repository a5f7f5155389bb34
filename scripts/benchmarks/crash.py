"""The tests of what survives a kill -9, with more documents and more kills than in CI."""

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_TEST = "tests/resilience/test_killed_ingest.py"


def run(documents: int, kills: int, seed: int) -> int:
    """Run them and return the exit status."""
    scale = {
        "MEMORYD_TEST_DOCUMENTS": str(documents),
        "MEMORYD_TEST_KILLS": str(kills),
        "MEMORYD_TEST_SEED": str(seed),
    }
    command = [sys.executable, "-m", "pytest", _TEST, "-s", "-q", "--durations=1"]
    return subprocess.run(command, cwd=_ROOT, env={**os.environ, **scale}, check=False).returncode
