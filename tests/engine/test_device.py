from __future__ import annotations

import pytest
import torch

from camoxpert_cli.engine.device import choose_device
from camoxpert_cli.errors import DeviceError


@pytest.fixture(params=[0, 1, 2])
def gpus_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine with none, one or two GPUs."""
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return count


def test_auto(gpus_here: int) -> None:
    """Without a word about it the run takes the first GPU, or the CPU where there is none."""
    expected = torch.device("cuda", 0) if gpus_here else torch.device("cpu")

    assert choose_device("auto", None) == expected


def test_cpu(gpus_here: int) -> None:
    """The CPU can be had on every machine."""
    assert choose_device("cpu", None) == torch.device("cpu")


def test_cuda(gpus_here: int) -> None:
    """Asked for by name, a GPU is taken or missed; the CPU never takes its place."""
    if gpus_here:
        assert choose_device("cuda", None) == torch.device("cuda", 0)
    else:
        with pytest.raises(DeviceError, match="no GPU"):
            choose_device("cuda", None)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_one_gpu(gpus_here: int, device: str) -> None:
    """One GPU asked for is one GPU, or an error."""
    if gpus_here:
        assert choose_device(device, 1) == torch.device("cuda", 0)
    else:
        with pytest.raises(DeviceError, match="1 GPU was asked for, and this machine has none"):
            choose_device(device, 1)


@pytest.mark.parametrize(
    ("device", "gpus", "available", "message"),
    [
        ("cpu", 1, 2, "device cpu and gpus 1 were asked for together, by flags or by the preset"),
        ("auto", 2, 0, "2 GPUs were asked for, and this machine has none"),
        ("auto", 2, 1, "2 GPUs were asked for, and this machine has 1"),
        ("cuda", 8, 2, "8 GPUs were asked for, and this machine has 2"),
        ("auto", 2, 2, "2 GPUs were asked for, and this version trains on one"),
        ("cuda", None, 0, "--device cuda was asked for, and this machine has no GPU"),
    ],
)
def test_refusals(monkeypatch: pytest.MonkeyPatch, device: str, gpus: int | None, available: int, message: str) -> None:
    """What cannot be had ends with exit code 5, what was asked for and what to type; nothing else is taken instead."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    with pytest.raises(DeviceError) as caught:
        choose_device(device, gpus)

    assert caught.value.exit_code == 5
    assert caught.value.message == message
    assert caught.value.hint
