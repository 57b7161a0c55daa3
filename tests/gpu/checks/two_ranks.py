"""Two ranks on one card: the same to the bit, the steps of one process, and one answer to gradients that overflow.

The last step of each epoch has an image for one rank only. By gloo and by NCCL, where that can be had.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from camoxpert_cli.engine import training_steps as steps_module
from camoxpert_cli.engine.run import enter_phase, prepare
from camoxpert_cli.engine.train import begin, train_epoch
from camoxpert_cli.launch.decide import decide
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.parallel.world import World
from tests.gpu.distance import distance
from tests.gpu.report import Report
from tests.gpu.two_ranks_on_one_card import Transport, share_the_card, transport_of
from tests.helpers.batch_effects import train_without_batch_effects, train_without_dropout
from tests.helpers.compare import differences
from tests.helpers.plain_training import train_plainly
from tests.helpers.ranks import in_ranks
from tests.helpers.tiny_data import TRAINING_IMAGES, tiny_run, write_tiny_data

# Four epochs with steps of 2, 2, 2, 2 and 1 images, the last of rank 1 alone.
_IMAGES = 9
_SETTINGS: dict[str, Any] = {"val_fraction": 1 - _IMAGES / TRAINING_IMAGES}
_OVERFLOW = 12  # the step in which rank 1's gradients do: by then float16 has found its scale
_LIMIT = 1e-3


def check(report: Report) -> None:
    data = write_tiny_data(report.folder / "data")
    case = {**_SETTINGS, "device": report.device, "precision": "fp32"}
    one = {**case, "batch_size": 2, "stage2_batch_size": 2}
    two = {**case, "batch_size": 1, "stage2_batch_size": 1, "gpus": 2}
    transports: list[Transport] = ["gloo"]
    if report.on_card:
        transports += ["nccl"] if transport_of(report) == "nccl" else []
    for transport in transports:
        if report.on_card:
            share_the_card(report.folder / f"start {transport}", transport)
        with report.part(f"steps of one process ({transport})", seconds=50):
            compare(report, transport, data, one, two)
        with report.part(f"overflow on rank 1 ({transport})", seconds=30):
            precision = "fp16" if report.on_card else "fp32"
            overflow(report, transport, data, {**two, "precision": precision, "epochs": 4})
    with report.part("BatchNorm synchronised", seconds=50):
        report.require_card()
        compare(report, transports[-1], data, one, {**two, "sync_batchnorm": True})


def compare(report: Report, transport: Transport, data: Path, one: dict[str, Any], two: dict[str, Any]) -> None:
    """How weights move after the first epoch: in float64, in which nothing but a mistake is as large as the limit."""
    synchronised = "sync_batchnorm" in two
    name = f"{'synchronised, ' if synchronised else ''}{transport}"
    folder = report.folder / f"steps {name}"
    (alone,) = in_ranks(1, train_in_float64, data, folder / "one", one, synchronised)
    first, second = in_ranks(2, train_in_float64, data, folder / "two", two, synchronised)
    unlike = differences(first["states"], second["states"])
    assert not unlike, f"ranks hold different weights: {unlike[:3]}"
    assert first["chosen"] == second["chosen"] == alone["chosen"], "images chose other experts"
    start = alone["states"][0]
    ours, reference = (
        [states[-1][name] - start[name] for name in start] for states in (first["states"], alone["states"])
    )
    apart = distance(ours, reference)
    report.number(f"{name}: weights differ from one process's by, of their movement", apart)
    assert apart <= _LIMIT, f"weights differ by {apart:.2g} of their movement, and {_LIMIT:g} is allowed"


def train_in_float64(
    world: World, data: Path, folder: Path, case: dict[str, Any], synchronised: bool
) -> dict[str, Any]:
    """Of a rank: weights after each epoch, and which experts were chosen. Only synchronised BatchNorm sees a batch."""
    hold_still: Callable[..., CamoXpert] = train_without_dropout if synchronised else train_without_batch_effects
    CamoXpert.train = hold_still  # type: ignore[method-assign]
    found = train_plainly(world, data, folder, case)
    states = [{name: torch.from_numpy(value) for name, value in each.items()} for each in found["states"]]
    return {"states": states, "chosen": found["chosen"]}


def overflow(report: Report, transport: Transport, data: Path, case: dict[str, Any]) -> None:
    """In the run as users have it, with AdamW, clipping, the moving average, and float16 on a card."""
    first, second = in_ranks(2, train_with_overflow, data, report.folder / f"overflow {transport}", case)
    report.number(f"{transport}: steps that both ranks skipped", str(first["skipped"]))
    assert _OVERFLOW in first["skipped"], f"the step that overflowed was made; skipped: {first['skipped']}"
    assert first["skipped"] == second["skipped"], f"{first['skipped']} on rank 0, {second['skipped']} on rank 1"
    assert len(first["skipped"]) < first["steps"], "every step was skipped"
    unlike = differences(first, second)
    assert not unlike, f"ranks differ in {unlike[:3]}"


def train_with_overflow(world: World, data: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    """Of a rank: the training state at the end, and which steps (from 1) it skipped."""
    resolved = tiny_run(data, folder, **case)
    run, _ = prepare(decide(resolved), None, world)
    begin(run, resolved.config, None)
    honest, norms = steps_module.optimizer_step, list[float | None]()

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        # Before it is summed, which happens during the backward pass.
        return torch.full_like(gradient, torch.inf) if len(norms) + 1 == _OVERFLOW else gradient

    if world.rank == 1:
        next(run.state.network.final_conv.parameters()).register_hook(spoil)  # type: ignore[no-untyped-call]

    def optimizer_step(*arguments: Any) -> float | None:
        norms.append(honest(*arguments))
        return norms[-1]

    steps_module.__dict__["optimizer_step"] = optimizer_step
    for phase in run.phases:
        enter_phase(run, phase)
        for epoch in range(phase.first, phase.end):
            train_epoch(run, phase, epoch)
            run.state.progress.epoch += 1
            run.state.progress.samples = 0
    assert run.state.ema is not None
    assert run.state.optimizer is not None
    return {
        "skipped": [number for number, norm in enumerate(norms, 1) if norm is None],
        "steps": len(norms),
        "scale": run.state.scaler.get_scale(),
        "network": on_cpu(run.state.network.state_dict()),
        "average": on_cpu(run.state.ema.network.state_dict()),
        "optimizer": {number: on_cpu(state) for number, state in run.state.optimizer.state_dict()["state"].items()},
    }


def on_cpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in tensors.items()}
