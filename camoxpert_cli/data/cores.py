"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# At 6 ms for an image of 640×640 pixels, eight read more than 1000 a second; more would only take memory.
_MAX_WORKERS = 8


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores this process may use, at least 1: its affinity, and the CPU quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _cpu_quota(cgroup))))


def cores_each(processes: int) -> int:
    """An even share of the usable cores for each of so many processes, at least 1."""
    return max(1, usable_cores() // processes)


def auto_workers(ranks: int = 1) -> int:
    """Workers for each of `ranks` processes on this machine: an even share of the cores, at most 8; may be 0."""
    return workers_for(usable_cores(), ranks)


def workers_for(cores: int, ranks: int) -> int:
    """The same where so many cores are usable."""
    return min(_MAX_WORKERS, cores // ranks)


def _cpu_quota(cgroup: Path) -> float:
    """Cores a container may use (cgroup v2, then v1); infinity where nothing limits it."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return math.inf
    return math.inf if quota == "max" or int(quota) < 0 else int(quota) / int(period)
