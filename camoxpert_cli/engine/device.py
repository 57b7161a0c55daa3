"""Where a run takes place."""

from __future__ import annotations

import torch

from camoxpert_cli.errors import DeviceError


def choose_device(device: str, gpus: int | None) -> torch.device:
    """The device asked for; `auto` takes a GPU where there is one.

    Raises DeviceError where CUDA or that many GPUs are not there, or where more than one is asked for.
    """
    available = torch.cuda.device_count()
    if device == "cpu":
        if gpus is not None:
            raise DeviceError(
                f"device cpu and gpus {gpus} were asked for together, by flags or by the preset",
                "--device auto, or --set run.gpus=null",
            )
        return torch.device("cpu")
    if gpus is not None and gpus > available:
        raise DeviceError(
            f"{gpus} GPU{'s were' if gpus > 1 else ' was'} asked for, and this machine has {available or 'none'}",
            "--preset kaggle-1xT4, or --gpus 1"
            if available
            else "on Kaggle, choose a GPU as accelerator; camox train --preset quickstart runs without one",
        )
    if gpus is not None and gpus > 1:
        raise DeviceError(f"{gpus} GPUs were asked for, and this version trains on one", "--gpus 1")
    if available:
        return torch.device("cuda", 0)
    if device == "cuda":
        raise DeviceError("--device cuda was asked for, and this machine has no GPU", "--device cpu")
    return torch.device("cpu")
