"""The trials themselves, on the CPU and, where there is one, on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from camoxpert_cli.doctor import selftests
from camoxpert_cli.doctor.readings import GpuTrial, TeamTrial
from camoxpert_cli.doctor.take_readings import read_ddp
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel import strategy
from camoxpert_cli.parallel.gradients import leave_idle_experts

TIMEOUT = 180


def test_a_device_that_works() -> None:
    """A kernel runs, and a convolution's gradients are those of the CPU."""
    assert selftests.try_device("cpu") == GpuTrial(0, dtype="float32")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounding_is_no_fault(dtype: torch.dtype) -> None:
    """What a dtype rounds stays well within what counts as wrong."""
    cpu = torch.device("cpu")

    assert selftests.largest_difference(selftests._step(cpu, dtype), selftests._step(cpu, None)) < 0.02


def test_a_device_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that are off by a quarter are told, and so are those that are not finite."""
    honest = selftests._step
    for factor, told in ((1.25, "25.0%"), (float("nan"), "inf%")):

        def step(
            device: torch.device, dtype: torch.dtype | None, factor: float = factor, calls: list[int] | None = None
        ) -> list[Tensor]:
            wrong = not step.called  # type: ignore[attr-defined]
            step.called = True  # type: ignore[attr-defined]
            return [each * (factor if wrong else 1.0) for each in honest(device, dtype)]

        step.called = False  # type: ignore[attr-defined]
        monkeypatch.setattr(selftests, "_step", step)
        assert selftests.try_device("cpu").convolution == f"its gradients differ from the CPU's by {told}"


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_one_value_that_is_not_finite(wrong: float) -> None:
    """It counts wherever it stands, also behind tensors that are right."""
    expected = [torch.ones(2), torch.ones(3)]

    assert selftests.largest_difference([torch.ones(2), torch.tensor([1.0, wrong, 1.0])], expected) == float("inf")


def test_a_device_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line of CUDA's error is what the trial says."""

    def ones(*_: object, **__: object) -> Tensor:
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "ones", ones)

    assert selftests.try_device("cpu").kernel == "CUDA error: no kernel image is available"


def test_a_strategy_that_trains_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is training's own: what breaks it is found. On the CPU, DataParallel calls the network itself."""
    devices = ["cpu", "cpu"]
    monkeypatch.setitem(selftests.SETTINGS, "model.num_experts", "3")
    assert selftests.try_data_parallel(devices).difference == 0

    def double(network: CamoXpert, chosen: Tensor) -> None:
        leave_idle_experts(network, chosen)
        for parameter in network.decoder_blocks.parameters():
            assert parameter.grad is not None
            parameter.grad *= 2

    monkeypatch.setattr(strategy, "leave_idle_experts", double)
    with pytest.raises(RuntimeError, match="its gradients differ from a single device's by"):
        selftests.try_data_parallel(devices)

    def give_zeros(network: CamoXpert, chosen: Tensor) -> None:
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

    monkeypatch.setattr(strategy, "leave_idle_experts", give_zeros)
    with pytest.raises(RuntimeError, match="it updates different weights than a single device"):
        selftests.try_data_parallel(devices)


def test_ddp() -> None:
    """Two processes on the CPU agree with one, and time their all_reduce."""
    trial = read_ddp(["cpu", "cpu"], TIMEOUT)

    assert isinstance(trial, TeamTrial)
    assert trial.difference < 1e-3  # of the largest gradient; measured 3e-5 in float32
    assert trial.bandwidth is not None
    assert trial.bandwidth > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_one_gpu() -> None:
    """A card that works computes in its own dtype; DataParallel runs on one card taken twice."""
    trial = selftests.try_device("cuda:0")

    assert (trial.kernel, trial.convolution) == ("", "")
    assert trial.free > 0
    assert selftests.try_data_parallel(["cuda:0", "cuda:0"]).difference < 0.05
