"""Asks in processes of their own, so that a crash or a hang of what is asked ends with a sentence.

Such a process, a probe, runs a module that gives one `answer`.
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

_NO_ANSWER = Failure("it ended without an answer")
_ENDED_WITH_ANOTHER = Failure("ended because another process failed")


def ask(
    module: str, *arguments: str, seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any] | Failure:
    """What the module answers to these arguments."""
    return ask_together(module, [arguments], seconds=seconds, environment=environment)


def ask_together(
    module: str, probes: Sequence[Sequence[str]], *, seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any] | Failure:
    """The first one's answer where all answer, else the first failure; they run at the same time."""
    commands = [python(module, *arguments) for arguments in probes]
    outputs = run_together(commands, seconds=seconds, environment=environment)
    answers = [each if isinstance(each, Failure) else _decode(each) for each in outputs]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    # One that was ended because of another says less than that other.
    return next((each for each in failures if each != _ENDED_WITH_ANOTHER), None) or answers[0]


def answer(find: Callable[[], dict[str, Any]]) -> NoReturn:
    """Print one line of JSON, what `find` returns or the `error` that it raises, and end this process."""
    warnings.simplefilter("ignore")  # nobody reads them here
    try:
        content = find()
    except Exception as error:  # whatever it is, it is the answer
        explained = error if isinstance(error, CamoxError) else to_camox_error(error)
        if explained is None:
            content = {"error": f"{type(error).__name__}: {one_line(error)}"}
        else:
            content = {"error": explained.message, "hint": explained.hint, "exit_code": explained.exit_code}
    console.result(json.dumps(content))
    # The answer is told. What torch leaves running now and then aborts a process that ends in the usual way. An error
    # is an exit code too, so that those which work together with this one are not waited for.
    os._exit(1 if "error" in content else 0)


def run_together(
    commands: Sequence[Sequence[str]],
    *,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    grace: float = GRACE_SECONDS,
) -> list[str | Failure]:
    """What each command printed. Where one fails, or is not done within `seconds`, all that still run are killed.

    After a failure the others have `grace` seconds to end by themselves.
    """
    # A probe is no worker, whoever started this process.
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
        return Failure(f"there is no {program} on this machine")
    return Failure(f"{program} cannot be started: {error.strerror}")


def _outcome(code: int, output: Path, log: Path) -> str | Failure:
    """What a command printed; where it failed, why."""
    printed = output.read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return printed
    if code < 0:
        return Failure(f"its process was ended by {signal_name(code)}")
    if isinstance(told := _decode(printed), Failure) and told != _NO_ANSWER:
        return told
    return Failure((last_lines(log) or last_lines(output)).strip() or f"it ended with exit code {code}")


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
