"""Runs of several processes, started by camox and by torchrun."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

from tests.helpers.cut_runs import steps
from tests.helpers.processes import run, train_command
from tests.helpers.tiny_data import tiny_run

# 8 images in steps of 4, of stage 2 alone.
SHORT: dict[str, Any] = {"epochs": 1, "stage1_epochs": 0}


def test_two_processes(tiny_data: Path, tmp_path: Path) -> None:
    """Rank 0 alone writes the run's files; the log of the other lies beside them."""
    folder = tmp_path / "run"
    code, output = run(train_command(tiny_run(tiny_data, folder, **SHORT, stage2_batch_size=2, gpus=2)))

    assert code == 0, output
    assert steps(folder) == [(1, 4), (1, 8)]
    assert json.loads((folder / "results.json").read_text())["epoch"] == 1
    assert output.count("Epoch 1/1") == 1
    assert "Epoch 1/1" in (folder / "logs" / "rank1.log").read_text()
    assert json.loads((folder / "env.json").read_text())["command"][1] == "train"  # what the user typed


def test_torchrun(tiny_data: Path, tmp_path: Path) -> None:
    """What torchrun starts trains, and ends as a run of one process does."""
    folder = tmp_path / "run"
    launcher = "-m torch.distributed.run --standalone --nproc-per-node=1 --local-addr=127.0.0.1".split()
    command = train_command(tiny_run(tiny_data, folder, **SHORT, stage2_batch_size=4))
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))  # lo0 on macOS
    code, output = run([sys.executable, *launcher, *command[1:]], GLOO_SOCKET_IFNAME=loopback)

    assert code == 0, output
    assert steps(folder) == [(1, 4), (1, 8)]
    assert json.loads((folder / "results.json").read_text())["epoch"] == 1
    assert "Best weights" in output
