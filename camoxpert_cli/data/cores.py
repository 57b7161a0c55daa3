"""The number of CPU cores available to this process."""

from __future__ import annotations

import math
import os
from pathlib import Path

# At 6 ms per 640×640 image, eight workers read more than 1000 images/s; more would only use memory.
_MAX_WORKERS = 8


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the number of cores available to this process, at least 1: its affinity and a container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _cpu_quota(cgroup))))


def cores_each(processes: int) -> int:
    """Return each process's even share of the usable cores, at least 1."""
    return max(1, usable_cores() // processes)


def auto_workers(ranks: int = 1, *, on_gpu: bool) -> int:
    """Return the number of workers for each of `ranks` processes on this machine.

    That is an even share of the usable cores, at most 8, and may be 0. With a GPU, one core of a share of several is
    left to the process itself: launching kernels keeps it busy, and a GPU waits if it has to wait.
    """
    return workers_for(usable_cores(), ranks, on_gpu=on_gpu)


def workers_for(cores: int, ranks: int, *, on_gpu: bool) -> int:
    """Return the number of workers per rank if `cores` are usable, as `auto_workers` does."""
    share = cores // ranks
    return min(_MAX_WORKERS, share - 1 if on_gpu and share > 1 else share)


def _cpu_quota(cgroup: Path) -> float:
    """Cores that a container's quota allows (cgroup v2, then v1); infinity if there is no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return math.inf
    return math.inf if quota == "max" or int(quota) < 0 else int(quota) / int(period)
