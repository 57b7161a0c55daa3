"""`camox benchmark` with real trials of one and two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.tiny_data import TRAINING_IMAGES
from tests.unit.commands.test_benchmark import SMALL, run


def test_processes(tiny_data: Path, tmp_path: Path) -> None:
    """One and two processes over given data: JSON alone on stdout, sentences beside it, a page of Markdown."""
    out = tmp_path / "speed.md"
    outcome = run(
        *SMALL.split(),
        *("--gpus", "1,2", "--steps", 1, "--repeats", 2, "--dataset-path", tiny_data),
        *("--val-fraction", 0.25, "--out", out, "--json"),
    )

    assert outcome.exit_code == 0, outcome.output
    content = json.loads(outcome.stdout)
    assert set(content) == {"machine", "results"}
    assert content["machine"]["device"] == "CPU"
    assert content["machine"]["threads_per_process"] == 1
    assert [(each["gpus"], each["strategy"], each["stage"]) for each in content["results"]] == [
        (1, "single", 2),
        (2, "ddp", 2),
    ]
    for each in content["results"]:
        assert set(each) == {
            *("gpus", "strategy", "stage", "images_per_s", "minutes_per_epoch"),
            *("speedup", "efficiency", "data_wait", "peak_memory_mib"),
        }
        training = TRAINING_IMAGES - 3
        assert each["minutes_per_epoch"] == pytest.approx(training / each["images_per_s"] / 60, rel=0.02, abs=1e-4)
        assert each["efficiency"] == pytest.approx(each["speedup"] / each["gpus"], abs=1e-4)
    assert "2 processes with ddp are" in outcome.stderr
    page = out.read_text()
    assert page.startswith("# camox benchmark\n")
    assert page.count("| ddp, 2 processes") == 3


def test_nothing_works(tiny_data: Path) -> None:
    """Where no configuration can be measured the command ends with the reason and its exit code."""
    outcome = run(*SMALL.split(), "--dataset-path", tiny_data, "--precision", "fp16")

    assert outcome.exit_code == 5
    assert "Error: nothing could be measured: precision fp16 needs a GPU" in outcome.stderr
    assert outcome.stdout == ""
