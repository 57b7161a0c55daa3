"""The C library's allocator, from which tensors on the CPU get their memory."""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The highest that glibc accepts on 64-bit machines; it also gets there without being asked, one freed block at a time.
_LARGEST_ON_HEAP = 32 * 2**20
_OF_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Make this process keep the memory it frees instead of returning it to the kernel; return whether it does.

    A training step frees what the next one allocates. By default, glibc returns the end of the heap to the kernel,
    which has to clear each page again before the next step may use it. Affects blocks up to 32 MiB. Does nothing, and
    returns False, if the C library is not glibc or the user has set up its allocator by environment variables.
    """
    if any(name in os.environ for name in _OF_USER):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # macOS and musl have no mallopt
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP) and mallopt(_TRIM_THRESHOLD, -1))
