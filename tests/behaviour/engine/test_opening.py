from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from camoxpert_cli.engine.opening import announce
from camoxpert_cli.engine.run import prepare
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.parallel.strategy import Dp
from tests.helpers.gpus_on_cpu import place_on_gpus
from tests.helpers.tiny_data import tiny_plan


def test_the_banner(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that a run is about to do, a line each, within 80 columns but for the folder's name."""
    settings = {"accumulation_steps": 2, "target_iou": 0.72, "tensorboard": True, "patience": 1}
    run = prepare(tiny_plan(tiny_data, tmp_path / "run", **settings))[0]
    run.clock.stopping.deadline = Deadline(time.monotonic() + 7200.4, "the time limit of 3h")
    capsys.readouterr()
    announce(run)
    lines = capsys.readouterr().err.splitlines()
    rows = {line[:12].strip(): line[12:] for line in lines if line[:12].strip()}

    assert rows["Run folder"] == str(tmp_path / "run")
    assert re.match("CPU, [0-9]+ threads?, float32, torch ", rows["Devices"])
    assert rows["Strategy"] == "single: one process"
    assert rows["Network"] == "test_resnet, 2 experts per MoE layer, top-2 routing"
    assert rows["Images"] == "8 for training, 3 held out for validation"
    assert rows["Test sets"] == "TINY 3"
    assert rows["Stage 1"] == "epoch 1, learning rate 0.001, global batch size 8"
    assert "            = 4 per process x 1 process x 2 accumulation steps" in lines
    assert rows["Target"] == "validation IoU 0.72"
    assert rows["Patience"] == "1 epoch, counted from epoch 2"
    assert rows["Time limit"] == "2h remaining of the time limit of 3h"
    assert rows["TensorBoard"] == f"tensorboard --logdir {tmp_path / 'run'}"
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_synchronised_batch_norm(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it was asked for, one process with a GPU says that it has nothing to synchronise."""
    place_on_gpus(monkeypatch, 1)
    run = prepare(tiny_plan(tiny_data, tmp_path / "run", sync_batchnorm=True))[0]
    announce(run)

    assert "BatchNorm   nothing to synchronize: one process\n" in capsys.readouterr().err


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and memory of cards that are not there."""
    total = type("Properties", (), {"total_memory": int(14.7 * 2**30)})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: total)


@pytest.mark.usefixtures("two_gpus")
def test_the_banner_names_the_gpus(tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cards are counted by kind, with their memory; a batch is told per GPU."""
    run = prepare(tiny_plan(tiny_data, tmp_path / "run"))[0]
    run.config = replace(run.config, run=replace(run.config.run, gpus=2))
    devices = (torch.device("cuda", 0), torch.device("cuda", 1))
    run.placement = replace(run.placement, strategy="dp", devices=devices, count=2)
    # Without moving the network to cards that are not there.
    run.strategy = Dp.__new__(Dp)
    run.strategy.devices = devices
    capsys.readouterr()
    announce(run)
    lines = capsys.readouterr().err.splitlines()

    assert "Devices     2 GPUs: Tesla T4, 14.7 GiB" in lines
    assert "Strategy    dp: DataParallel, one process for all GPUs" in lines
    assert "            = 4 per GPU x 2 GPUs x 1 accumulation step" in lines
