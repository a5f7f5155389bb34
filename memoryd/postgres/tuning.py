"""Settings of Postgres that follow from the machine."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 1 << 20
GIB = 1 << 30

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - asked for its size, never written


@dataclass(frozen=True)
class Machine:
    """Say what Postgres may count on; `shared_memory_bytes` is the size of /dev/shm."""

    memory_bytes: int
    cores: int
    shared_memory_bytes: int


def this_machine() -> Machine:
    """Return what this process has: the container's memory rather than the host's."""
    affinity = psutil.Process().cpu_affinity()
    return Machine(
        memory_bytes=min(psutil.virtual_memory().total, *_cgroup_limits()),
        cores=len(affinity) if affinity else 1,
        shared_memory_bytes=_size_of(SHARED_MEMORY),
    )


def _cgroup_limits() -> list[int]:
    limits = [path.read_text().strip() for path in CGROUP_LIMITS if path.exists()]
    return [int(limit) for limit in limits if limit.isdigit()] or [1 << 63]


def _size_of(file_system: Path) -> int:
    return shutil.disk_usage(file_system).total if file_system.exists() else 0


def tune(machine: Machine) -> Mapping[str, str]:
    """Return the settings of postgresql.conf for `machine`.

    They are modest, for the embedding engine lives on the same machine and needs most of it.
    """
    maintenance_bytes = _clamp(machine.memory_bytes // 16, 64 * MIB, 2 * GIB)
    workers = min(machine.cores // 2, 4)
    return {
        "shared_buffers": _megabytes(_clamp(machine.memory_bytes // 8, 128 * MIB, 8 * GIB)),
        "effective_cache_size": _megabytes(max(machine.memory_bytes // 2, 256 * MIB)),
        "maintenance_work_mem": _megabytes(maintenance_bytes),
        "work_mem": _megabytes(_clamp(machine.memory_bytes // 512, 4 * MIB, 32 * MIB)),
        "max_worker_processes": str(max(8, machine.cores)),
        "max_parallel_workers": str(max(1, machine.cores)),
        "max_parallel_workers_per_gather": str(workers),
        "max_parallel_maintenance_workers": str(workers),
        "dynamic_shared_memory_type": _dynamic_memory(machine, maintenance_bytes),
    }


def _dynamic_memory(machine: Machine, maintenance_bytes: int) -> str:
    # A parallel HNSW build keeps its graph in dynamic shared memory. Containers often have 64 MB
    # of /dev/shm, where it would fail; files in the data directory take its place.
    return "posix" if machine.shared_memory_bytes > 2 * maintenance_bytes else "mmap"


def _clamp(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)


def _megabytes(value: int) -> str:
    return f"{value // MIB}MB"
