"""`camox doctor`: what it prints and exits with, on this machine and on others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.doctor.finding import Question
from camoxpert_cli.doctor.readings import Readings, StageMemory
from camoxpert_cli.launch.processes import Failure
from tests.helpers.machines import GIB, T4, machine

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "80"})


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Readings], None]:
    """Puts the command on another machine."""

    def put(readings: Readings) -> None:
        def take(question: Question, tell: Callable[[str], None]) -> Readings:
            return readings

        monkeypatch.setattr("camoxpert_cli.doctor.examine.take_readings", take)

    return put


def test_a_machine_that_fits(on: Callable[[Readings], None]) -> None:
    """A preset that fits ends with 0 and the command that trains it."""
    on(machine(T4, T4, recipe=(StageMemory(2, 12, 9 * GIB),)))

    outcome = run("--preset", "kaggle-2xT4")

    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.splitlines()[-4:] == [
        "Recommended: kaggle-2xT4, strategy ddp",
        "  It fits this machine.",
        "  ddp, with one process for each of the 2 GPUs, passed its test.",
        "  camox train --preset kaggle-2xT4 --dataset-path DATA",
    ]
    assert "Error" not in outcome.stderr


def test_what_to_do(on: Callable[[Readings], None]) -> None:
    """A finding that is not well says what was run, the result, and what to do; the command is one line."""
    ended = {"torchvision": "RuntimeError: operator torchvision::nms does not exist", "cv2": ""}
    on(machine(T4, imports=ended, internet=Failure("no answer within 10 s")))

    outcome = run()

    assert outcome.exit_code == 5
    assert (
        "problem  packages       torchvision fails: RuntimeError: operator\n"
        "                        torchvision::nms does not exist (torch 2.10.0,\n"
        "                        torchvision 0.25.0)  [imports, plus one call each to\n"
        "                        torchvision and cv2]\n"
        "                        -> torch and torchvision come from different builds:\n"
        "                           install both from the same index\n"
        "                           pip install --force-reinstall torch torchvision\n"
    ) in outcome.stdout
    assert outcome.stderr == (
        "Error: this machine cannot train on GPUs; failed checks: packages\n"
        "Try:   pip install --force-reinstall torch torchvision\n"
    )


def test_unknown_preset() -> None:
    """A preset that does not exist ends with 2 before anything is asked, and with what was meant."""
    outcome = run("--preset", "kagle-2xT4")

    assert outcome.exit_code == 2
    assert "did you mean kaggle-2xT4?" in outcome.stderr
    assert outcome.stdout == ""


def test_kaggle_with_one_card(on: Callable[[Readings], None]) -> None:
    """One T4 on Kaggle is usable, and the setting for two is named."""
    on(machine(T4, kaggle=True, environment={"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}))

    outcome = run()

    assert outcome.exit_code == 0
    assert "Kaggle session (Interactive), 1 GPU" in outcome.stdout
    assert "choose GPU T4 x2 as the accelerator" in " ".join(outcome.stdout.split())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu() -> None:
    """On a machine with a GPU everything that was asked of it went well, and a preset's memory was measured."""
    content = json.loads(run("--json", "--preset", "kaggle-1xT4").stdout)

    by_name = {each["name"]: each for each in content["findings"]}
    assert by_name["GPU 0"]["status"] in ("ok", "warning")
    assert by_name["GPU 0"]["ran"].startswith("a convolution in")
    stage1, stage2 = content["readings"]["recipe"]
    assert stage1["peak"] > 0
    assert stage2["peak"] > 0
