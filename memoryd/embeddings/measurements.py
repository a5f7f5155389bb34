"""What trials of models' files gave on this machine, kept so that each is measured once."""

import hashlib
import platform
from functools import cache, lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from memoryd.embeddings.library import describe_build
from memoryd.embeddings.trial import Trial
from memoryd.embeddings.types import Pooling
from memoryd.machine import core_count

_FILE = ".measurements.json"
_HASHED_BYTES = 1 << 20
_MEASUREMENTS = TypeAdapter(dict[str, Trial])


def fingerprint(path: Path, pooling: Pooling | None, gpu_layers: int) -> str:
    """Return what tells this file, run so on this machine, from any other, and from other builds.

    Raises OSError for a file that can't be read.
    """
    run = (file_digest(path), _cpu_name(), core_count(), describe_build(), pooling, gpu_layers)
    return hashlib.sha256(repr(run).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return 64 hexadecimal digits that copies of a file share, hashed once for each version of it.

    They are of its size and both its ends, since some have gigabytes. Raises OSError.
    """
    status = path.stat()
    return _digest_version(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _digest_version(path: Path, _mtime_ns: int, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, size - _HASHED_BYTES))
        digest.update(file.read(_HASHED_BYTES))
    return digest.hexdigest()


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.machine())


def find_measurement(directory: Path, key: str) -> Trial | None:
    """Return what was measured under `key`, or None."""
    return _read(directory).get(key)


def keep_measurement(directory: Path, key: str, trial: Trial) -> None:
    """Keep what was measured; the caller holds a lock against other writers."""
    measurements = _read(directory) | {key: trial}
    new = directory / f"{_FILE}.new"
    new.write_bytes(_MEASUREMENTS.dump_json(measurements, indent=1))
    new.replace(directory / _FILE)


def _read(directory: Path) -> dict[str, Trial]:
    try:
        return _MEASUREMENTS.validate_json((directory / _FILE).read_bytes())
    except (OSError, ValidationError):  # not there, or of another version: measured anew
        return {}
