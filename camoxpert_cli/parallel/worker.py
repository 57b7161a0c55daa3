"""Communication between a worker process and its launcher: rank, job, outcome, and why it failed.

The launcher is `launch.workers`, or torchrun, which sets the same variables. Does not import torch.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from camoxpert_cli.errors import PeerLostError, UsageError, shown

# Exit code of a worker that lost the other ranks: the cause is elsewhere.
PEER_LOST = PeerLostError.exit_code
# Environment variable with the path of the job file, in a folder that the workers share with their launcher. It is the
# only variable in addition to those that torchrun sets too.
JOB = "CAMOX_JOB"
_JOB_FILE, _BEGUN_FILE, _OUTCOME_FILE = "job.json", "begun", "outcome.json"
# Upper bound on the number of processes, far beyond anything tested.
_MOST = 65536
# A process with one of these variables is a worker.
WORKER_VARIABLES = ("TORCHELASTIC_RUN_ID", JOB)
# Variables that a launcher sets for its workers and that should not be set anywhere else.
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
# For processes that are all on this machine: a container's hostname may not resolve.
ONE_MACHINE = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}


def is_worker() -> bool:
    """Return whether this process is one of several, started by camox or by torchrun."""
    return any(name in os.environ for name in WORKER_VARIABLES)


def ranks() -> tuple[int, int, int, int]:
    """Return RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE of a worker.

    Raises UsageError if the variables are inconsistent, as when one of them is left over from another program.
    """
    found = []
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        low, high = (1, _MOST) if name.endswith("SIZE") else (0, _MOST - 1)
        found.append(_number(name, low, high))
    rank, size, local_rank, local_size = found
    for name, number, count in (("RANK", rank, size), ("LOCAL_RANK", local_rank, local_size)):
        if number >= count:
            raise stray(f"{name} is {number}, expected less than {count}, the number of processes")
    if is_launched():
        read_job()
    elif "MASTER_PORT" in os.environ:
        _number("MASTER_PORT", 0, 65535)
    return rank, size, local_rank, local_size


def world_size() -> int:
    """Return WORLD_SIZE of a worker. Raises as `ranks` does."""
    return _number("WORLD_SIZE", 1, _MOST)


def _number(name: str, low: int, high: int) -> int:
    text = os.environ.get(name)
    if text is None:
        raise stray(f"{name} is not set")
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise stray(f"{name} is {shown(text)}, expected an integer from {low} to {high}")
    return int(text)


def stray(problem: str) -> UsageError:
    """Return the error for an inconsistent variable in a process that others mark as a worker; `problem` names it."""
    reason = next(name for name in WORKER_VARIABLES if name in os.environ)
    return UsageError(
        f"{problem}; {reason} is set, which marks this process as one of several that train together",
        f"unset {reason}, unless torchrun started this process",
    )


def is_launched() -> bool:
    """Return whether camox started this process as a worker."""
    return JOB in os.environ


def is_first() -> bool:
    """Return whether this process was started by the user, or is the first of those started by torchrun."""
    return not is_worker() or (not is_launched() and _number("RANK", 0, _MOST - 1) == 0)


def write_job(folder: Path, **content: Any) -> None:
    """Write the job of the workers that share `folder`, as plain types for JSON."""
    job = {"launcher": os.getpid(), **content}
    (folder / _JOB_FILE).write_text(json.dumps(job), encoding="utf-8")


def read_job() -> dict[str, Any]:
    """Return the job that `write_job` wrote for this process. Raises UsageError if there is none."""
    try:
        job: dict[str, Any] = json.loads(Path(os.environ[JOB]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise stray(f"{JOB} is not a job file: {shown(os.environ[JOB])}") from error
    return job


def launcher_lives() -> bool:
    """Return whether the launcher of this worker is still running."""
    with suppress(UsageError):  # its folder is gone
        return bool(os.getppid() == read_job()["launcher"])
    return False


def shared_folder() -> Path | None:
    """Return the folder shared with the launcher and other workers; None if torchrun or a user started this process."""
    return Path(os.environ[JOB]).parent if is_launched() else None


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Exit a worker without taking Python and torch down, a failed one as soon as it has reported the error.

    A regular exit shuts down the process group, which under NCCL waits for the other ranks: for minutes if they wait in
    another collective, until a watchdog aborts one of them and its exit code hides the first. A worker that had
    succeeded was also seen to abort as it ended. So one that has succeeded ends as `multiprocessing` ends its
    processes, after its threads and exit handlers.

    Processes that are not workers exit as usual.
    """
    if not is_worker():
        yield
        return
    code: Any = 0
    try:
        yield
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        code = 1
        with suppress(OSError, ValueError):
            traceback.print_exc()
    if code == 0:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader is gone
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def tell_launcher(message: str, hint: str, details: str) -> bool:
    """Leave an error for the launcher, which reports it once for all ranks; False if there is no launcher."""
    folder = shared_folder()
    if folder is None or not launcher_lives():
        return False
    path = folder / f"error{os.environ.get('RANK')}.json"
    # The launcher may have been killed, and its folder removed.
    with suppress(OSError):
        path.write_text(json.dumps({"message": message, "hint": hint, "details": details}), encoding="utf-8")
        return True
    return False


