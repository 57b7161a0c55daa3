"""The run folder, in which a run keeps its settings, metrics and checkpoints.

config.yaml      every setting, as resolved
env.json         versions and command line
metrics.jsonl    one JSON object per line, in chronological order
history.json     a list with one object per epoch
last.pth         everything needed to resume
previous.pth     the previous last.pth
best_model.pth   the weights with the best validation IoU
strategy.json    the multi-GPU strategy chosen by short trials, and why; only if there were trials
results.json     scores of best_model.pth on the validation images and the test sets, written when the run ends
per_image.csv    the same scores for each image
report.html      scores, curves and images on one page
curves.png       losses and validation scores by epoch
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
from camoxpert_cli.errors import PeerLostError, TrainingError, UsageError
from camoxpert_cli.regular_file import read_regular

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "albumentations", "typer")
LAST, PREVIOUS, BEST = "last.pth", "previous.pth", "best_model.pth"
CHECKPOINTS = (LAST, PREVIOUS, BEST)  # the newest first
# Files that make a folder a run folder; a run that stopped before its first epoch ended has nothing to lose.
_PRECIOUS = ("history.json", *CHECKPOINTS, "results.json")
STRATEGY_FILE = "strategy.json"
# Files that only a run writes; `camox eval` writes a results.json too.
_OF_A_RUN = ("config.yaml", "env.json", "metrics.jsonl", "history.json")
_PAGES = ("per_image.csv", "report.html", "curves.png")
_BEGUN = ("config.yaml", "env.json", "metrics.jsonl", STRATEGY_FILE)
_FILES = (*_PRECIOUS, *_PAGES, *_BEGUN)
# Subfolders whose file names are not known in advance: a run's own, or somebody else's.
_FOLDERS = ("logs", "tensorboard", "wandb")
# How a run's file is told from somebody else's with the same name: by its parsed content, or by bytes among the first
# thousand. Content of unexpected types counts as damaged, not as somebody else's.
_IN_CONTENT: dict[str, Callable[[Any], bool]] = {
    "env.json": lambda content: "camox" in content["versions"],
    # A preset has only some settings, and never the run folder.
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

_LOCK_POLL_SECONDS = 0.2
_MOST_RESULTS = 2**26  # bytes, above any real results.json

# Descriptors that hold a folder lock. Inherited by a loader worker, they would keep the lock after this process died.
_locks: set[int] = set()
os.register_at_fork(after_in_child=lambda: _let_go())


class RunFolder:
    """Paths of a run folder's files and methods that write them. Creates nothing before `create`.

    If several processes train together, only one of them `writes`; the writing methods of the others do nothing.
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
        """Return whether the folder contains a checkpoint to resume from."""
        return any((self.path / name).is_file() for name in CHECKPOINTS)

    @property
    def holds_run(self) -> bool:
        """Return whether a run began in the folder, even if it has saved nothing yet."""
        return self.holds_checkpoint or any(_is_runs(self.path / name) for name in _OF_A_RUN)

    @property
    def start_command(self) -> str | None:
        """Return the command line in env.json, of the last session, quoted for a shell; None if camox was not run."""
        content = _content(self.path / "env.json") if _is_runs(self.path / "env.json") else None
        command = content.get("command") if isinstance(content, dict) else None
        program, *words = map(str, command) if isinstance(command, list) and command else [""]
        return f"camox {shlex.join(words)}" if words and Path(program).name in ("camox", "__main__.py") else None

    @property
    def resume_command(self) -> str:
        """Return the command that resumes the run, quoted for a shell."""
        return f"camox resume {shlex.quote(str(self.path))}"

    @property
    def predict_command(self) -> str:
        """Return the command that uses the best weights, quoted for a shell."""
        return f"camox predict {shlex.quote(str(self.best))} IMAGE... --out predictions"

    @property
    def settings(self) -> dict[str, Any]:
        """Return config.yaml by section; empty if it is missing, damaged or not written by a run."""
        path = self.path / "config.yaml"
        content = _content(path) if _is_runs(path) else {}
        return content if all(isinstance(section, dict) for section in content.values()) else {}

    @property
    def results_of_run(self) -> dict[str, Any] | None:
        """Return the content of results.json if a run has written it at its end; None if there is none, or damaged."""
        with suppress(OSError, ValueError, RecursionError):
            content = json.loads(read_regular(self.results, _MOST_RESULTS))
            if isinstance(content, dict) and {"validation", "tests", "epoch"} <= content.keys():
                return content  # `camox eval` writes another one
        return None

    def is_complete(self, *, trained: bool) -> bool:
        """Return whether the run has been scored, and `trained`: no epoch is left.

        If only its best weights were kept, it counts as trained: a run that is extended has no results.
        """
        trained = trained or not (self.last.exists() or self.previous.exists())
        return trained and self.results_of_run is not None

    @property
    def stamps(self) -> list[tuple[int, int] | None]:
        """Return size and time of each checkpoint, which change whenever one is replaced.

        Inodes are not used: FUSE file systems may report a different one on every call.
        """
        found = [_status(self.path / name) for name in CHECKPOINTS]
        return [None if each is None else (each.st_size, each.st_mtime_ns) for each in found]

    def refuse_other_run(self, resume_from: Path | None, inputs: Iterable[str] = ()) -> None:
        """Raise UsageError if a run in this folder would overwrite anything that is not its own.

        That is: a run other than the one resumed by `resume_from`, a file not written by camox, anything that is not a
        regular file, and any of the `inputs` that the run reads. Leftovers of a run that stopped before its first epoch
        ended may be overwritten.
        """
        self._refuse_file()
        there = [name for name in (*_FILES, *_FOLDERS) if os.path.lexists(self.path / name)]
        elsewhere = "choose another folder with --checkpoint-dir"
        for name in there:
            path = self.path / name
            if not (path.is_dir() if name in _FOLDERS else path.is_file()):
                kind = "folder" if name in _FOLDERS else "regular file"
                raise UsageError(
                    f"{path} is not a {kind}, but a run would write one there; nothing was changed", elsewhere
                )
        for path in map(Path, inputs):
            if next((each for each in there if path.resolve() == (self.path / each).resolve()), None) is not None:
                raise UsageError(f"{path} is an input of this run and would be overwritten", elsewhere)
        own = {name: _is_runs(self.path / name) for name in there}
        if self.curves.name in there:
            own[self.curves.name] = (
                own.get(self.report.name) or False
            )  # written after the report, and not recognizable itself
        if resume_from is not None and resume_from.parent.resolve() == self.path.resolve():
            may_go = {*_FILES, *_FOLDERS} if True in own.values() else {*CHECKPOINTS}
            # In a run's folder these belong to the run: unexpected content in them is damage.
            own.update({name: None for name in ("history.json", "metrics.jsonl", STRATEGY_FILE) if name in own})
        else:
            found = [name for name in _PRECIOUS if name in there]
            if found:
                go_on = f", or resume that run: {self.resume_command}" if self.last.exists() else ""
                raise UsageError(
                    f"the folder {self.path} already contains a run ({', '.join(found)}); nothing was changed",
                    f"choose another folder with --checkpoint-dir{go_on}",
                )
            is_runs = own.get("env.json") or own.get("metrics.jsonl") or self._is_named_in_settings()
            may_go = {*_BEGUN, *_FOLDERS} if is_runs else {name for name in _FOLDERS if own.get(name)}
        foreign = [name for name in there if own[name] is False or name not in may_go]
        if foreign:
            raise UsageError(
                f"the folder {self.path} contains files that camox did not write there, with names that this run "
                f"would use: {', '.join(foreign)}; nothing was changed",
                f"{elsewhere}, or move {'it' if len(foreign) == 1 else 'them'} away",
            )

    def refuse_foreign(self, checkpoint: Path) -> None:
        """Raise UsageError if `checkpoint`, written by another program, is in this folder."""
        if checkpoint.parent.resolve() == self.path.resolve():
            raise UsageError(
                f"{checkpoint} was written by another program, and this run would write {BEST} next to it or over it",
                "choose another folder with --checkpoint-dir",
            )

    def create(self) -> None:
        """Create the folder. Raises UsageError if that fails or the folder is not writable."""
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
        """Return whether files can be created in the folder; writes nothing."""
        return os.access(self.path, os.W_OK | os.X_OK)

    @contextmanager
    def locked(self, *, shared: bool = False, wait: float = 0.0) -> Iterator[None]:
        """Lock the folder for this process, before anything in it is examined.

        Creates the folder, and removes it on exit if it is still empty. A launcher and its writing worker hold a
        `shared` lock together, so that the folder stays locked until both have ended. Raises UsageError if another
        process is using it, PeerLostError if it still is after `wait` seconds.
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
                self._hold(fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
                status = _status(self.path)
                if status is None or not os.path.samestat(status, os.fstat(self._lock)):
                    continue  # the locked folder no longer exists
                yield
                return
            finally:
                for each in made:
                    with suppress(OSError):  # not empty: it contains a run
                        each.rmdir()
                _locks.discard(self._lock)
                os.close(self._lock)

    def share_lock(self) -> None:
        """Let a worker share the lock of this process. Raises UsageError as `locked` does."""
        self._hold(fcntl.LOCK_SH)

    def _hold(self, kind: int, wait: float = 0.0) -> None:
        assert self._lock is not None
        end, told = time.monotonic() + wait, False
        while not _locks_now(self._lock, kind):
            if time.monotonic() >= end:
                message = f"another process is using the run folder {self.path}"
                if wait:  # whoever runs the command again may do so once more
                    raise PeerLostError(f"{message}, still after {wait:g} s", "end that process, then try again")
                raise UsageError(message, "wait for it to end, or choose another folder with --checkpoint-dir")
            if not told:
                console.say(f"Waiting up to {wait:g} s for another process to stop using {self.path}")
            told = True
            time.sleep(_LOCK_POLL_SECONDS)

    def _is_named_in_settings(self) -> bool:
        """Return whether config.yaml belongs to a run in this folder, and is not a copy from another one."""
        named = self.settings.get("run", {}).get("checkpoint_dir")
        return isinstance(named, str) and Path(named).resolve() == self.path.resolve()

    def _refuse_file(self) -> None:
        if os.path.lexists(self.path) and not self.path.is_dir():
            kind = "a file" if self.path.is_file() else "a broken link or a special file"
            raise UsageError(
                f"{self.path} is {kind}, expected a run folder", "choose another folder with --checkpoint-dir"
            )

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"the run folder {self.path} cannot be written: {error.strerror}",
            "choose another folder with --checkpoint-dir",
        )

    def sweep(self) -> None:
        """Remove files that a killed process left half-written."""
        if self.writes:
            atomic.sweep(*(self.path / name for name in _FILES))

    def require_space(self, size: int) -> None:
        """Raise TrainingError unless the disk has room for checkpoints of `size` bytes in all."""
        if not self.writes:
            return
        there = sum(path.stat().st_size for path in (self.last, self.previous) if path.exists())
        free = shutil.disk_usage(self.path).free
        if free < size - there:
            raise TrainingError(
                f"the disk of {self.path} has {console.in_gib(free)} free, but checkpoints of this network need "
                f"{console.in_gib(size - there)} more",
                "free some space, or choose another disk with --checkpoint-dir",
            )

    def write_settings(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml and env.json; the folder must exist."""
        self._write(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        self._write(self.path / "env.json", json.dumps(environment(), indent=2) + "\n")

    def write_strategy(self, text: str) -> None:
        """Write strategy.json."""
        self._write(self.path / STRATEGY_FILE, text)

    def log(self, event: str, **values: Any) -> None:
        """Append one object to metrics.jsonl: `event`, the time in seconds since 1970, and `values`."""
        if not self.writes:
            return
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        with self._going_on(self.metrics), open(self.metrics, "a", encoding="utf-8", opener=_without_waiting) as file:
            file.write(line + "\n")

    def go_on_from(self, epoch: int, samples: int, history: list[dict[str, Any]], checkpoint: Path) -> None:
        """Truncate log and history to where a run resumes: after `epoch` complete epochs and `samples` more samples.

        Whatever a killed process did after its last save is repeated, and logged again.
        """
        if self.writes and self.metrics.exists():
            lines = self.metrics.read_bytes().split(b"\n")
            kept = [line for line in lines if _lies_before(line, epoch, samples)]
            self._write(self.metrics, "".join(f"{line.decode()}\n" for line in kept))
        if history or self.history.exists():
            self.write_history(history)
        self.log("resume", checkpoint=str(checkpoint), epoch=epoch, samples=samples)

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Replace history.json; a failure is only a warning."""
        if not self.writes:
            return
        with self._going_on(self.history):
            atomic.write_text(self.history, json.dumps(history, indent=2) + "\n")

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Replace results.json. Raises TrainingError if it cannot be written."""
        self._write(self.results, json.dumps(results, indent=2) + "\n")

    def remove_results(self) -> None:
        """Remove the files that are written when a run ends."""
        for path in (self.results, self.per_image, self.curves, self.report):
            self.remove(path)

    def remove(self, path: Path) -> None:
        """Remove a file of this folder that is out of date, if it exists."""
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
        """Turn a failed write into a warning: a log must not end training, and checkpoints have the history."""
        try:
            yield
        except OSError as error:
            if path not in self._given_up:
                console.warn(f"{path} cannot be written: {error.strerror}; training continues without it")
            self._given_up.add(path)


def _locks_now(descriptor: int, kind: int) -> bool:
    """Lock a folder; return whether no other process has it. A file system without locks lets everybody pass."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place raises an error instead of blocking until it is read."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def _lies_before(line: bytes, epoch: int, samples: int) -> bool:
    """Return whether a log line is about work that a resumed run does not repeat; False for a damaged line."""
    try:
        row = json.loads(line.decode())
        if row["event"] == "step":
            return bool((row["epoch"], row["samples"]) <= (epoch + 1, samples))
        return bool(row["event"] != "epoch" or row["epoch"] <= epoch)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _is_runs(path: Path) -> bool | None:
    """Return whether a run wrote this file or folder; None if that cannot be told or it is damaged."""
    if path.name == "logs":
        with suppress(OSError):  # logs of processes that failed before any other file was written
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
    """Return the parsed content of a JSON or YAML file, of .jsonl its first line; None if it cannot be read."""
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
    """Return runs/<name>-<time>, with a number appended if that exists; `name` may be a preset's path."""
    stem = f"{Path(name).stem if name else 'train'}-{time.strftime('%Y%m%d-%H%M%S')}"
    endings = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    paths = (Path("runs") / f"{stem}{ending}" for ending in endings)
    return next(path for path in paths if not os.path.lexists(path))


def make_default(name: str | None) -> Path:
    """Create the folder `default_path`, unique to this process even if many start at once. Raises UsageError."""
    while True:
        path = default_path(name)
        try:
            path.parent.mkdir(exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError:
            if not path.parent.is_dir():
                raise UsageError(
                    f"{path.parent} is a file, expected a folder", "choose a folder with --checkpoint-dir"
                ) from None
        except OSError as error:
            raise RunFolder(path)._unwritable(error) from error


def versions() -> dict[str, str]:
    """Return the versions of camox, Python and every package that can affect results, without importing them."""
    found = {"camox": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Return the content of env.json."""
    return {
        "command": sys.argv,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": versions(),
    }
