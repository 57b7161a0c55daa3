"""What a process that trains together with others knows of its launcher, and how it tells why it failed.

The launcher is `launch.processes`, or torchrun, which sets the same variables. Imports no torch.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

# Exit code of a worker that lost its partners: the cause is theirs.
PEER_LOST = 75
# Where a worker of ours finds the files that it shares with its launcher, and the process that launched it.
MEETING_POINT = "CAMOX_MEETING_POINT"
PARENT = "CAMOX_PARENT"
# When work began, in seconds since 1970, where that was not with the process that began it: in a notebook.
STARTED = "CAMOX_STARTED"
# How a worker ends that was asked to: it has saved, and the others may still be about to.
ASKED = (130, 143)
# A process with one of these is a worker.
WORKER_VARIABLES = ("TORCHELASTIC_RUN_ID", MEETING_POINT)
# What a launcher tells its workers, and nobody else should find.
LAUNCHER_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    *WORKER_VARIABLES,
)
# For processes that are all on this machine: the name of a container's host may lead nowhere.
ONE_MACHINE = {"GLOO_SOCKET_IFNAME": "lo"}


def is_worker() -> bool:
    """Whether this process is one of several: started by `launch`, or by torchrun, which sets the same variables."""
    return any(name in os.environ for name in WORKER_VARIABLES)


def is_launched() -> bool:
    """Whether `launch` started this process."""
    return MEETING_POINT in os.environ


def is_first() -> bool:
    """Whether this process is the one that a user started, or the first of those that torchrun did."""
    return not is_worker() or (not is_launched() and os.environ["RANK"] == "0")


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End a worker that failed with its exit code as soon as it has said why.

    Python's and torch's own way out takes leave of the other ranks, which under NCCL waits for them: for minutes where
    they wait in another collective, until a watchdog aborts one of them and its exit code hides the first one's.
    Whoever is no worker ends as usual, and so does a worker that did not fail.
    """
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        if not is_worker() or code in (None, 0):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)


def tell_launcher(message: str, hint: str, details: str) -> bool:
    """Leave a message for the launcher, which tells it once for all; False where there is none."""
    folder = os.environ.get(MEETING_POINT)
    if folder is None:
        return False
    path = Path(folder) / f"error{os.environ['RANK']}.json"
    # The launcher may have been killed, and its folder removed.
    with suppress(OSError):
        path.write_text(json.dumps({"message": message, "hint": hint, "details": details}), encoding="utf-8")
        return True
    return False


def told_by(folder: Path, rank: int) -> dict[str, str] | None:
    """What a worker left for its launcher with `tell_launcher`; None where it left nothing."""
    with suppress(OSError, ValueError):
        told: dict[str, str] = json.loads((folder / f"error{rank}.json").read_text(encoding="utf-8"))
        return told
    return None


def told_at(folder: Path, rank: int) -> float:
    """When a worker wrote down why it failed; one that was killed wrote nothing and comes first."""
    with suppress(OSError):
        return (folder / f"error{rank}.json").stat().st_mtime
    return 0.0


def tell_run_folder(path: Path) -> None:
    """Let the launcher know where the run is; rank 0 says it."""
    folder = os.environ.get(MEETING_POINT)
    if folder is not None and os.environ["RANK"] == "0":
        (Path(folder) / "run_folder").write_text(str(path.absolute()), encoding="utf-8")


def tell_remedy(words: str, environment: Mapping[str, str]) -> None:
    """Have the launcher start all again with these variables once this worker has failed; `words` is what differs."""
    folder = os.environ.get(MEETING_POINT)
    if folder is not None:
        # The launcher may have been killed, and its folder removed.
        with suppress(OSError):
            path = Path(folder) / f"remedy{os.environ['RANK']}.json"
            path.write_text(json.dumps({"words": words, "environment": dict(environment)}), encoding="utf-8")


def worker_environment(folder: Path, rank: int, processes: int, threads: int) -> dict[str, str]:
    """The variables of a worker that meets the others in `folder`; each takes `threads` unless the user set them."""
    return {
        **ONE_MACHINE,
        **os.environ,
        MEETING_POINT: str(folder),
        PARENT: str(os.getpid()),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
