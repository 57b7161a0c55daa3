"""Choose the dtype of the network, and the gradient scaling that float16 needs."""

from __future__ import annotations

import torch
from torch.amp.grad_scaler import GradScaler

from camoxpert_cli.errors import DeviceError


def choose_dtype(precision: str, device: torch.device, *, of_run: bool = False) -> torch.dtype | None:
    """Return autocast's dtype, None for float32. Raises DeviceError for one without native support on the device.

    Its hint also says what to type when resuming if the dtype is that of a training run.
    """
    native_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    if precision == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if native_bf16 else torch.float16
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError(
            "precision fp16 needs a GPU, but this run is on the CPU",
            _hint("fp32", of_run),
        )
    if precision == "bf16" and not native_bf16:
        where = "the CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
        raise DeviceError(
            f"precision bf16 is not native on {where}",
            _hint("auto", of_run),
        )
    return {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def _hint(precision: str, of_run: bool) -> str:
    resumed = f", or with camox resume --set train.precision={precision}"
    return f"--precision {precision}{resumed if of_run else ''}"


def build_scaler(dtype: torch.dtype | None, device: torch.device) -> GradScaler:
    """Create a scaler that keeps small float16 gradients from underflowing; a no-op for other dtypes."""
    return GradScaler(device.type, enabled=dtype is torch.float16)
