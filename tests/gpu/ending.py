"""Ends processes that nobody waits for any more, wherever they have got to.

A worker of a run leads a group of its own, and one whose parent was killed belongs to nobody: so processes are known by
a variable of the environment that they have inherited.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

# Holds a path: that of a check's working folder, or one below it.
STARTED_BY = "CAMOX_GPU_CHECK"
_PATIENCE = 5.0
_POLL_SECONDS = 0.02


def end_processes(started_by: Path) -> None:
    """Kill all processes but this one whose STARTED_BY is this path or one below it, and wait until they are gone.

    Does nothing where there is no /proc.
    """
    end = time.monotonic() + _PATIENCE
    while (found := _processes(started_by)) and time.monotonic() < end:
        for process in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _processes(started_by: Path) -> list[int]:
    wanted = os.fsencode(f"{STARTED_BY}={started_by}")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            variables = (folder / "environ").read_bytes().split(b"\0")
            if any(each == wanted or each.startswith(wanted + b"/") for each in variables):
                found.append(int(folder.name))
    return [process for process in found if process != os.getpid()]
