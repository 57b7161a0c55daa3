"""Parts of a network compiled in place: by torch's own tracing, with a backend that runs what was traced."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.nn.parallel import DistributedDataParallel

from camoxpert_cli.engine import compiled_parts
from camoxpert_cli.engine.compiled_parts import CompiledParts
from camoxpert_cli.engine.ema import Ema
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World
from tests.helpers.networks import small_network, spread_routing, without_dropout
from tests.helpers.ranks import in_ranks
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


def loss_and_gradients(step: Any, count: int = BATCH) -> tuple[Tensor, Gradients]:
    network: CamoXpert = step.network
    network.zero_grad()
    loss = combine(step(*bytes_of(count)), network.top_k, count, World()).total
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


def with_torchs_ddp(world: World, compiled: bool) -> list[Tensor | None]:
    """Gradients of torch's DistributedDataParallel around a step, its experts left out, over both ranks' images."""
    step = a_step()
    spread_routing(step.network, step.normalize(bytes_of(4)[0].double()))
    experts = [name for name, _ in step.named_parameters() if ".experts." in name]
    ddp: Any = DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(step, experts)
    parts = CompiledParts(step, compiler=partial(torch.compile, dynamic=False, backend=aot_eager))
    wrapped = ddp(step, bucket_cap_mb=1)
    if compiled:
        assert parts.start(2, 64, CPU) == ""
    for _ in range(2):
        step.network.zero_grad()
        images, masks = (each[2 * world.rank :][:2] for each in bytes_of(4))
        loss = combine(wrapped(images, masks), step.network.top_k, 4, world).total
        torch.autograd.backward(loss)
    assert parts.are_compiled == compiled
    return [parameter.grad for parameter in step.parameters()]


def eager_and_compiled(world: World) -> tuple[list[Tensor | None], list[Tensor | None]]:
    compiled_parts.compiled_modules = lambda network: list(network.decoder_blocks[:2])
    return with_torchs_ddp(world, compiled=False), with_torchs_ddp(world, compiled=True)


def test_within_torchs_ddp() -> None:
    """Two processes: gradients are summed behind compiled parts as behind eager ones, to 1e-9."""
    for eager, compiled in in_ranks(2, eager_and_compiled):
        assert_alike((torch.zeros(()), compiled), (torch.zeros(()), eager))
