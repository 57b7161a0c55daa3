"""`--compile on` with torch's own compiler, which makes machine code: minutes, in processes as users start them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from camoxpert_cli.checkpoints.format import read_checkpoint
from camoxpert_cli.engine import compiled_parts
from camoxpert_cli.engine.compiled_parts import CompiledParts
from tests.behaviour.engine.test_compiled_parts import BATCH, a_step, assert_alike, few, loss_and_gradients
from tests.helpers.cut_runs import CIRCUMSTANCES, differing, history
from tests.helpers.forked import RealPopen
from tests.helpers.places import ROOT
from tests.helpers.processes import camox, train_command
from tests.helpers.tiny_data import tiny_run

SECONDS = 1500
SETTINGS: dict[str, Any] = {"skip_stage1": True, "stage1_epochs": 0, "progressive_unfreeze": False, "save_every": "1"}


def run(command: list[str], environment: dict[str, str], until: Callable[[], bool] | None = None) -> tuple[int, str]:
    """Exit code and output; the process is killed once `until` holds."""
    process = RealPopen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    end = time.monotonic() + SECONDS
    try:
        while until is not None and not until():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.01)
        if until is not None:
            process.kill()
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    return process.returncode, output


def train(data: Path, folder: Path, **settings: Any) -> list[str]:
    return train_command(tiny_run(data, folder, **SETTINGS | settings))


@pytest.fixture(scope="module")
def eager(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eager") / "run"
    code, output = run(train(tiny_data, folder), {})
    assert code == 0, output
    return folder


def test_machine_code(tiny_data: Path, tmp_path: Path, eager: Path) -> None:
    """A killed and resumed run is bitwise identical to an uninterrupted one, whose losses are those of an eager run.

    Weights are not compared: where a gradient is about zero, AdamW makes a step of rounding.
    """
    whole, cut, cache = tmp_path / "whole", tmp_path / "cut", {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    code, output = run(train(tiny_data, whole, compile="on"), cache)
    assert code == 0, output
    assert output.count("Compiled backbone and decoder in ") == 1
    assert "Warning: the network" not in output

    losses = [[row["train_loss"] for row in history(folder)] for folder in (whole, eager)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    code, output = run(train(tiny_data, cut, compile="on"), cache, until=(cut / "last.pth").exists)
    assert code == -signal.SIGKILL, output
    code, output = run(camox("resume", str(cut)), cache)
    assert code == 0, output
    assert "The execution was" not in output
    assert differing(whole, cut) == []
    assert read_checkpoint(cut / "last.pth")["training"]["computed_with"]["execution"] == "compiled"


def test_machine_code_in_float64(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Losses and gradients are those of eager steps to 1e-9."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled_parts, "compiled_modules", few)
    step = a_step()
    parts = CompiledParts(step)

    assert parts.start(BATCH, 64, torch.device("cpu")) == ""
    assert_alike(loss_and_gradients(step), loss_and_gradients(a_step()))


def test_compiler_that_does_not_work(tiny_data: Path, tmp_path: Path, eager: Path) -> None:
    """It is found and fails: a sentence, no traceback, and the eager run to the last bit."""
    folder = tmp_path / "run"
    code, output = run(
        train(tiny_data, folder, compile="on"),
        {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
    )

    assert code == 0, output
    said = " ".join(output.split())
    assert said.count("Warning: the network cannot be compiled: ") == said.count("compiled") == 1
    assert "training continues without (see --compile)" in said
    assert "Traceback" not in said
    assert said.count("C++") == 1
    assert differing(eager, folder, {*CIRCUMSTANCES, "compile"}) == []
