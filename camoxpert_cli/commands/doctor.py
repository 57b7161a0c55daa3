from __future__ import annotations

import json
import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camoxpert_cli import console
from camoxpert_cli.commands.options import AsJson, Quiet

if TYPE_CHECKING:
    from camoxpert_cli.doctor.examine import Examination
    from camoxpert_cli.doctor.finding import Finding

# Widths of a check's status and name; the rest is text.
_STATUS, _NAME = 9, 15


def doctor(
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also check whether this preset fits, and measure its memory.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Test whether this machine can train, and recommend settings.

    Runs a kernel and a mixed-precision step on every GPU; with several GPUs, also tests copies between them and runs a
    training step with each strategy. Checks the driver, packages, CPU, memory, disk, environment variables and internet
    access. Prints for each check the result, what was run (in brackets) and, if it failed, the fix; crashes and hangs
    are reported too. Recommends a preset and a strategy. Exits with code 5 if this machine cannot train with the
    preset or, without --preset, on GPUs.

    \b
    Examples:
      camox doctor
      camox doctor --preset kaggle-2xT4
      camox doctor --json > machine.json
    """
    from camoxpert_cli.doctor.examine import examine, refuse_problems

    examination = examine(preset, console.say)
    if as_json:
        console.result(json.dumps(to_json(examination), indent=2))
    else:
        console.result("\n".join(_lines(examination)))
    refuse_problems(examination)


def to_json(examination: Examination) -> dict[str, Any]:
    """Return findings, recommendation and readings as plain types: sizes in bytes, failed readings as their `why`."""
    return {
        "usable": not examination.problems,
        "preset": examination.question.preset,
        "findings": [asdict(finding) for finding in examination.findings],
        "recommended": asdict(examination.recommendation),
        "readings": asdict(examination.readings),
    }


def _lines(examination: Examination) -> list[str]:
    recommended = examination.recommendation
    lines = [line for finding in examination.findings for line in _finding(finding)]
    first = "Recommended"
    if examination.problems:
        first += ", once the problems above are fixed" if examination.readings.working else " until a GPU works"
    lines += ["", f"{first}: {recommended.preset}, strategy {recommended.strategy}"]
    lines += [line for sentence in recommended.why for line in _wrapped(sentence, "  ")]
    return [*lines, f"  {recommended.command}"]


def _finding(finding: Finding) -> list[str]:
    ran = f"  [{finding.ran}]" if finding.ran else ""
    lines = _wrapped(finding.result + ran, f"{finding.status:<{_STATUS}}{finding.name:<{_NAME}}")
    if finding.advice:
        lines += _wrapped(finding.advice, " " * (_STATUS + _NAME) + "-> ")
    if finding.command:
        # On one line, to be copied.
        lines.append(" " * (_STATUS + _NAME + 3) + finding.command)
    return lines


def _wrapped(text: str, start: str) -> list[str]:
    width = min(120, shutil.get_terminal_size().columns)
    later = " " * len(start)
    return textwrap.wrap(
        text, width, initial_indent=start, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
    )
