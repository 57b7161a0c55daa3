"""Runs camox in a process of its own, to be killed and signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from camoxpert_cli.config.resolve import Resolved, to_mapping
from camoxpert_cli.config.schema import SETTINGS
from tests.helpers.places import ROOT

# Generous: the machine may be busy with other tests.
TIMEOUT = 180


def train_command(resolved: Resolved) -> list[str]:
    """`python -m camoxpert_cli train` with every setting as a flag."""
    arguments = []
    for section, values in to_mapping(resolved.config).items():
        for name, value in values.items():
            setting = SETTINGS[f"{section}.{name}"]
            if value is None:
                continue
            if setting.is_switch:
                arguments.append(setting.flag if value else f"--no-{setting.flag[2:]}")
            else:
                for item in value if isinstance(value, list) else [value]:
                    arguments += [setting.flag, str(item)]
    return camox("train", *arguments)


def camox(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "camoxpert_cli", *arguments]


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """A process in a session of its own whose output is read as text, and which hears every signal."""
    with all_signals_heard():
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )


@contextmanager
def all_signals_heard() -> Iterator[None]:
    """Programs that are started here inherit no signal that is ignored, as `nohup` and shells have it for jobs."""
    ignored = [each for each in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_IGN]
    for each in ignored:
        signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)
    try:
        yield
    finally:
        for each in ignored:
            signal.signal(each, signal.SIG_IGN)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output of a process, which is killed where it takes too long."""
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"the process did not end within {TIMEOUT} s; it said: {output}") from None
    return process.returncode, output


def run(command: list[str], **environment: str) -> tuple[int, str]:
    return finish(start(command, **environment))


def is_running(process: int) -> bool:
    """Whether a process runs, as Linux tells; one that has ended and waits for somebody to collect it does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    """Until `condition()` holds; fails where the process ends before."""
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
