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
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_BEGUN = ("config.yaml", "env.json", "metrics.jsonl", STRATEGY_FILE)
_FILES = (*_PRECIOUS, *_PAGES, *_BEGUN)
# Filled by a run, with files of names that do not stand there before: a run's own folders, or somebody else's.
_FOLDERS = ("logs", "tensorboard")
# By what a file that a run wrote is told from somebody else's of the same name: by what its content has, or by bytes
# among the first thousand. Content of other types is damaged rather than somebody's.
_IN_CONTENT: dict[str, Callable[[Any], bool]] = {
    "env.json": lambda content: "camox" in content["versions"],
    # A preset says only what differs, and never where the run is.
    "config.yaml": lambda content: content.keys() >= {"model", "data", "train"} and "checkpoint_dir" in content["run"],
    "metrics.jsonl": lambda content: "epoch" in content and content["event"] in ("step", "epoch", "resume"),
    "history.json": lambda content: all(row.keys() >= {"epoch"} for row in content),
    "results.json": lambda content: bool(content.keys() & {"validation", "sets"}),
    STRATEGY_FILE: lambda content: content.keys() >= {"images_per_s"},
}
_IN_BYTES = {
    "per_image.csv": b"dataset,name,",
    "report.html": b"script-src 'sha256-",
}

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
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def holds_checkpoint(self) -> bool:
        """Whether a run was saved here that can go on."""
        return any((self.path / name).is_file() for name in CHECKPOINTS)

    @property
    def resume_command(self) -> str:
        """What to type to go on with the run, quoted for a shell."""
        return f"camox resume {shlex.quote(str(self.path))}"

    @property
    def settings(self) -> dict[str, Any]:
        """What config.yaml says, section by section; nothing where it is missing, damaged or none of a run's."""
        path = self.path / "config.yaml"
        content = _content(path) if _is_runs(path) else {}
        return content if all(isinstance(section, dict) for section in content.values()) else {}

    @property
    def stamps(self) -> list[tuple[int, int] | None]:
        """What changes whenever a checkpoint in the folder is replaced.

        Not its inode: file systems that are programs may give a file another one whenever they are asked.
        """
        found = [_status(self.path / name) for name in CHECKPOINTS]
        return [None if each is None else (each.st_size, each.st_mtime_ns) for each in found]

    def refuse_other_run(self, resume_from: Path | None, inputs: Iterable[str] = ()) -> None:
        """Raise UsageError where a run in this folder would write over anything that is not its own.

        That is another run than the one that `resume_from` goes on with, a file that camox did not write, whatever is
        no regular file, and one of the `inputs`, which the run reads. What a run that stopped before its first epoch
        ended has left may go.
        """
        self._refuse_file()
        there = [name for name in (*_FILES, *_FOLDERS) if os.path.lexists(self.path / name)]
        elsewhere = "choose another folder with --checkpoint-dir"
        for name in there:
            path = self.path / name
            if not (path.is_dir() if name in _FOLDERS else path.is_file()):
                kind = "folder" if name in _FOLDERS else "regular file"
                raise UsageError(
                    f"{path} is not a {kind}, and a run would write one there; nothing was changed", elsewhere
                )
        for path in map(Path, inputs):
            if next((each for each in there if path.resolve() == (self.path / each).resolve()), None) is not None:
                raise UsageError(f"{path} is an input of this run, which would overwrite it", elsewhere)
        own = {name: _is_runs(self.path / name) for name in there}
        if self.curves.name in there:
            own[self.curves.name] = own.get(self.report.name) or False  # it comes after that, and tells nothing
        if resume_from is not None and resume_from.parent.resolve() == self.path.resolve():
            may_go = {*_FILES, *_FOLDERS} if True in own.values() else {*CHECKPOINTS}
            # In the folder of a run these are the run's: what is in them that no run writes is damage.
            own.update({name: None for name in ("history.json", "metrics.jsonl", STRATEGY_FILE) if name in own})
        else:
            found = [name for name in _PRECIOUS if name in there]
            if found:
                go_on = f", or go on with it: {self.resume_command}" if self.last.exists() else ""
                raise UsageError(
                    f"the folder {self.path} holds another run ({', '.join(found)}); nothing was changed",
                    f"choose another --checkpoint-dir{go_on}",
                )
            is_runs = own.get("env.json") or own.get("metrics.jsonl") or self._is_named_in_settings()
            may_go = {*_BEGUN, *_FOLDERS} if is_runs else {name for name in _FOLDERS if own.get(name)}
        foreign = [name for name in there if own[name] is False or name not in may_go]
        if foreign:
            raise UsageError(
                f"the folder {self.path} holds what camox did not write there, under names that this run would use: "
                f"{', '.join(foreign)}; nothing was changed",
                f"{elsewhere}, or move {'it' if len(foreign) == 1 else 'them'} away",
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
            probe = self.path / f".writable{secrets.token_hex(6)}"
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def is_writable(self) -> bool:
        """Whether files can be made in the folder; writes nothing."""
        return os.access(self.path, os.W_OK | os.X_OK)

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Keep the folder for this process, from before anything in it is looked at.

        Makes the folder, and takes it away where it is still empty in the end. A launcher and the one of its workers
        that writes hold it together, `shared`, so that it is kept until both have ended. Raises UsageError where
        another process is at work in it.
        """
        if not self.writes:
            yield
            return
        self._refuse_file()
        made = [each for each in (self.path, *self.path.parents) if not os.path.lexists(each)]
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = os.open(self.path, os.O_RDONLY)
            except OSError as error:
                raise self._unwritable(error) from error
            _locks.add(self._lock)
            try:
                self._hold(fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
                status = _status(self.path)
                if status is None or not os.path.samestat(status, os.fstat(self._lock)):
                    continue  # what was locked is no longer there
                yield
                return
            finally:
                for each in made:
                    with suppress(OSError):  # it holds a run
                        each.rmdir()
                _locks.discard(self._lock)
                os.close(self._lock)

    def share_lock(self) -> None:
        """Let a worker hold the folder that this process has locked, too. Raises UsageError as `locked`."""
        self._hold(fcntl.LOCK_SH)

    def _hold(self, kind: int) -> None:
        assert self._lock is not None
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"another process is at work in the run folder {self.path}",
                    "wait for its end, or choose another folder with --checkpoint-dir",
                ) from error

    def _is_named_in_settings(self) -> bool:
        """Whether config.yaml is that of a run in this folder, and no copy of another one's."""
        named = self.settings.get("run", {}).get("checkpoint_dir")
        return isinstance(named, str) and Path(named).resolve() == self.path.resolve()

    def _refuse_file(self) -> None:
        if os.path.lexists(self.path) and not self.path.is_dir():
            kind = "a file" if self.path.is_file() else "a broken link or not a folder"
            raise UsageError(f"the run folder {self.path} is {kind}", "choose another folder with --checkpoint-dir")

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"the run folder {self.path} cannot be written: {error.strerror}",
            "choose another folder with --checkpoint-dir",
        )

    def sweep(self) -> None:
        """Remove what a process that was killed left half-written."""
        if self.writes:
            atomic.sweep(*(self.path / name for name in _FILES))

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
        with self._going_on(self.metrics), open(self.metrics, "a", encoding="utf-8", opener=_without_waiting) as file:
            file.write(line + "\n")

    def go_on_from(self, epoch: int, samples: int, history: list[dict[str, Any]], checkpoint: Path) -> None:
        """Have the log and the history end where a run goes on: with `epoch` complete epochs and `samples` after them.

        What a process that was killed did after its last save is done, and written down, again.
        """
        if self.writes and self.metrics.exists():
            lines = self.metrics.read_bytes().split(b"\n")
            kept = [line for line in lines if _lies_before(line, epoch, samples)]
            self._write(self.metrics, "".join(f"{line.decode()}\n" for line in kept))
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
        for path in (self.results, self.per_image, self.curves, self.report):
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
            go_on = f"free some space, then {self.resume_command}" if self.holds_checkpoint else "free some space"
            raise TrainingError(f"{path} cannot be written: {error.strerror}", go_on) from error

    @contextmanager
    def _going_on(self, path: Path) -> Iterator[None]:
        """A full disk costs lines of a log, not hours of training; the checkpoints hold the history as well."""
        try:
            yield
        except OSError as error:
            if path not in self._given_up:
                console.warn(f"{path} cannot be written: {error.strerror}; training goes on without it")
            self._given_up.add(path)


