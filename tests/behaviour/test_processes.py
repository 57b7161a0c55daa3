"""Runs of several processes from the command line: one of them dies, and the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.cut_runs import SETTINGS, differing, steps
from tests.helpers.processes import run, train_command
from tests.helpers.sabotage import kill, sabotage
from tests.helpers.tiny_data import tiny_run


def train(data: Path, folder: Path, **more: Any) -> list[str]:
    """An epoch of stage 1, two phases of stage 2; 8 images in steps of 2 ranks x 1 image x 2 batches."""
    chosen = {**SETTINGS, "epochs": 3, "stage1_epochs": 1, "batch_size": 1, "stage2_batch_size": 1, "gpus": 2, **more}
    return train_command(tiny_run(data, folder, **chosen))


def the_message(output: str) -> str:
    """The one message that `output` must hold, without torch's."""
    assert "Traceback" not in output
    assert output.count("\nError: ") + output.startswith("Error: ") == 1, output
    return output[output.index("Error: ") :]


def test_a_worker_that_is_killed(tiny_data: Path, tmp_path: Path) -> None:
    """It is named with its log, all start again from the last checkpoint, and no step is made twice or left out.

    They end with the bits of a run in which nobody was killed.
    """
    folder, uncut = tmp_path / "run", tmp_path / "uncut"
    settings = {"epochs": 1, "warmup_epochs": 0, "num_experts": 1, "max_restarts": 1}
    command = train(tiny_data, folder, **settings)
    code, output = run(command, **sabotage(tmp_path / "site", 1, 1, kill("self", "SIGKILL")))

    assert code == 0, output
    assert f"rank 1 was killed by SIGKILL; its log is {folder}/logs/rank1.log" in the_message(output)
    assert "restart 1 of 1" in output
    assert "0 epochs are complete, 4 pictures into the next" in output
    assert steps(folder) == [(1, 4), (1, 8)]
    assert (folder / "results.json").exists()
    # Rank 0 alone writes the run's files.
    assert "Epoch 1/1" in (folder / "logs" / "rank1.log").read_text()

    code, output = run(train(tiny_data, uncut, **settings))
    assert code == 0, output
    assert differing(folder, uncut) == []
