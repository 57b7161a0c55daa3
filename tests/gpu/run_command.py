"""A command that a check runs to its end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gpu.ending import STARTED_BY, end_processes
from tests.gpu.patience import with_patience

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """Exit code, below zero for a signal, what it printed, and when it ended in seconds since 1970."""

    code: int
    stdout: str
    stderr: str
    at: float


def run_command(
    folder: Path, command: Sequence[str], *, seconds: float, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run the command, with `environment` beside this process's own; `folder`, which must not exist, is its own.

    Its output goes to files: a pipe would stay open as long as any process that it started. Raises TimeoutError where
    it takes longer than `seconds`; all that it started is ended then.
    """
    folder.mkdir()
    limit = with_patience(seconds)
    paths = folder / "stdout", folder / "stderr"
    with paths[0].open("wb") as stdout, paths[1].open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            cwd=_ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {}), STARTED_BY: str(folder)},
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{' '.join(command[1:5])} did not end within {limit:g} s") from None
        finally:
            ended_at = time.time()
            end_processes(folder)
            process.wait()
            said, complained = (path.read_text(encoding="utf-8", errors="replace") for path in paths)
            print(f"\n$ {' '.join(command)}", said, complained, sep="\n", flush=True)
    return Ended(code, said, complained, ended_at)


def run_well(
    folder: Path,
    command: Sequence[str],
    *,
    seconds: float,
    code: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """The same for a command that has to end with exit code `code`: raises AssertionError where it is another."""
    ended = run_command(folder, command, seconds=seconds, environment=environment)
    last = (ended.stderr.strip().splitlines() or ["nothing was said"])[-1]
    assert ended.code == code, f"{' '.join(command[1:5])} ended with exit code {ended.code}: {last}"
    return ended
