"""Which of a run's checkpoints is taken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from camoxpert_cli.checkpoints.newest import find_checkpoint
from camoxpert_cli.errors import CheckpointError
from tests.helpers.checkpoints import write_content

NAMES = ("last.pth", "previous.pth", "best_model.pth")


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """With all three checkpoints, of a network that is all but nothing."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in NAMES:
        write_content(folder / name, {"network": {"moe_layers.0.weight": torch.ones(4096)}, "epoch": 1})
    return folder


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_newest_first(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """last.pth is taken where it is whole, and then nothing is said."""
    assert find_checkpoint(run_folder).path == run_folder / "last.pth"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("broken", "taken"), [(1, "previous.pth"), (2, "best_model.pth")])
def test_damaged_ones_are_passed_over(
    run_folder: Path, broken: int, taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged checkpoint is named, and the one before it taken."""
    for name in NAMES[:broken]:
        flip(run_folder / name)
    checkpoint = find_checkpoint(run_folder)
    said = capsys.readouterr().err

    assert checkpoint.path == run_folder / taken
    assert all(f"{run_folder / name} is damaged" in said for name in NAMES[:broken])


def test_a_damaged_file_given_by_name(run_folder: Path) -> None:
    """Asked for one file, camox does not take another one unasked, but says how."""
    flip(run_folder / "last.pth")
    with pytest.raises(CheckpointError, match="is damaged") as caught:
        find_checkpoint(run_folder / "last.pth")

    assert f"camox resume {run_folder} takes the newest" in caught.value.hint


def test_runs_below(run_folder: Path, tmp_path: Path) -> None:
    """A notebook's input holds a run somewhere below: a single one is found, several are listed."""
    found = find_checkpoint(tmp_path)
    shutil.copytree(run_folder, tmp_path / "other" / "run2")
    with pytest.raises(CheckpointError, match="holds 2 runs") as caught:
        find_checkpoint(tmp_path)

    assert found.path == run_folder / "last.pth"
    assert "camox resume" in caught.value.hint
