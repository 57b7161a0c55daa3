"""The doctor: readings, what they mean, and what to do."""

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

# Its network and batches stand for a recipe where none was asked about.
_USUAL = "kaggle-2xT4"


@dataclass(frozen=True)
class Examination:
    question: Question
    readings: Readings
    findings: tuple[Finding, ...]
    recommendation: Recommendation

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.status == "problem"]


def examine(preset: str | None, tell: Callable[[str], None]) -> Examination:
    """Ask the machine and judge it, for `preset` or for GPU training as such. `tell` gets what is being asked.

    Raises ConfigError for a preset that does not exist or is wrong.
    """
    question = Question(preset, resolve(preset or _USUAL, {}).config)
    return judge(take_readings(question, tell), question)


def judge(readings: Readings, question: Question) -> Examination:
    """What `readings` mean for what was asked."""
    findings = (
        *gpu_findings(readings, question),
        *team_findings(readings),
        *machine_findings(readings, question),
        *recipe_findings(readings, question),
    )
    problems = [finding.name for finding in findings if finding.status == "problem"]
    return Examination(question, readings, findings, recommend(readings, question, problems))


def refuse_problems(examination: Examination) -> None:
    """Raise DeviceError where there are problems; the hint is what to do about the first."""
    problems = examination.problems
    if not problems:
        return
    names = ", ".join(finding.name for finding in problems)
    what = "train on GPUs" if examination.question.preset is None else f"train {examination.question.preset}"
    raise DeviceError(
        f"this machine cannot {what} as it is; the problems: {names}", problems[0].command or problems[0].advice
    )
