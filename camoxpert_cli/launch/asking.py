"""Asks in processes of their own, so that a crash or a hang of what is asked ends with a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from camoxpert_cli.launch.answers import Failure
from camoxpert_cli.parallel.worker import JOB

# What a launcher tells its workers; a probe is none, whoever started doctor.
LAUNCHER_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    JOB,
)
_POLL_SECONDS = 0.02
# After one of several has failed, the others are given as long.
_GRACE_SECONDS = 5.0


def ask(
    probe: str, *arguments: str, seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any] | Failure:
    """The answer of a probe of `camoxpert_cli.doctor.probes` in a process of its own."""
    return ask_together([(probe, *arguments)], seconds=seconds, environment=environment)


def ask_together(
    probes: Sequence[Sequence[str]], *, seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any] | Failure:
    """The first one's answer where all answer, else the first failure; they run at the same time."""
    module = "camoxpert_cli.doctor.probes"
    answers = [
        _decode(output)
        for output in run_together(
            [[sys.executable, "-m", module, *probe] for probe in probes], seconds=seconds, environment=environment
        )
    ]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    # One that was ended because of another says less than that other.
    return next((each for each in failures if each != _ENDED_WITH_ANOTHER), None) or answers[0]


def run_together(
    commands: Sequence[Sequence[str]], *, seconds: float, environment: Mapping[str, str] | None = None
) -> list[str | Failure]:
    """What each command printed. Where one fails, or is not done within `seconds`, all that still run are killed."""
    with ExitStack() as stack:
        started = [_start(command, stack, environment) for command in commands]
        processes = [each for each in started if not isinstance(each, Failure)]
        late = not _wait(processes, seconds)
        unfinished = [each for each in processes if each.process.poll() is None]
        for each in unfinished:
            with suppress(ProcessLookupError):
                os.killpg(each.process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # a driver that hangs keeps its process for good
                each.process.wait(_GRACE_SECONDS)
        return [
            each
            if isinstance(each, Failure)
            else each.outcome()
            if each not in unfinished
            else Failure(f"no answer within {seconds:g} s")
            if late
            else _ENDED_WITH_ANOTHER
            for each in started
        ]


_NO_ANSWER = Failure("it ended without an answer")
_ENDED_WITH_ANOTHER = Failure("ended because another process failed")


class _Process:
    """Writes into files: a pipe would stay open as long as anything that the process has started."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes], errors: IO[bytes]) -> None:
        self.process = process
        self.output = output
        self.errors = errors

    def outcome(self) -> str | Failure:
        """What it printed, once it has ended."""
        self.output.seek(0)
        self.errors.seek(0)
        printed = self.output.read().decode(errors="replace")
        code = self.process.returncode
        if code == 0:
            return printed
        if code > 0 and isinstance(answer := _decode(printed), Failure) and answer != _NO_ANSWER:
            return answer
        if code < 0:
            return Failure(f"its process was ended by {signal.Signals(-code).name}")
        lines = self.errors.read().decode(errors="replace").strip().splitlines() or printed.strip().splitlines()
        return Failure(lines[-1].strip() if lines else f"it ended with exit code {code}")


def _start(command: Sequence[str], stack: ExitStack, environment: Mapping[str, str] | None) -> _Process | Failure:
    output = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- the stack closes it
    errors = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**inherited, **(environment or {})},
            start_new_session=True,
        )
    except FileNotFoundError:
        return Failure(f"there is no {Path(command[0]).name} on this machine")
    except OSError as error:
        return Failure(f"{Path(command[0]).name} cannot be started: {error.strerror}")
    return _Process(process, output, errors)


def _wait(processes: Sequence[_Process], seconds: float) -> bool:
    """Until all have ended, or one has failed and the others had their grace; False where the time was up."""
    end = time.monotonic() + seconds
    grace_over = None
    while any(each.process.poll() is None for each in processes):
        now = time.monotonic()
        if grace_over is None and any(each.process.poll() not in (None, 0) for each in processes):
            grace_over = now + _GRACE_SECONDS
        if now >= end:
            return False
        if grace_over is not None and now >= grace_over:
            return True
        time.sleep(_POLL_SECONDS)
    return True


def _decode(output: str | Failure) -> dict[str, Any] | Failure:
    if isinstance(output, Failure):
        return output
    try:
        # Libraries may have printed before.
        answer = json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError):
        answer = None
    if not isinstance(answer, dict):
        return _NO_ANSWER
    if "error" not in answer:
        return answer
    return Failure(str(answer["error"]), answer.get("hint", ""), answer.get("exit_code"))
