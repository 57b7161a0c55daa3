"""Curves as TensorBoard itself reads them."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camoxpert_cli.app import app
from camoxpert_cli.engine import tensorboard as curves_module
from camoxpert_cli.engine.tensorboard import Curves
from camoxpert_cli.run_folder import RunFolder
from tests.behaviour.engine.conftest import OtherRun
from tests.helpers.run_files import events

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve under its name: images seen, and the value."""
    reader = accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {name: [(each.step, each.value) for each in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def values(rows: list[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows]


@pytest.fixture
def drawn(other_run: OtherRun) -> RunFolder:
    """A finished run of two epochs with curves, saved after every step. Read it, but change nothing in it."""
    return other_run.folder


def test_what_is_drawn(drawn: RunFolder) -> None:
    """Steps and epochs are those of metrics.jsonl, over the images seen and the epochs closed."""
    found = curves(drawn.path / "tensorboard")
    steps, epochs = events(drawn, "step"), events(drawn, "epoch")

    # 8 images in batches of 4, then of 3; an epoch's end is a place of its own.
    assert [at for at, _ in found["step/total"]] == [4, 8, 12, 15, 17]
    assert [value for _, value in found["step/total"]] == pytest.approx(values(steps, "total"), rel=1e-6)
    assert [at for at, _ in found["group_lr/backbone"]] == [12, 15, 17]
    assert [at for at, _ in found["epoch/iou"]] == [9, 18]
    assert [value for _, value in found["epoch/iou"]] == pytest.approx(values(epochs, "iou"), rel=1e-6)
    assert [value for _, value in found["expert_use/1/2"]] == [1.0, 1.0]
    assert {"epoch/images_per_s", "routing_entropy/4", "dead_experts/1", "step/gradient_norm"} <= set(found)


def test_a_resumed_run_draws_one_line(drawn: RunFolder, tmp_path: Path) -> None:
    """What the cut session had drawn behind the last save gives way to what is done again: no step is there twice."""
    shutil.copytree(drawn.path, tmp_path / "run")
    (tmp_path / "run" / "previous.pth").replace(tmp_path / "run" / "last.pth")  # the last step, and epoch 2, are undone
    outcome = CliRunner().invoke(app, ["resume", str(tmp_path / "run")])
    before, after = (curves(folder / "tensorboard") for folder in (drawn.path, tmp_path / "run"))
    timing = {"epoch/seconds", "epoch/data_wait", "epoch/images_per_s", "epoch/memory_bytes"}

    assert outcome.exit_code == 0, outcome.output
    assert {name: line for name, line in after.items() if name not in timing} == {
        name: line for name, line in before.items() if name not in timing
    }
    assert all([at for at, _ in after[name]] == [at for at, _ in before[name]] for name in timing)


def test_off_unless_asked(plain_run: RunFolder) -> None:
    """Without the flag there is no such folder."""
    assert not (plain_run.path / "tensorboard").exists()


def test_missing_package(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is missing, that and the command to install it is said before anything is written."""
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "tensorboard" or name == "torch.utils.tensorboard":
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    flags = ["--dataset-path", str(tiny_data), "--tensorboard", "--device", "cpu"]
    outcome = CliRunner().invoke(app, ["train", *flags, "--checkpoint-dir", str(tmp_path / "run")])

    assert outcome.exit_code == 2
    assert outcome.stderr == (
        "Error: --tensorboard requires the tensorboard package: No module named 'tensorboard'\n"
        "Try:   python -m pip install tensorboard\n"
    )
    assert not (tmp_path / "run").exists()


class _FullDisk:
    """A writer whose first line finds no room."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.lines = 0

    def add_scalar(self, *arguments: Any) -> None:
        self.lines += 1
        raise OSError(28, "No space left on device")


def test_a_full_disk_costs_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Curves that cannot be written are given up with one warning; training goes on."""
    monkeypatch.setattr(curves_module, "summary_writer", lambda: _FullDisk)
    drawing = Curves(tmp_path, 0)
    for at in range(3):
        drawing.write("step", {"total": 1.0}, at)
    drawing.close()

    assert capsys.readouterr().err.count("No space left on device; training continues without it") == 1
