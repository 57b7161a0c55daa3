"""What a process that trains together with others knows of its launcher, and how it tells why it failed.

The launcher is `launch.workers`, or torchrun, which sets the same variables. Imports no torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from camoxpert_cli.errors import PeerLostError, UsageError, shown

# Exit code of a worker that lost its partners: the cause is theirs.
PEER_LOST = PeerLostError.exit_code
# The file from which a worker of ours learns what to do. It lies in a folder that the workers and their launcher share,
# and is all that the environment says beside the variables that torchrun sets too.
JOB = "CAMOX_JOB"
_JOB_FILE, _BEGUN_FILE, _OUTCOME_FILE = "job.json", "begun", "outcome.json"
# Processes that train one network, far beyond what was ever tried.
_MOST = 65536
# A process with one of these is a worker.
WORKER_VARIABLES = ("TORCHELASTIC_RUN_ID", JOB)
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
ONE_MACHINE = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}


def is_worker() -> bool:
    """Whether this process is one of several: started by camox, or by torchrun, which sets the same variables."""
    return any(name in os.environ for name in WORKER_VARIABLES)


def ranks() -> tuple[int, int, int, int]:
    """RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE of a worker.

    Raises UsageError where one of the variables that make a process a worker lies about, and others do not fit.
    """
    found = []
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        low, high = (1, _MOST) if name.endswith("SIZE") else (0, _MOST - 1)
        found.append(_number(name, low, high))
    rank, size, local_rank, local_size = found
    for name, number, count in (("RANK", rank, size), ("LOCAL_RANK", local_rank, local_size)):
        if number >= count:
            raise stray(f"{name} is {number}, expected less than {count}, which is how many there are")
    if is_launched():
        read_job()
    elif "MASTER_PORT" in os.environ:
        _number("MASTER_PORT", 0, 65535)
    return rank, size, local_rank, local_size


def world_size() -> int:
    """WORLD_SIZE of a worker. Raises as `ranks` does."""
    return _number("WORLD_SIZE", 1, _MOST)


def _number(name: str, low: int, high: int) -> int:
    text = os.environ.get(name)
    if text is None:
        raise stray(f"{name} is not set")
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise stray(f"{name} is {shown(text)}, expected a whole number from {low} to {high}")
    return int(text)


def stray(problem: str) -> UsageError:
    """A variable that makes no sense where others say that this process is one of several; `problem` names it."""
    reason = next(name for name in WORKER_VARIABLES if name in os.environ)
    return UsageError(
        f"{problem}; {reason} is set, as for one of several processes that train together",
        f"unset {reason}, where torchrun did not start this process",
    )


def is_launched() -> bool:
    """Whether camox started this process."""
    return JOB in os.environ


def is_first() -> bool:
    """Whether this process is the one that a user started, or the first of those that torchrun did."""
    return not is_worker() or (not is_launched() and _number("RANK", 0, _MOST - 1) == 0)


def write_job(folder: Path, **content: Any) -> None:
    """What the workers that meet in `folder` have to do, as plain types for JSON."""
    job = {"launcher": os.getpid(), **content}
    (folder / _JOB_FILE).write_text(json.dumps(job), encoding="utf-8")


def read_job() -> dict[str, Any]:
    """What `write_job` wrote for this process. Raises UsageError where it wrote nothing."""
    try:
        job: dict[str, Any] = json.loads(Path(os.environ[JOB]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise stray(f"{JOB} names no job: {shown(os.environ[JOB])}") from error
    return job


def launcher_lives() -> bool:
    """Whether the process that started this worker of ours is still there."""
    with suppress(UsageError):  # its folder is gone
        return bool(os.getppid() == read_job()["launcher"])
    return False


def shared_folder() -> Path | None:
    """Where this process meets its launcher and the other workers; None where torchrun or a user started it."""
    return Path(os.environ[JOB]).parent if is_launched() else None


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
            with suppress(OSError, ValueError):
                traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code if isinstance(code, int) else 1)


def tell_launcher(message: str, hint: str, details: str) -> bool:
    """Leave a message for the launcher, which tells it once for all; False where there is none."""
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
    """What a worker left for its launcher with `tell_launcher`; None where it left nothing."""
    return _read(folder / f"error{rank}.json")


def told_at(folder: Path, rank: int) -> float:
    """When a worker wrote down why it failed; one that was killed wrote nothing and comes first."""
    with suppress(OSError):
        return (folder / f"error{rank}.json").stat().st_mtime
    return 0.0


def tell_remedy(settings: Mapping[str, Any]) -> None:
    """Have the launcher start all again with these settings once this worker has failed."""
    folder = shared_folder()
    if folder is not None:
        # The launcher may have been killed, and its folder removed.
        with suppress(OSError):
            (folder / f"remedy{os.environ['RANK']}.json").write_text(json.dumps(settings), encoding="utf-8")


def remedy_in(folder: Path) -> dict[str, Any] | None:
    """What a worker left with `tell_remedy`, the first of them; None where none did."""
    found = (_read(path) for path in sorted(folder.glob("remedy*.json")))
    return next((each for each in found if each is not None), None)


def tell_begun() -> None:
    """Let the launcher know that the run's folder is there and training is about to begin; the first rank says it."""
    folder = shared_folder()
    if folder is not None and os.environ["RANK"] == "0":
        (folder / _BEGUN_FILE).touch()


def log_in(run_folder: Path, rank: int) -> Path:
    """Where a run keeps what a rank other than 0, which speaks where its launcher does, has said."""
    return run_folder / "logs" / f"rank{rank}.log"


def move_log(log: Path, target: Path) -> None:
    """Add what is in `log` to `target`, and remove it."""
    target.parent.mkdir(exist_ok=True)
    with target.open("ab") as kept, log.open("rb") as said:
        shutil.copyfileobj(said, kept)
    log.unlink()


def keep_log(run_folder: Path) -> None:
    """Have what this process says, and has said, be kept in the run's folder, whatever becomes of the launcher.

    To be called once the launcher `has_begun`, where another process may look for it.
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
    """Whether the workers that meet in `folder` came as far as `tell_begun`."""
    return (folder / _BEGUN_FILE).exists()


def tell_outcome(outcome: Mapping[str, Any]) -> None:
    """Leave for the launcher what came out, once all is done."""
    folder = shared_folder()
    if folder is not None:
        with suppress(OSError):  # the launcher may have been killed
            (folder / _OUTCOME_FILE).write_text(json.dumps(outcome), encoding="utf-8")


def outcome_in(folder: Path) -> dict[str, Any] | None:
    """What a worker left with `tell_outcome`; None where none did."""
    return _read(folder / _OUTCOME_FILE)


def worker_environment(folder: Path, rank: int, processes: int, threads: int) -> dict[str, str]:
    """The variables of a worker with the job in `folder`; each takes `threads` unless the user set them."""
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
    """What a worker wrote; None where it wrote nothing, or died as it did."""
    with suppress(OSError, ValueError):
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    return None
