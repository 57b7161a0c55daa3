"""The doctor: take readings, judge them, recommend what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.doctor.check_gpus import gpu_findings
from camoxpert_cli.doctor.check_machine import machine_findings
from camoxpert_cli.doctor.check_multi_gpu import team_findings
from camoxpert_cli.doctor.check_preset import recipe_findings
from camoxpert_cli.doctor.finding import Finding, Question
from camoxpert_cli.doctor.readings import Readings
from camoxpert_cli.doctor.recommend import Recommendation, recommend
from camoxpert_cli.doctor.take_readings import take_readings
from camoxpert_cli.errors import DeviceError

# The preset whose network and batches are examined if the user names none.
_USUAL = "kaggle-2xT4"


@dataclass(frozen=True)
class Examination:
    """The readings of a machine, the findings drawn from them, and a recommendation."""

    question: Question
    readings: Readings
    findings: tuple[Finding, ...]
    recommendation: Recommendation

    @property
    def problems(self) -> list[Finding]:
        """The findings that prevent training."""
        return [finding for finding in self.findings if finding.status == "problem"]


def examine(preset: str | None, tell: Callable[[str], None]) -> Examination:
    """Examine the machine for `preset`, or for GPU training in general if it is None.

    `tell` is called with progress lines. Raises ConfigError for a preset that does not exist or is invalid.
    """
    question = Question(preset, resolve(preset or _USUAL, {}).config)
    return judge(take_readings(question, tell), question)


def judge(readings: Readings, question: Question) -> Examination:
    """Derive findings and a recommendation from `readings`."""
    findings = (
        *gpu_findings(readings, question),
        *team_findings(readings),
        *machine_findings(readings, question),
        *recipe_findings(readings, question),
    )
    problems = [finding.name for finding in findings if finding.status == "problem"]
    return Examination(question, readings, findings, recommend(readings, question, problems))


def refuse_problems(examination: Examination) -> None:
    """Raise DeviceError if there are problems; the hint is the fix for the first."""
    problems = examination.problems
    if not problems:
        return
    names = ", ".join(finding.name for finding in problems)
    what = "train on GPUs" if examination.question.preset is None else f"train {examination.question.preset}"
    raise DeviceError(f"this machine cannot {what}; failed checks: {names}", problems[0].command or problems[0].advice)
