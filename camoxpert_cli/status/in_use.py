"""Whether a process of this machine is using a run folder."""

from __future__ import annotations

import os
from pathlib import Path


def is_in_use(folder: Path, proc: Path = Path("/proc")) -> bool | None:
    """Return whether a process of this machine has locked a run folder; None if the system does not say.

    Reads the list of locks, and takes none: a run that starts at the same moment would be refused. Processes in other
    containers and on other machines are not in that list.
    """
    try:
        status = folder.stat()
        lines = (proc / "locks").read_text().splitlines()
    except (OSError, ValueError):
        return None
    # Such as `1: FLOCK  ADVISORY  WRITE 4711 fe:00:2375832 0 EOF`; a process that waits for a lock has -> there.
    locks = [fields for line in lines if len(fields := line.split()) > 5 and fields[1] == "FLOCK"]
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    if any(fields[5] == f"{device}:{status.st_ino}" for fields in locks):
        return True
    # On some file systems, such as those of containers, the list has other numbers.
    return any(_has_open(proc / fields[4], status) for fields in locks if fields[4].isdecimal())


def _has_open(process: Path, status: os.stat_result) -> bool:
    try:
        return any(_is_same(descriptor, status) for descriptor in (process / "fd").iterdir())
    except OSError:  # it has ended, or is another user's
        return False


def _is_same(descriptor: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(descriptor.stat(), status)
    except OSError:
        return False
