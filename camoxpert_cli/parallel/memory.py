"""Measure memory used by this process."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import torch


def peak_of_gpus(devices: Sequence[torch.device]) -> int:
    """Return the peak bytes reserved by this process's allocator on the fullest of the GPUs `devices`."""
    return max(torch.cuda.max_memory_reserved(device) for device in devices)


def total_of(gpu: torch.device) -> int:
    """Return the total bytes of a GPU's memory."""
    return int(torch.cuda.get_device_properties(gpu).total_memory)


def resident() -> int:
    """Return the resident bytes of this process; without /proc, its peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * os.sysconf("SC_PAGE_SIZE")
