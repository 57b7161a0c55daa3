"""Processes of which a scheduler shows each only one GPU, as CUDA_VISIBLE_DEVICES does."""

from __future__ import annotations

import sys
from pathlib import Path

from camoxpert_cli.run_folder import RunFolder
from tests.helpers.at_start import at_start
from tests.helpers.gpus_on_cpu import ONE_VISIBLE_GPU
from tests.helpers.processes import camox, run, train_command
from tests.helpers.tiny_data import tiny_run

TORCHRUN = "-m torch.distributed.run --standalone --nproc-per-node=2 --local-addr=127.0.0.1".split()


def together(command: list[str], folder: Path, gpu_of_rank: str) -> tuple[int, str]:
    """Run the command in two processes on `gpu_of_rank`."""
    environment = {**at_start(folder / "site", ONE_VISIBLE_GPU), "GPU_OF_RANK": gpu_of_rank, "GLOO_SOCKET_IFNAME": "lo"}
    return run([sys.executable, *TORCHRUN, *command[1:]], **environment)


def train(data: Path, folder: Path) -> list[str]:
    """An epoch: 8 images in steps of 4."""
    return train_command(tiny_run(data, folder, device="auto", batch_size=2, epochs=1, num_experts=1))


def test_one_gpu_for_both(tiny_data: Path, tmp_path: Path) -> None:
    """It is told before anything is written, and not left to NCCL."""
    code, output = together(train(tiny_data, tmp_path / "run"), tmp_path, "00")

    assert code == 1, output
    assert "Error: ranks 0 and 1 share one GPU of " in output
    assert "Slurm: --gpus-per-task=1" in output
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_one_gpu_for_both_in_an_evaluation(tiny_data: Path, plain_run: RunFolder, tmp_path: Path) -> None:
    """It is told before an image is scored."""
    command = camox("eval", str(plain_run.path / "best_model.pth"), "--dataset-path", str(tiny_data))
    code, output = together(command, tmp_path, "00")

    assert code == 1, output
    assert "Error: ranks 0 and 1 share one GPU of " in output
