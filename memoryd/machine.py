"""What this process may use of the machine, within a container's limits."""

import os
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def core_count() -> int:
    """Return how many cores this process may use, at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cpu_quota()
    return max(1, min(cores or 1, quota or cores or 1))


def _cpu_quota() -> int | None:
    """Return the whole cores that the control group allows (cpu.max: quota and period)."""
    quota, _, period = _read("cpu.max").partition(" ")
    return int(quota) // int(period) if quota.isdigit() and period.isdigit() else None


def memory_bytes() -> int:
    """Return how much memory this process may use."""
    limit = _read("memory.max")
    total: int = psutil.virtual_memory().total
    return min(total, int(limit)) if limit.isdigit() else total


def _read(name: str) -> str:
    try:
        return (_CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:  # no control group, or one of the first version
        return ""
