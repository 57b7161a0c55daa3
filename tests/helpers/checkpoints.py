"""Contents of checkpoints, as camox and the original program write them, of a small network or of a stub of one."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from camoxpert_cli import __version__
from camoxpert_cli.checkpoints.format import FORMAT, VERSION, write_verified
from camoxpert_cli.checkpoints.load import load_model
from camoxpert_cli.errors import CheckpointError
from tests.helpers.networks import stir


class Stub(nn.Module):
    """Seven tensors under names as CamoXpert has them, running statistics among them.

    Enough for whatever reads, writes and renames; building and loading a real network takes a tenth of a second.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.BatchNorm2d(2)
        self.moe_layers = nn.ModuleList([nn.Linear(2, 3)])
        stir(self)


def content_of(network: nn.Module) -> dict[str, Any]:
    """A checkpoint of camox, three epochs old, whose average is the network with every number doubled."""
    state = network.state_dict()
    ema = {name: 2 * value for name, value in state.items()}
    return {"backbone": "test_resnet", "num_experts": 2, "network": state, "ema": ema, "epoch": 3}


def stub_content() -> dict[str, Any]:
    """The same of a stub."""
    return content_of(Stub())


def original(content: dict[str, Any], network: nn.Module, prefix: str = "") -> dict[str, Any]:
    """The same as the original program would have saved it."""
    return {
        "epoch": 2,
        "model_state_dict": OrderedDict((prefix + name, value) for name, value in content["network"].items()),
        "ema_state_dict": {name: content["ema"][name] for name, _ in network.named_parameters()},
        "best_iou": np.float64(0.25),
        "args": {"backbone": "test_resnet", "num_experts": 2, "lr": 0.01},
    }


def exported_metadata(num_experts: int, weights: str = "ema") -> dict[str, str]:
    """What an exported file says of a small network that was trained at 64 pixels, from best_model.pth."""
    return {
        "backbone": "test_resnet",
        "num_experts": str(num_experts),
        "img_size": "64",
        "mean": json.dumps([0.5, 0.5, 0.5]),
        "std": json.dumps([0.5, 0.5, 0.5]),
        "threshold": "0.5",
        "weights": weights,
        "source": "best_model.pth",
        "camox": __version__,
    }


def write_content(path: Path, content: Mapping[str, Any]) -> None:
    """As camox writes a checkpoint, with any content."""
    write_verified(path, {"format": FORMAT, "version": VERSION, **content})


def save(content: Any, folder: Path) -> Path:
    """By torch alone: without format and version."""
    torch.save(content, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


def flip_a_byte(path: Path) -> None:
    """In the middle of the file, where a large tensor is."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def refusal(path: Path) -> CheckpointError:
    """Why a file is not loaded; `load_model` and `read_checkpoint` give the same reason."""
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value
