"""Run probes in separate processes, so that a crash or a hang becomes an error message.

A probe runs a module that prints one `answer`.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from camoxpert_cli import console
from camoxpert_cli.errors import CamoxError, one_line
from camoxpert_cli.launch.processes import GRACE_SECONDS, ChildProcesses, Failure, last_lines, python, signal_name
from camoxpert_cli.parallel.cuda_errors import to_camox_error
from camoxpert_cli.parallel.worker import LAUNCHER_VARIABLES
from camoxpert_cli.temporary import temporary_folder

_NO_ANSWER = Failure("it exited without an answer")
_ENDED_WITH_ANOTHER = Failure("stopped because another process failed")


def ask(
    module: str, *arguments: str, seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any] | Failure:
    """Run the module with these arguments and return its answer."""
    return ask_together(module, [arguments], seconds=seconds, environment=environment)


def ask_together(
    module: str, probes: Sequence[Sequence[str]], *, seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any] | Failure:
    """Run probes at the same time; return the first one's answer if all answer, else the first failure."""
    commands = [python(module, *arguments) for arguments in probes]
    outputs = run_together(commands, seconds=seconds, environment=environment)
    answers = [each if isinstance(each, Failure) else _decode(each) for each in outputs]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    # One that was stopped because of another says less than that one.
    return next((each for each in failures if each != _ENDED_WITH_ANOTHER), None) or answers[0]


def answer(find: Callable[[], dict[str, Any]]) -> NoReturn:
    """Print one line of JSON, the result of `find` or the `error` that it raises, and exit."""
    warnings.simplefilter("ignore")  # not visible to anyone here
    try:
        content = find()
    except Exception as error:  # whatever it is, it is the answer
        explained = error if isinstance(error, CamoxError) else to_camox_error(error)
        if explained is None:
            content = {"error": f"{type(error).__name__}: {one_line(error)}"}
        else:
            content = {"error": explained.message, "hint": explained.hint, "exit_code": explained.exit_code}
    console.result(json.dumps(content))
    # The answer is printed. Threads that torch leaves running sometimes abort a process that exits normally. An error
    # also sets the exit code, so that the probes that work with this one are not waited for.
    os._exit(1 if "error" in content else 0)


def run_together(
    commands: Sequence[Sequence[str]],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    grace: float = GRACE_SECONDS,
) -> list[str | Failure]:
    """Run commands at the same time and return what each printed.

    If one fails, or is not done within `seconds`, all that are still running are killed; after a failure they first
    have `grace` seconds to exit on their own.
    """
    # A probe is not a worker, even if this process is one.
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    with temporary_folder() as folder:
        children = ChildProcesses(folder, grace=grace)
        try:
            for command in commands:
                try:
                    children.start(command, {**inherited, **(environment or {})}, output=True)
                except OSError as error:
                    return [_not_started(Path(command[0]).name, error)] * len(commands)
            unfinished = _ENDED_WITH_ANOTHER if children.wait(seconds) else Failure(f"no answer within {seconds:g} s")
            return [
                unfinished if code is None else _outcome(code, children.output(rank), children.log(rank))
                for rank, code in enumerate(children.codes)
            ]
        finally:
            children.kill(GRACE_SECONDS)


def _not_started(program: str, error: OSError) -> Failure:
    if isinstance(error, FileNotFoundError):
        return Failure(f"{program} was not found on this machine")
    return Failure(f"{program} cannot be started: {error.strerror}")


def _outcome(code: int, output: Path, log: Path) -> str | Failure:
    """What a command printed, or why it failed."""
    printed = output.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return printed
    if code < 0:
        return Failure(f"its process was killed by {signal_name(code)}")
    if isinstance(told := _decode(printed), Failure) and told != _NO_ANSWER:
        return told
    return Failure((last_lines(log) or last_lines(output)).strip() or f"it exited with code {code}")


def _decode(printed: str) -> dict[str, Any] | Failure:
    try:
        content = json.loads(printed.strip().splitlines()[-1])  # libraries may have printed before
    except (IndexError, ValueError):
        content = None
    if not isinstance(content, dict):
        return _NO_ANSWER
    if "error" not in content:
        return content
    return Failure(str(content["error"]), content.get("hint", ""), content.get("exit_code"))
