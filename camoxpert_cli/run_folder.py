"""The run folder: where a run keeps its settings, measurements and checkpoints.

config.yaml      every setting, as resolved
env.json         versions and command line
metrics.jsonl    one JSON object a line, in the order in which things happened
history.json     a list, one object an epoch
last.pth         all that is needed to go on
previous.pth     the last.pth before it
best_model.pth   the weights with the best validation IoU
strategy.json    which strategy for several GPUs short trials chose, and why; where there were any
results.json     scores of best_model.pth on the held-out images and the test sets, written when the run ends
per_image.csv    the same of each image
report.html      scores, curves and images on one page
curves.png       losses and validation scores over the epochs
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from camoxpert_cli import __version__, atomic, console
from camoxpert_cli.errors import TrainingError, UsageError

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "albumentations", "typer")
LAST, PREVIOUS, BEST = "last.pth", "previous.pth", "best_model.pth"
CHECKPOINTS = (LAST, PREVIOUS, BEST)  # the newest first
# What makes a folder the folder of a run; one that stopped before its first epoch ended has nothing to lose.
_PRECIOUS = ("history.json", *CHECKPOINTS, "results.json")
STRATEGY_FILE = "strategy.json"
_PAGES = ("per_image.csv", "report.html", "curves.png")
_FILES = (*_PRECIOUS, *_PAGES, "config.yaml", "env.json", "metrics.jsonl", STRATEGY_FILE)

# Descriptors that hold a folder's lock. A loader's worker would hold it on after this process was killed.
_locks: set[int] = set()
os.register_at_fork(after_in_child=lambda: _let_go())


class RunFolder:
    """Names and writers of a run folder's files. Creates nothing before `create`.

    Where several processes train together one of them `writes`; the writers of the others do nothing.
    """

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path = path
        self.writes = writes
        self.last = path / LAST
        self.previous = path / PREVIOUS
        self.best = path / BEST
        self.metrics = path / "metrics.jsonl"
        self.history = path / "history.json"
        self.results = path / "results.json"
        self.per_image = path / "per_image.csv"
        self.report = path / "report.html"
        self.curves = path / "curves.png"
        self._given_up: set[Path] = set()

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def holds_checkpoint(self) -> bool:
        """Whether a run was saved here that can go on."""
        return any((self.path / name).exists() for name in CHECKPOINTS)

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run, quoted for a shell."""
        return f"camox resume {shlex.quote(str(self.path))}"

    def refuse_other_run(self, resume_from: Path | None) -> None:
        """Raise UsageError where the folder holds a run other than the one that `resume_from` goes on with."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"the run folder {self.path} is a file", "choose another folder with --checkpoint-dir")
        if resume_from is not None and resume_from.parent.resolve() == self.path.resolve():
            return
        found = [name for name in _PRECIOUS if (self.path / name).exists()]
        if found:
            go_on = f", or go on with it: {self.resume_command}" if self.last.exists() else ""
            raise UsageError(
                f"the folder {self.path} holds another run ({', '.join(found)}); nothing was changed",
                f"choose another --checkpoint-dir{go_on}",
            )

    def refuse_foreign(self, checkpoint: Path) -> None:
        """Raise UsageError where `checkpoint`, which another program wrote, lies in this folder."""
        if checkpoint.parent.resolve() == self.path.resolve():
            raise UsageError(
                f"{checkpoint} is of another program, and this run would write {BEST} beside or over it",
                "choose another folder with --checkpoint-dir",
            )

    def create(self) -> None:
        """Make the folder. Raises UsageError where that is impossible or nothing can be written to it."""
        if not self.writes:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"the run folder {self.path} cannot be written: {error.strerror}",
                "choose another folder with --checkpoint-dir",
            ) from error

    def is_writable(self) -> bool:
        """Whether files can be made in the folder; writes nothing."""
        return os.access(self.path, os.W_OK | os.X_OK)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder for this process. Raises UsageError where another one is at work in it."""
        if not self.writes:
            yield
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        _locks.add(descriptor)
        try:
            with suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise UsageError(
                        f"another process is at work in the run folder {self.path}",
                        "wait for its end, or choose another folder with --checkpoint-dir",
                    ) from error
            yield
        finally:
            _locks.discard(descriptor)
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written."""
        for name in _FILES if self.writes else ():
            atomic.sweep(self.path / name)

    def require_space(self, size: int) -> None:
        """Raise TrainingError unless the checkpoints in the folder may come to `size` bytes."""
        if not self.writes:
            return
        there = sum(path.stat().st_size for path in (self.last, self.previous) if path.exists())
        free = shutil.disk_usage(self.path).free
        if free < size - there:
            raise TrainingError(
                f"the disk of {self.path} has {console.in_gib(free)} free, and checkpoints of this network need "
                f"{console.in_gib(size - there)} more",
                "free some space, or choose another disk with --checkpoint-dir",
            )

    def write_settings(self, config: Mapping[str, Any]) -> None:
        """config.yaml and env.json; the folder must exist."""
        self._write(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        self._write(self.path / "env.json", json.dumps(environment(), indent=2) + "\n")

    def write_strategy(self, text: str) -> None:
        self._write(self.path / STRATEGY_FILE, text)

    def log(self, event: str, **values: Any) -> None:
        """Append one object to metrics.jsonl: `event`, the time in seconds since 1970, `values`."""
        if not self.writes:
            return
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        with self._going_on(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def go_on_from(self, epoch: int, samples: int, history: list[dict[str, Any]], checkpoint: Path) -> None:
        """Have the log and the history end where a run goes on: with `epoch` complete epochs and `samples` after them.

        What a process that was killed did after its last save is done, and written down, again.
        """
        if self.writes and self.metrics.exists():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            self._write(self.metrics, "".join(line for line in lines if _lies_before(line, epoch, samples)))
        self.write_history(history)
        self.log("resume", checkpoint=str(checkpoint), epoch=epoch, samples=samples)

    def write_history(self, history: list[dict[str, Any]]) -> None:
        if not self.writes:
            return
        with self._going_on(self.history):
            atomic.write_text(self.history, json.dumps(history, indent=2) + "\n")

    def write_results(self, results: Mapping[str, Any]) -> None:
        self._write(self.results, json.dumps(results, indent=2) + "\n")

    def remove_results(self) -> None:
        """What is written when a run ends."""
        for path in (self.results, self.per_image, self.report, self.curves):
            self.remove(path)

    def remove(self, path: Path) -> None:
        """Of the folder's files one that no longer tells the truth, where it is there."""
        if self.writes:
            path.unlink(missing_ok=True)

    def _write(self, path: Path, text: str) -> None:
        if not self.writes:
            return
        try:
            atomic.write_text(path, text)
        except OSError as error:
            raise TrainingError(
                f"{path} cannot be written: {error.strerror}", f"free some space, then {self.resume_command}"
            ) from error

    @contextmanager
    def _going_on(self, path: Path) -> Iterator[None]:
        """A full disk costs lines of a log, not hours of training; the checkpoints hold the history as well."""
        try:
            yield
        except OSError as error:
            if path not in self._given_up:
                console.warn(f"{path} cannot be written: {error.strerror}; training goes on without it")
            self._given_up.add(path)


def _lies_before(line: str, epoch: int, samples: int) -> bool:
    try:
        row = json.loads(line)
    except ValueError:  # the process died while it wrote this line
        return False
    if row["event"] == "step":
        return (row["epoch"], row["samples"]) <= (epoch + 1, samples)
    return row["event"] != "epoch" or row["epoch"] <= epoch


def _let_go() -> None:
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


def default_path(preset: str | None) -> Path:
    """runs/<preset>-<time>, with a number behind it where that is taken."""
    name = f"{Path(preset).stem if preset else 'train'}-{time.strftime('%Y%m%d-%H%M%S')}"
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return next(path for ending in endings if not (path := Path("runs") / f"{name}{ending}").exists())


def versions() -> dict[str, str]:
    """Version of camox, Python and every package that can change a result, without importing them."""
    found = {"camox": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """What env.json holds."""
    return {
        "command": sys.argv,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": versions(),
    }
