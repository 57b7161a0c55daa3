"""A disk that is really full, or becomes read-only: a small one in memory, which only root can mount."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from camoxpert_cli.checkpoints.format import read_checkpoint
from tests.helpers.processes import camox, run, train_command
from tests.helpers.tiny_data import tiny_run

MIB = 2**20


def mounted(folder: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 MiB; the tiny run's checkpoints of about 17 MiB fit on it three times."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or not mounted(folder, "size=100m"):
        pytest.skip("mounting a small disk takes root on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def fill(disk: Path, leave: int) -> None:
    (disk / "filling").write_bytes(bytes(max(0, free(disk) - leave)))


SCRIPT = """
import os, sys
from pathlib import Path
from camoxpert_cli import app
from camoxpert_cli.engine import train as train_module

disk, close_epoch = Path({disk!r}), train_module.close_epoch

def closing(run, phase, scores):
    {before}
    close_epoch(run, phase, scores)

train_module.close_epoch = closing
sys.argv = ["camox", *{arguments!r}]
app.main()
"""


def train_while(disk: Path, data: Path, before: str, epochs: int = 4) -> tuple[int, str]:
    """Train on `disk`, doing `before` ahead of writing each epoch down (`run.state.progress.epoch` are complete)."""
    settings = tiny_run(data, disk / "run", epochs=epochs, stage1_epochs=epochs, save_every=None)
    arguments = train_command(settings)[3:]
    return run([camox()[0], "-c", SCRIPT.format(disk=str(disk), before=before, arguments=arguments)])


def test_full_for_a_while(tiny_data: Path, disk: Path) -> None:
    """Saves that fail leave nothing on the disk, so that when there is space again the next one succeeds."""
    before = (
        "import shutil; full = disk / 'filling'; "
        "full.write_bytes(bytes(shutil.disk_usage(disk).free - 3 * 2**20)) if run.state.progress.epoch == 1 else "
        "full.unlink() if run.state.progress.epoch == 3 else None"
    )
    code, output = train_while(disk, tiny_data, before)

    assert code == 0, output
    assert "training continues, and the next save tries again" in output
    assert read_checkpoint(disk / "run" / "last.pth")["epoch"] == 4
    assert len(json.loads((disk / "run" / "history.json").read_text())) == 4
    assert "Traceback" not in output


def test_previous_gives_its_space(tiny_data: Path, disk: Path) -> None:
    """Where only its space is missing, the checkpoint before the last is given up, and every epoch is saved."""
    before = (
        "import shutil; run.state.progress.epoch == 2 and "
        "(disk / 'filling').write_bytes(bytes(shutil.disk_usage(disk).free - 9 * 2**20))"
    )
    code, output = train_while(disk, tiny_data, before)

    assert code == 0, output
    assert "previous.pth was removed to make room" in output
    assert read_checkpoint(disk / "run" / "last.pth")["epoch"] == 4


def test_full_to_the_end(tiny_data: Path, disk: Path) -> None:
    """A run that could not save its last epochs says so at the end, with the last checkpoint that was written whole."""
    before = (
        "import shutil; run.state.progress.epoch == 1 and "
        "(disk / 'filling').write_bytes(bytes(shutil.disk_usage(disk).free))"
    )
    code, output = train_while(disk, tiny_data, before)
    lines = [line for line in output.splitlines() if line.startswith("Error")]

    assert code in (4, 6), output
    assert len(lines) == 1
    assert "Traceback" not in output
    assert read_checkpoint(disk / "run" / "last.pth")["epoch"] == 1


def test_full_from_the_beginning(tiny_data: Path, disk: Path) -> None:
    """Too little space for the checkpoints is told before the first step."""
    fill(disk, leave=20 * MIB)
    code, output = train_while(disk, tiny_data, "pass")

    assert code == 6, output
    assert "checkpoints of this network need" in output
    assert "Epoch 1/" not in output


def test_read_only_in_the_middle(tiny_data: Path, disk: Path) -> None:
    """A disk that becomes read-only ends with one sentence and the last checkpoint whole, not with a traceback."""
    before = (
        "import subprocess; run.state.progress.epoch == 1 and subprocess.run(['mount', '-o', 'remount,ro', str(disk)])"
    )
    code, output = train_while(disk, tiny_data, before)

    assert code in (4, 6), output
    assert "Traceback" not in output
    assert "Read-only file system" in output
    assert read_checkpoint(disk / "run" / "last.pth")["epoch"] == 1
    assert read_checkpoint(disk / "run" / "best_model.pth")["epoch"] == 1


def test_resume_from_a_read_only_disk(tiny_data: Path, disk: Path, tmp_path: Path) -> None:
    """A run on a read-only disk, such as a notebook's input, goes on in a new folder."""
    code, output = train_while(disk, tiny_data, "pass", epochs=1)
    assert code == 0, output
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, output = run(camox("resume", str(disk), "--epochs", "2", "--checkpoint-dir", str(tmp_path / "new")))
    missing, _ = run(camox("resume", str(disk), "--checkpoint-dir", str(disk / "other")))

    assert code == 0, output
    assert read_checkpoint(tmp_path / "new" / "last.pth")["epoch"] == 2
    assert missing == 2
