from __future__ import annotations

import pytest
import torch

from camoxpert_cli.errors import DeviceError
from camoxpert_cli.parallel.precision import build_scaler, choose_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
T4, P100, A100 = (7, 5), (6, 0), (8, 0)


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str = "Tesla T4") -> None:
    """A GPU of this compute capability; as on a real T4, torch says that it supports bfloat16, by emulation."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


@pytest.mark.parametrize(
    ("capability", "precision", "expected"),
    [
        (T4, "auto", torch.float16),
        (P100, "auto", torch.float16),
        (A100, "auto", torch.bfloat16),
        ((9, 0), "auto", torch.bfloat16),
        ((12, 0), "auto", torch.bfloat16),
        (T4, "fp16", torch.float16),
        (A100, "fp16", torch.float16),
        (A100, "bf16", torch.bfloat16),
        (T4, "fp32", None),
        (A100, "fp32", None),
    ],
)
def test_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str, expected: torch.dtype | None
) -> None:
    """`auto` takes bfloat16 where the GPU computes in it, float16 on older ones; otherwise the choice is kept."""
    pretend(monkeypatch, capability)

    assert choose_dtype(precision, GPU) == expected


@pytest.mark.parametrize("capability", [T4, P100])
def test_emulated_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    """A GPU that only emulates bfloat16 is refused by its name, with exit code 5."""
    pretend(monkeypatch, capability, "Tesla of old")
    with pytest.raises(DeviceError, match="bf16 is not native on Tesla of old") as caught:
        choose_dtype("bf16", GPU, of_run=True)

    assert caught.value.exit_code == 5
    assert caught.value.hint == "--precision auto, or with camox resume --set train.precision=auto"


@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_cpu_computes_in_float32(precision: str) -> None:
    """On the CPU `auto` is float32."""
    assert choose_dtype(precision, CPU) is None


@pytest.mark.parametrize(("precision", "instead"), [("fp16", "fp32"), ("bf16", "auto")])
def test_cpu_refuses_half_precision(precision: str, instead: str) -> None:
    """Half precision asked for on the CPU is an error with exit code 5, not float32 without a word.

    Predictions are not resumed.
    """
    with pytest.raises(DeviceError, match=f"precision {precision} .* the CPU") as caught:
        choose_dtype(precision, CPU)

    assert caught.value.exit_code == 5
    assert caught.value.hint == f"--precision {instead}"


@pytest.mark.parametrize(("dtype", "scales"), [(torch.float16, True), (torch.bfloat16, False), (None, False)])
def test_scaler(dtype: torch.dtype | None, scales: bool) -> None:
    """Gradients are scaled in float16 alone: the other formats have float32's range."""
    assert build_scaler(dtype, CPU).is_enabled() == scales
