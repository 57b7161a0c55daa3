"""Starts the processes that train one network together on this machine, and ends with one message and one exit code.

torch's own launcher ends with exit code 1 and a traceback whatever a worker ended with, and reports whichever worker
died first, which may be one that lost its partner. It can start the same workers all the same, on several machines too:
see `is_worker`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from camoxpert_cli import console

# Exit code of a worker that lost its partners: the cause is theirs.
PEER_LOST = 75
# Where a worker of ours finds the files that it shares with its launcher.
MEETING_POINT = "CAMOX_MEETING_POINT"
# After these the same command would end in the same way, or was asked to end.
_FINAL = {0, 2, 3, 4, 5, 6, 130, 143}
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL_SECONDS = 0.05
# A worker that failed writes down why before it ends; the others are given as long to find out by themselves.
_GRACE_SECONDS = 5.0


def is_worker() -> bool:
    """Whether this process is one of several: started by `launch`, or by torchrun, which sets the same variables."""
    return MEETING_POINT in os.environ or "TORCHELASTIC_RUN_ID" in os.environ


def launch(arguments: Sequence[str], processes: int, *, threads: int, max_restarts: int) -> int:
    """Run `camox <arguments>` in so many processes, `threads` for each; returns the exit code to end with.

    It is the one of the worker that failed first, 0 where all ended well, or 128 + a signal's number. Where a worker
    crashed or was killed, all start again from the last checkpoint, up to `max_restarts` times.
    """
    for attempt in range(max_restarts + 1):
        with tempfile.TemporaryDirectory(prefix="camox-") as folder:
            group = _Group(Path(folder), arguments, processes, threads)
            code = group.run()
            run_folder = group.run_folder
        if code in _FINAL or attempt == max_restarts:
            return code
        if run_folder is not None and (run_folder / "last.pth").exists():
            arguments = ["resume", str(run_folder), *_hardware(arguments)]
        console.warn(f"all {processes} processes start again, restart {attempt + 1} of {max_restarts}")
    raise AssertionError("the last attempt returns")


class _Group:
    """The workers of one attempt. `folder` holds their meeting point, the logs and what each died of."""

    def __init__(self, folder: Path, arguments: Sequence[str], processes: int, threads: int) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        for rank in range(processes):
            environment = {
                **os.environ,
                MEETING_POINT: str(folder),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
                # All are on this machine; the name of a container's host may lead nowhere.
                "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
                "CAMOX_PARENT": str(os.getpid()),
            }
            command = [sys.executable, "-m", "camoxpert_cli", *arguments]
            if rank == 0:
                self.workers.append(subprocess.Popen(command, env=environment))
            else:
                with self._log(rank).open("wb") as log:
                    self.workers.append(
                        subprocess.Popen(
                            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                        )
                    )

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run, once rank 0 has said which it is."""
        with suppress(OSError):
            return Path((self.folder / "run_folder").read_text(encoding="utf-8"))
        return None

    def run(self) -> int:
        """Wait for all; end all once one has failed. Returns the exit code and tells why it is not 0."""
        before = {number: signal.signal(number, self._pass_on) for number in _SIGNALS}
        try:
            while (failed := self._failed()) is None and any(worker.poll() is None for worker in self.workers):
                time.sleep(_POLL_SECONDS)
            if failed is None:
                return 0
            self._wait(_GRACE_SECONDS if not self._stopping else None)
            return self._explain()
        finally:
            for worker in self.workers:
                worker.kill()
                worker.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._keep_logs()

    def _failed(self) -> int | None:
        return next((rank for rank, worker in enumerate(self.workers) if worker.poll() not in (None, 0)), None)

    def _wait(self, seconds: float | None) -> None:
        """For the others: without limit where all were asked to stop, for each saves and ends by itself."""
        end = None if seconds is None else time.monotonic() + seconds
        while any(worker.poll() is None for worker in self.workers) and (end is None or time.monotonic() < end):
            time.sleep(_POLL_SECONDS)

    def _explain(self) -> int:
        """Tell what the first worker that did not only lose its partners died of; returns its exit code."""
        failed = [(rank, code) for rank, worker in enumerate(self.workers) if (code := worker.poll()) not in (None, 0)]
        causes = [(rank, code) for rank, code in failed if code != PEER_LOST] or failed
        rank, code = min(causes, key=lambda cause: self._failed_at(cause[0]))
        told = self._told_by(rank)
        log = "" if rank == 0 else f"; its log is {self._kept_log(rank)}"
        if told is not None:
            who = "" if rank == 0 or code in (130, 143) else f"rank {rank}: "
            console.fail(f"{who}{told['message']}{log if who else ''}", told["hint"], told["details"])
        elif code < 0:
            name = signal.Signals(-code).name
            console.fail(f"rank {rank} was killed by {name}{log}", self._go_on())
        else:
            console.fail(f"rank {rank} ended with exit code {code}{log}", self._go_on())
        return 128 - code if code < 0 else code

    def _told_by(self, rank: int) -> dict[str, str] | None:
        with suppress(OSError, ValueError):
            told: dict[str, str] = json.loads((self.folder / f"error{rank}.json").read_text(encoding="utf-8"))
            return told
        return None

    def _failed_at(self, rank: int) -> float:
        """When a worker wrote down why it failed; one that was killed wrote nothing and comes first."""
        with suppress(OSError):
            return (self.folder / f"error{rank}.json").stat().st_mtime
        return 0.0

    def _go_on(self) -> str:
        if self.run_folder is not None and (self.run_folder / "last.pth").exists():
            return f"camox resume {self.run_folder}"
        return ""

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(number)

    def _log(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.log"

    def _kept_log(self, rank: int) -> Path:
        return (self.run_folder or Path.cwd()) / "logs" / f"rank{rank}.log"

    def _keep_logs(self) -> None:
        """Beside the run's other files; without a run folder there was nothing but the error, which was told."""
        if self.run_folder is None or not self.run_folder.is_dir():
            return
        for rank in range(1, len(self.workers)):
            target = self._kept_log(rank)
            with suppress(OSError):
                target.parent.mkdir(exist_ok=True)
                with target.open("ab") as kept, self._log(rank).open("rb") as log:
                    shutil.copyfileobj(log, kept)


def tell_launcher(message: str, hint: str, details: str) -> bool:
    """Leave a message for the launcher, which tells it once for all; False where there is none."""
    folder = os.environ.get(MEETING_POINT)
    if folder is None:
        return False
    path = Path(folder) / f"error{os.environ['RANK']}.json"
    path.write_text(json.dumps({"message": message, "hint": hint, "details": details}), encoding="utf-8")
    return True


def tell_run_folder(path: Path) -> None:
    """Let the launcher know where the run is."""
    folder = os.environ.get(MEETING_POINT)
    if folder is not None:
        (Path(folder) / "run_folder").write_text(str(path.absolute()), encoding="utf-8")


def _hardware(arguments: Sequence[str]) -> list[str]:
    """The flags of a command line that say where a run takes place, which a resumed run is given anew."""
    kept = []
    for flag in ("--device", "--gpus", "--devices", "--strategy", "--num-workers", "--cache"):
        for at, argument in enumerate(arguments):
            if argument.startswith(f"{flag}="):
                kept.append(argument)
            elif argument == flag:
                kept += arguments[at : at + 2]
    return kept
