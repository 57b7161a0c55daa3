"""Parts of a network compiled in place: by torch's own tracing, with a backend that runs what was traced."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch._dynamo.backends.debugging import aot_eager

from camoxpert_cli.engine import compiled_parts
from camoxpert_cli.engine.compiled_parts import CompiledParts
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.overlap import Overlap
from camoxpert_cli.parallel.world import World, member
from tests.helpers.networks import small_network, without_dropout
from tests.helpers.replicas import Replicas
from tests.helpers.training_steps import bytes_of

CPU = torch.device("cpu")
BATCH = 3
Gradients = list[Tensor | None]


class Backend:
    """Runs each graph as it was traced, and counts the graphs and their calls."""

    def __init__(self) -> None:
        self.graphs = self.calls = 0

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1

        def run(*arguments: Any) -> Any:
            self.calls += 1
            return graph(*arguments)

        return run

    @property
    def compiler(self) -> Any:
        return partial(torch.compile, dynamic=False, backend=self)


def a_step(backbone_stages: int = 4, *, gradient_checkpointing: bool = False, dtype: torch.dtype | None = None) -> Any:
    """In training, in float64 unless there is a `dtype` for autocast."""
    network = small_network(num_experts=2, gradient_checkpointing=gradient_checkpointing)
    step = TrainingStep(network, True, dtype)
    without_dropout(step)
    network.set_trainable(backbone_stages, deep_heads=True)
    return step.train() if dtype else step.double().train()


def few(network: CamoXpert) -> list[nn.Module]:
    """The backbone and a block: what they show holds for the other blocks, and compiling takes time."""
    return [network.backbone, network.decoder_blocks[0]]


@pytest.fixture
def few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_parts, "compiled_modules", few)


def loss_and_gradients(step: Any, count: int = BATCH, call: Any = None) -> tuple[Tensor, Gradients]:
    """Of `step`, which is called by `call` if that is given."""
    network: CamoXpert = step.network
    network.zero_grad()
    loss = combine((call or step)(*bytes_of(count)), network.top_k, count, World()).total
    torch.autograd.backward(loss)
    return loss.detach(), [parameter.grad for parameter in network.parameters()]


def assert_alike(ours: tuple[Tensor, Gradients], theirs: tuple[Tensor, Gradients], tolerance: float = 1e-9) -> None:
    assert torch.allclose(ours[0], theirs[0], rtol=tolerance)
    assert [each is None for each in ours[1]] == [each is None for each in theirs[1]]
    pairs = [(one, two) for one, two in zip(ours[1], theirs[1], strict=True) if one is not None and two is not None]
    apart = sum((one - two).square().sum().item() for one, two in pairs) ** 0.5
    assert apart <= tolerance * sum(two.square().sum().item() for _, two in pairs) ** 0.5


@pytest.mark.usefixtures("few_parts")
def test_life_of_compiled_parts() -> None:
    """Frozen, then whole: losses, gradients and statistics are those of eager steps; nothing else compiles.

    Neither a smaller batch nor evaluation, nor a copy such as the EMA, whose state dict is the network's.
    """
    step, eager, backend = a_step(0), a_step(0), Backend()
    names = list(step.network.state_dict())
    parts = CompiledParts(step, compiler=backend.compiler)
    for stages in (0, 4):
        for each in (step, eager):
            each.network.set_trainable(stages, deep_heads=True)
        graphs = backend.graphs

        assert parts.start(BATCH, 64, CPU) == ""

        assert backend.graphs == graphs + 2  # the backbone and a block
        calls = backend.calls
        assert_alike(loss_and_gradients(step), loss_and_gradients(eager))
        assert backend.calls == calls + 2
        for name, buffer in eager.network.named_buffers():
            assert torch.allclose(step.network.get_buffer(name), buffer, rtol=1e-9), name
        assert_alike(loss_and_gradients(step, 2), loss_and_gradients(eager, 2))
        copy = Ema(step.network, 0.9).network
        for network in (copy, copy.train(), step.network.eval()):
            network(torch.zeros(BATCH, 3, 64, 64, dtype=torch.float64))
        step.network.train()
        assert (backend.graphs, backend.calls) == (graphs + 2, calls + 2)
        assert list(step.network.state_dict()) == list(copy.state_dict()) == names
    parts.stop()
    calls = backend.calls

    loss_and_gradients(step)

    assert backend.calls == calls
    assert not parts.are_compiled


@pytest.mark.usefixtures("few_parts")
def test_compiling_leaves_no_trace() -> None:
    """Weights, statistics, gradients and the random state are those before, also if the compiler fails."""

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no working compiler")

    for compiler in (Backend().compiler, partial(torch.compile, backend=broken)):
        step = a_step()
        loss_and_gradients(step)
        before = deepcopy(step.network.state_dict()), [deepcopy(each.grad) for each in step.network.parameters()]
        state = torch.random.get_rng_state()
        parts = CompiledParts(step, compiler=compiler)
        failure = parts.start(BATCH, 64, CPU)

        assert parts.are_compiled == (failure == "")
        assert torch.equal(torch.random.get_rng_state(), state)
        for name, value in step.network.state_dict().items():
            assert torch.equal(value, before[0][name]), name
        for parameter, gradient in zip(step.network.parameters(), before[1], strict=True):
            assert (parameter.grad is None) == (gradient is None)
            assert gradient is None or (parameter.grad is not None and torch.equal(parameter.grad, gradient))
    assert failure == "RuntimeError: no working compiler"
    loss_and_gradients(step)  # eagerly


@pytest.mark.usefixtures("few_parts")
def test_backward_that_cannot_be_compiled() -> None:
    """torch compiles the backward pass when it is first needed: that is before the first step, too."""

    def forward_only(graph: Any, inputs: Any) -> Any:
        return graph

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("the backward pass is too much")

    from torch._dynamo.backends.common import aot_autograd

    backend = aot_autograd(fw_compiler=forward_only, bw_compiler=broken)
    step = a_step()
    parts = CompiledParts(step, compiler=partial(torch.compile, backend=backend))

    assert "the backward pass is too much" in parts.start(BATCH, 64, CPU)
    assert_alike(loss_and_gradients(step), loss_and_gradients(a_step()))


@pytest.mark.usefixtures("few_parts")
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-9), (torch.bfloat16, 0.05)])
def test_recomputed_activations(dtype: torch.dtype | None, tolerance: float) -> None:
    """Activation checkpointing calls compiled parts twice, under autocast as well."""
    step, eager = (a_step(gradient_checkpointing=True, dtype=dtype) for _ in range(2))
    parts = CompiledParts(step, compiler=partial(torch.compile, dynamic=False, backend=aot_eager))

    assert parts.start(BATCH, 64, CPU) == ""
    assert_alike(loss_and_gradients(step), loss_and_gradients(eager), tolerance)
    for name, buffer in eager.network.named_buffers():
        assert torch.allclose(step.network.get_buffer(name), buffer, rtol=tolerance, atol=tolerance), name


def test_replicas_call_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why DataParallel excludes compiling: torch's replicas share what was compiled, with the original's weights."""
    # The process has one stance, which the threads of the replicas would leave to the tests after this one.
    monkeypatch.setattr(eval_frame, "_stance", eval_frame._stance)
    step = a_step()
    network: CamoXpert = step.network
    seen: list[nn.Module] = []
    for part in (network.final_conv, network.moe_layers[0]):
        part.register_forward_hook(lambda module, inputs, output: seen.append(module))
    assert CompiledParts(step, compiler=lambda function: function).start(BATCH, 64, CPU) == ""
    seen.clear()
    Replicas(step, 2, monkeypatch)(*bytes_of(2))

    assert [seen.count(part) for part in (network.final_conv, network.moe_layers[0])] == [2, 0]
    assert len(seen) == 4


@pytest.mark.usefixtures("few_parts")
def test_within_ddp(tmp_path: Path) -> None:
    """torch's DistributedDataParallel calls what was compiled outside it, undivided, and sums the same gradients.

    tests/slow shows it for two processes.
    """
    step, eager, backend = a_step(), a_step(), Backend()
    experts = [name for name, _ in step.named_parameters() if ".experts." in name]
    always = [parameter for name, parameter in step.named_parameters() if name not in experts]
    parts = CompiledParts(step, compiler=backend.compiler)
    with member(0, 1, 0, 1, f"file://{tmp_path / 'store'}", timedelta(seconds=60)) as world:
        overlap = Overlap(step, always, world)
        assert parts.start(BATCH, 64, CPU) == ""
        graphs = backend.graphs
        for _ in range(2):  # before and after torch has built its buckets anew
            calls = backend.calls
            with overlap.batch(sums=True):
                compiled = loss_and_gradients(step, call=overlap.module)
            assert (backend.graphs, backend.calls) == (graphs, calls + 2)
            assert_alike(compiled, loss_and_gradients(eager))