def _without_waiting(path: str, flags: int) -> int:
    """Opens a file; a pipe that took its place is an error instead of a wait for its reader."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _lies_before(line: bytes, epoch: int, samples: int) -> bool:
    """Whether a line of the log tells of what a run that goes on does not do again; a damaged one tells nothing."""
    try:
        row = json.loads(line.decode())
        if row["event"] == "step":
            return bool((row["epoch"], row["samples"]) <= (epoch + 1, samples))
        return bool(row["event"] != "epoch" or row["epoch"] <= epoch)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _is_runs(path: Path) -> bool | None:
    """Whether a run wrote the file or folder of this name; None where it does not tell, or is damaged."""
    if path.name == "logs":
        with suppress(OSError):  # those of processes that failed before any other file was there
            return all(re.fullmatch(r"rank\d+\.log", each.name) for each in path.iterdir()) or None
    if path.name in _IN_BYTES:
        with suppress(OSError), path.open("rb") as file:
            start = file.read(1000)
            return _IN_BYTES[path.name] in start if start.strip(b"\0") else None
    if path.name not in _IN_CONTENT or (content := _content(path)) is None:
        return None
    try:
        return _IN_CONTENT[path.name](content) if content else None
    except LookupError:
        return False
    except (TypeError, AttributeError):
        return None


def _content(path: Path) -> Any:
    """What a file of JSON or YAML holds, the first line of .jsonl; None where that cannot be read."""
    with suppress(OSError, ValueError, yaml.YAMLError, RecursionError), path.open("rb") as file:
        text = (file.readline() if path.suffix == ".jsonl" else file.read()).decode()
        return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    return None


def _status(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.stat()
    return None


def _let_go() -> None:
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


def default_path(name: str | None) -> Path:
    """runs/<name>-<time>, with a number behind it where that is taken; `name` may be a preset's path."""
    stem = f"{Path(name).stem if name else 'train'}-{time.strftime('%Y%m%d-%H%M%S')}"
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    paths = (Path("runs") / f"{stem}{ending}" for ending in endings)
    return next(path for path in paths if not os.path.lexists(path))


def make_default(name: str | None) -> Path:
    """`default_path`, made as a folder by this process alone: many may start within a second. Raises UsageError."""
    while True:
        path = default_path(name)
        try:
            path.parent.mkdir(exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError:
            if not path.parent.is_dir():
                raise UsageError(f"{path.parent} is a file", "choose a folder with --checkpoint-dir") from None
        except OSError as error:
            raise RunFolder(path)._unwritable(error) from error


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