def told_by(folder: Path, rank: int) -> dict[str, str] | None:
    """Return what a worker left for its launcher with `tell_launcher`; None if nothing."""
    return _read(folder / f"error{rank}.json")


def told_at(folder: Path, rank: int) -> float:
    """Return when a worker reported its error; 0, so that it sorts first, for one that was killed without a report."""
    with suppress(OSError):
        return (folder / f"error{rank}.json").stat().st_mtime
    return 0.0


def tell_remedy(settings: Mapping[str, Any]) -> None:
    """Ask the launcher to restart all workers with these settings once this worker has failed."""
    folder = shared_folder()
    if folder is not None:
        # The launcher may have been killed, and its folder removed.
        with suppress(OSError):
            (folder / f"remedy{os.environ['RANK']}.json").write_text(json.dumps(settings), encoding="utf-8")


def remedy_in(folder: Path) -> dict[str, Any] | None:
    """Return the settings that the first worker left with `tell_remedy`; None if none did."""
    found = (_read(path) for path in sorted(folder.glob("remedy*.json")))
    return next((each for each in found if each is not None), None)


def tell_begun() -> None:
    """Tell the launcher, from rank 0, that the run folder exists and training is about to start."""
    folder = shared_folder()
    if folder is not None and os.environ["RANK"] == "0":
        (folder / _BEGUN_FILE).touch()


def log_in(run_folder: Path, rank: int) -> Path:
    """Return the log file of a rank other than 0 in a run folder; rank 0 prints to the launcher's streams."""
    return run_folder / "logs" / f"rank{rank}.log"


def move_log(log: Path, target: Path) -> None:
    """Append `log` to `target`, and remove it."""
    target.parent.mkdir(exist_ok=True)
    with target.open("ab") as kept, log.open("rb") as said:
        shutil.copyfileobj(said, kept)
    log.unlink()


def keep_log(run_folder: Path) -> None:
    """Redirect the past and future output of this process to the run folder, so that it outlives the launcher.

    Call it once the launcher `has_begun`, since another process may look for the log there.
    """
    folder, rank = shared_folder(), os.environ.get("RANK", "0")
    if folder is None or rank == "0":
        return
    target = log_in(run_folder, int(rank))
    with suppress(OSError):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        move_log(folder / f"rank{rank}.log", target)
        descriptor = os.open(target, os.O_WRONLY | os.O_APPEND)
        for stream_number in (1, 2):
            os.dup2(descriptor, stream_number)
        os.close(descriptor)


def has_begun(folder: Path) -> bool:
    """Return whether the workers that share `folder` have called `tell_begun`."""
    return (folder / _BEGUN_FILE).exists()


def tell_outcome(outcome: Mapping[str, Any]) -> None:
    """Leave the outcome of a finished run for the launcher."""
    folder = shared_folder()
    if folder is not None:
        with suppress(OSError):  # the launcher may have been killed
            (folder / _OUTCOME_FILE).write_text(json.dumps(outcome), encoding="utf-8")


def outcome_in(folder: Path) -> dict[str, Any] | None:
    """Return the outcome that a worker left with `tell_outcome`; None if none did."""
    return _read(folder / _OUTCOME_FILE)


def worker_environment(folder: Path, rank: int, processes: int, threads: int) -> dict[str, str]:
    """Return the environment of a worker with the job in `folder`, with `threads` threads unless the user set them."""
    return {
        **ONE_MACHINE,
        **os.environ,
        JOB: str(folder / _JOB_FILE),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }


def _read(path: Path) -> dict[str, Any] | None:
    """What a worker wrote; None if it wrote nothing, or died while writing."""
    with suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    return None
