"""The run folder: where a run keeps its settings, measurements and checkpoints.

config.yaml      every setting, as resolved
env.json         versions and command line
metrics.jsonl    one JSON object a line, in the order in which things happened
history.json     a list, one object an epoch
last.pth         all that is needed to go on
best_model.pth   the weights with the best validation IoU
results.json     scores of best_model.pth on the test sets, written when the run ends
"""

from __future__ import annotations

import itertools
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from camoxpert_cli import __version__, atomic
from camoxpert_cli.errors import TrainingError, UsageError

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "albumentations", "typer")
# What makes a folder the folder of a run; one that stopped before its first epoch ended has nothing to lose.
_PRECIOUS = ("history.json", "last.pth", "best_model.pth", "results.json")


class RunFolder:
    """Names and writers of a run folder's files. Creates nothing before `create`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / "last.pth"
        self.best = path / "best_model.pth"
        self.metrics = path / "metrics.jsonl"
        self.history = path / "history.json"
        self.results = path / "results.json"

    def refuse_other_run(self, resume_from: Path | None) -> None:
        """Raise UsageError where the folder holds a run other than the one that `resume_from` goes on with."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"the run folder {self.path} is a file", "choose another folder with --checkpoint-dir")
        if resume_from is not None and resume_from.resolve().parent == self.path.resolve():
            return
        found = [name for name in _PRECIOUS if (self.path / name).exists()]
        if found:
            go_on = f", or go on with it: --resume-from {self.last}" if self.last.exists() else ""
            raise UsageError(
                f"the folder {self.path} holds another run ({', '.join(found)}); nothing was changed",
                f"choose another --checkpoint-dir{go_on}",
            )

    def refuse_foreign(self, checkpoint: Path) -> None:
        """Raise UsageError where `checkpoint`, which another program wrote, lies in this folder."""
        if checkpoint.resolve().parent == self.path.resolve():
            raise UsageError(
                f"{checkpoint} is of another program, and this run would write best_model.pth beside or over it",
                "choose another folder with --checkpoint-dir",
            )

    def create(self) -> None:
        """Make the folder. Raises UsageError where that is impossible or nothing can be written to it."""
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

    def write_settings(self, config: Mapping[str, Any]) -> None:
        """config.yaml and env.json; the folder must exist."""
        self._write(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        self._write(self.path / "env.json", json.dumps(environment(), indent=2) + "\n")

    def log(self, event: str, **values: Any) -> None:
        """Append one object to metrics.jsonl: `event`, the time in seconds since 1970, `values`."""
        line = json.dumps({"event": event, "time": round(time.time(), 3), **values})
        with _telling_why(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_history(self, history: list[dict[str, Any]]) -> None:
        self._write(self.history, json.dumps(history, indent=2) + "\n")

    def write_results(self, results: Mapping[str, Any]) -> None:
        self._write(self.results, json.dumps(results, indent=2) + "\n")

    def _write(self, path: Path, text: str) -> None:
        with _telling_why(path):
            atomic.write_text(path, text)


@contextmanager
def _telling_why(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror}", "free some space, then go on with --resume-from last.pth"
        ) from error


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
