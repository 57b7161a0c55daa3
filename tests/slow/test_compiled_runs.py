"""`--compile` over whole runs and on several ranks: torch's own tracing, with a backend that runs what was traced."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager
from torch.nn.parallel import DistributedDataParallel

from camoxpert_cli.checkpoints.format import Checkpoint, read_checkpoint
from camoxpert_cli.engine import compiled_parts, compiling
from camoxpert_cli.engine.compiled_parts import CompiledParts
from camoxpert_cli.engine.run import prepare
from camoxpert_cli.engine.step import combine
from camoxpert_cli.engine.train import begin, carry_out
from camoxpert_cli.parallel.world import World
from tests.behaviour.engine.test_compiled_parts import CPU, a_step, assert_alike
from tests.behaviour.engine.test_compiling import Asked, TracedParts, batches, execution_in, few, stop_after, trained
from tests.helpers.cut_runs import CIRCUMSTANCES, SETTINGS, differing, steps
from tests.helpers.networks import spread_routing
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import tiny_plan
from tests.helpers.training_steps import bytes_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile one part, and no machine code."""
    monkeypatch.setattr(compiled_parts, "compiled_modules", few)
    monkeypatch.setattr(compiling, "CompiledParts", TracedParts)


@pytest.fixture(scope="module")
def eager(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that compiles nothing."""
    folder = tmp_path_factory.mktemp("eager") / "run"
    trained(tiny_data, folder)
    return folder


def test_compiled_run(tiny_data: Path, tmp_path: Path, eager: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It compiles once per phase, learns what an eager run does, and resumes bitwise identically.

    With another `--compile`, it says that rounding will differ.
    """
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run = trained(tiny_data, whole, compile="on")
    said = capsys.readouterr().err

    assert batches(run) == [2, 3, 3]
    assert said.count("Compiled backbone and decoder in ") == 3
    ignored = {*CIRCUMSTANCES, "compile", "execution"}
    assert differing(eager, whole, ignored, tolerance=1e-4) == []
    assert execution_in(whole) == "compiled"

    stop_after(5, tiny_data, cut)
    saved = Checkpoint(cut / "last.pth", read_checkpoint(cut / "last.pth"))
    capsys.readouterr()
    trained(tiny_data, cut, saved, compile="on")

    assert "The execution was" not in capsys.readouterr().err
    assert steps(cut) == steps(whole)
    assert differing(whole, cut) == []
    plan = tiny_plan(tiny_data, tmp_path / "off", **SETTINGS, resume_from=str(saved.path))
    run, checkpoint = prepare(plan, saved)
    begin(run, plan.config, checkpoint)
    assert "The execution was compiled and is now eager: results will differ by rounding\n" in capsys.readouterr().err


def test_compiler_that_fails(tiny_data: Path, tmp_path: Path, eager: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is reported in a sentence, once, and the run is the eager one, to the last bit."""

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no working compiler\nwith a long explanation")

    folder = tmp_path / "run"
    plan = tiny_plan(tiny_data, folder, **SETTINGS, compile="on")
    run, _ = prepare(plan)
    run.compiling.parts.compiler = partial(torch.compile, backend=broken)
    capsys.readouterr()
    carry_out(run, plan, None)

    said = " ".join(capsys.readouterr().err.split())
    assert said.count("compiled") == 1
    assert (
        "Warning: the network cannot be compiled: RuntimeError: no working compiler; training continues without (see "
        "--compile)"
    ) in said
    assert batches(run) == [2]
    assert differing(eager, folder, {*CIRCUMSTANCES, "compile"}) == []


def on_two_ranks(world: World, data: Path, folder: Path, asked: Asked) -> Path:
    compiled_parts.compiled_modules = few
    setattr(compiling, "CompiledParts", TracedParts)  # noqa: B010  # mypy refuses an assignment
    settings = {**SETTINGS, "epochs": 2, "stage1_epochs": 0, "progressive_unfreeze": False}
    plan = tiny_plan(data, folder, **settings, compile=asked, strategy="ddp", gpus=2)
    run, _ = prepare(plan, None, world)
    carry_out(run, plan, None)
    assert run.saver.execution == ("compiled" if asked == "on" else "eager")
    return folder


def test_compiled_on_two_ranks(tiny_data: Path, tmp_path: Path) -> None:
    """What they learn is what eager ranks do."""
    eager, compiled = (in_ranks(2, on_two_ranks, tiny_data, tmp_path / asked, asked)[0] for asked in ("off", "on"))

    assert differing(eager, compiled, {*CIRCUMSTANCES, "compile", "execution"}, tolerance=1e-4) == []


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
