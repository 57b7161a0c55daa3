"""What --deterministic switches on, and that the network then has nothing that torch would refuse on a GPU."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from camoxpert_cli.engine.step import TrainingStep
from camoxpert_cli.model.backbone import create_backbone
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.moe import MixtureOfExperts
from camoxpert_cli.model.routes import Route, Routing
from camoxpert_cli.parallel.determinism import deterministic

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# The operations that torch refuses on CUDA (the docstring of torch.use_deterministic_algorithms), by the names of their
# forward passes.
REFUSED = (
    *("avg_pool3d", "adaptive_avg_pool", "adaptive_max_pool", "fractional_max_pool", "max_unpool", "upsample"),
    *("reflection_pad", "nll_loss", "ctc_loss", "embedding_bag", "put_", "histc", "bincount", "median", "grid_sample"),
    *("scatter_reduce", "resize_"),
)


@pytest.mark.parametrize(
    ("before", "inside"),
    [(None, ":4096:8"), (":16:8", ":16:8"), (":0:0", ":4096:8")],
    ids=["unset", "kept", "replaced"],
)
def test_inside_and_afterwards(before: str | None, inside: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithms and cuBLAS's workspace are deterministic inside, also for processes; then all is as it was."""
    monkeypatch.delenv(WORKSPACE, raising=False)
    if before is not None:
        monkeypatch.setenv(WORKSPACE, before)
    with suppress(ZeroDivisionError), deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ[WORKSPACE] == inside
        raise ZeroDivisionError

    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get(WORKSPACE) == before
    torch.set_deterministic_debug_mode("warn")
    with deterministic(True):
        assert torch.get_deterministic_debug_mode() == 2
    assert torch.get_deterministic_debug_mode() == 1
    torch.set_deterministic_debug_mode("default")
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert os.environ.get(WORKSPACE) == before


def operations_on_a_gpu(backbone: str, experts: int) -> set[str]:
    """Names of the operations in a forward pass with losses on a GPU that is not there; see `all_experts`.

    Images are not a multiple of 32 pixels, so that some feature maps are not resized by two.
    """
    network = CamoXpert(create_backbone(backbone), backbone, experts)
    step = TrainingStep(network, deep_supervision=True, autocast_dtype=None)
    found: set[str] = set()

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if torch.is_grad_enabled():  # not within an autograd function, which has its own gradient
                found.add(str(func))
            return func(*args, **(kwargs or {}))

    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True):
        warnings.filterwarnings("ignore", message="CUDA is not available")
        for module in step.train().modules():
            for name, value in [*module._parameters.items()]:
                if value is not None:
                    module._parameters[name] = nn.Parameter(torch.empty(value.shape, device="cuda"))
            for name, buffer in [*module._buffers.items()]:
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")
        images = torch.zeros(2, 3, 72, 72, dtype=torch.uint8, device="cuda")
        with Recorder():  # type: ignore[no-untyped-call]
            step(images, images[:, :1])
    return found


def all_experts(layer: MixtureOfExperts, x: Tensor, route: Route) -> tuple[Tensor, Routing]:
    """In place of a mixture's forward pass, which reads from the device how many images each expert gets.

    All experts of the layer with the fewest channels work; those of others have the same operations.
    """
    experts = list(layer.experts) if x.shape[-1] == 18 else []
    mixed = torch.stack([x, *(expert(x) for expert in experts)]).mean(dim=0)
    return mixed, route.routing


def test_the_network_has_a_deterministic_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in backbone, experts, decoder and losses is refused on a GPU; without the flag, resizing would be."""
    monkeypatch.setattr(MixtureOfExperts, "forward", all_experts)
    usual = operations_on_a_gpu("test_resnet", 2)
    with deterministic(True):
        strict = operations_on_a_gpu("edgenext_xx_small", 7)

    assert "aten.convolution.default" in strict
    assert {name for name in strict for part in REFUSED if part in name} == set()
    assert {name for name in usual for part in REFUSED if part in name} == {"aten.upsample_bilinear2d.default"}
