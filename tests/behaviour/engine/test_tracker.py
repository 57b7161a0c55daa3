"""`--tracker wandb` with the wandb package itself, which writes to the run folder only."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.run_folder import RunFolder
from tests.helpers.processes import camox, run, train_command
from tests.helpers.run_files import events, read_json
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import TEST_SET, tiny_run
from tests.helpers.wandb_files import sessions

pytest.importorskip("wandb", exc_type=ImportError)

# Batches of 4 images, on one process or two.
SETTINGS: dict[int, dict[str, Any]] = {
    1: {"tracker": "wandb", "batch_size": 4, "stage2_batch_size": 4},
    2: {"tracker": "wandb", "gpus": 2, "batch_size": 2, "stage2_batch_size": 2},
}

# The process has no loader workers.
_KILL_CHILDREN = (
    "import glob; [os.kill(int(each), signal.SIGKILL) for task in glob.glob('/proc/self/task/*/children') "
    "for each in open(task).read().split()]"
)


def quiet(folder: Path) -> dict[str, str]:
    """An environment in which wandb uses neither the network nor the user's own files."""
    return {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "HOME": str(folder / "home")}


def test_a_resumed_run_is_one_run(tiny_data: Path, tmp_path: Path) -> None:
    """Both sessions log to the same run, each step once; it ends with the settings and all results.

    A signal ends the first one cleanly in its second epoch.
    """
    track_resumed(tiny_data, tmp_path, 1)


def track_resumed(data: Path, tmp_path: Path, processes: int) -> None:
    folder = tmp_path / "run"
    command = train_command(tiny_run(data, folder, **SETTINGS[processes]))
    site = sabotage(tmp_path / "site", 0, 3, kill("self", "SIGTERM"))
    code, cut = run(command, **({"RANK": "0"} if processes == 1 else {}), **quiet(tmp_path), **site)
    resumed_code, resumed = run(camox("resume", str(folder)), **quiet(tmp_path))
    first, second = sessions(folder)
    steps, epochs = events(RunFolder(folder), "step"), events(RunFolder(folder), "epoch")
    rows = [*first.rows, *second.rows]
    results = read_json(folder / "results.json")

    assert (code, resumed_code) == (128 + signal.SIGTERM, 0), cut + resumed
    assert f"Tracker     offline; to upload it: wandb sync {folder}/wandb/offline-run-*\n" in cut
    assert "stopped by SIGTERM in epoch 2 of 2" in cut
    assert "wandb:" not in cut + resumed
    assert first.run_id == second.run_id != ""
    assert (first.exit_code, second.exit_code) == (1, 0)
    # 8 images; an epoch's end is a place of its own.
    assert [step for step, _ in rows] == [4, 8, 9, 13, 17, 18]
    assert [row["step/total"] for _, row in rows if "step/total" in row] == [row["total"] for row in steps]
    assert [row["epoch/iou"] for _, row in rows if "epoch/iou" in row] == [row["iou"] for row in epochs]
    assert second.config["train"]["epochs"] == 2
    assert second.summary["validation/iou"] == results["validation"]["iou"]
    assert second.summary[f"tests/{TEST_SET}/mae"] == results["tests"][TEST_SET]["mae"]


def test_its_process_is_lost(tiny_data: Path, tmp_path: Path) -> None:
    """If wandb's own process is killed, the run says so once, and ends as usual."""
    folder = tmp_path / "run"
    command = train_command(tiny_run(tiny_data, folder, tracker="wandb"))
    site = sabotage(tmp_path / "site", 0, 2, _KILL_CHILDREN)
    code, output = run(command, RANK="0", **quiet(tmp_path), **site)

    assert code == 0, output
    assert (folder / "results.json").exists()
    assert output.count("Warning: wandb failed") == 1
    assert "Traceback" not in output
