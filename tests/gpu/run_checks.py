"""Runs checks one after the other, each in a process of its own, and writes down what came of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.gpu.ending import STARTED_BY, end_processes
from tests.gpu.patience import with_patience
from tests.gpu.report import lines_of
from tests.gpu.table import Result, markdown

_ROOT = Path(__file__).parents[2]
RESULTS = "results.jsonl"
TABLE = "table.md"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Check:
    """`command` runs it. It is not begun where fewer than `seconds` are left, and killed after twice as many.

    `--patience` multiplies the latter.
    """

    name: str
    seconds: float
    command: tuple[str, ...]


class Stop(BaseException):
    """Ctrl-C, or a request to terminate."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


def run_checks(checks: Sequence[Check], out: Path, minutes: float, about: Sequence[tuple[str, str]]) -> int:
    """Run all that fit into the minutes; results and logs go to `out`, which must exist.

    `about` are the lines of the table's head, a title and a text each. Returns the exit code: 0 where nothing failed, 1
    where something did, 128 + a signal's number where that ended it.
    """
    end = time.monotonic() + 60 * minutes
    found: list[Result] = []
    stopped = ""
    code = 0
    with _handling(signal.SIG_IGN):  # the table is written whatever comes
        try:
            with _handling(_stop):
                for check in checks:
                    stopped = check.name
                    found.append(_result_of(check, out, end - time.monotonic()))
                    with (out / RESULTS).open("a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(found[-1])) + "\n")
                    print(found[-1], flush=True)
                stopped = ""
        except Stop as stop:
            code = stop.exit_code
        table = markdown(about, found, stopped)
        (out / TABLE).write_text(table, encoding="utf-8")
        print(f"\n{table}", end="", flush=True)
    return code or int(any(each.outcome in ("failed", "timed out") for each in found))


@contextmanager
def _handling(handler: Any) -> Iterator[None]:
    """Inside, `handler` gets SIGINT and SIGTERM."""
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise Stop; signals that follow, while processes are killed, do nothing."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Stop(number)


def _result_of(check: Check, out: Path, left: float) -> Result:
    if left < check.seconds:
        return Result(check.name, "skipped: no time left", 0.0)
    started = time.monotonic()
    limit = min(with_patience(2 * check.seconds), left)
    with tempfile.TemporaryDirectory(prefix="camox-gpu-", ignore_cleanup_errors=True) as folder:
        code = _run(check, Path(folder), out / f"{check.name}.log", limit)
        lines = _read(lines_of(Path(folder)))
    seconds = round(time.monotonic() - started, 1)
    numbers = {line["number"]: line["value"] for line in lines if "number" in line}
    failures = [line["failure"] for line in lines if "failure" in line]
    outcome = next((line["outcome"] for line in lines if "outcome" in line), None)
    if code is None:
        return Result(check.name, "timed out", seconds, numbers, [*failures, f"killed after {limit:.0f} s"])
    if outcome is None or code:
        failures.append(f"ended with exit code {code}" + (" before its last line" if outcome is None else ""))
    if outcome == "needs a card" and not failures:
        return Result(check.name, "needs a card", seconds, numbers)
    return Result(check.name, "failed" if failures else "passed", seconds, numbers, failures)


def _run(check: Check, folder: Path, log: Path, limit: float) -> int | None:
    """The exit code; None where it was killed at its time-out. No process that it started is left."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            check.command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", STARTED_BY: str(folder)},
        )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        end_processes(folder)
        process.wait()


def _read(path: Path) -> list[dict[str, Any]]:
    """Its lines; one that a killed process left unfinished is passed over."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] if path.exists() else []
