"""torch's DataParallel with the same card twice: losses and gradients of one network, idle experts without any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.training_steps import backward
from camoxpert_cli.parallel.strategy import Dp
from camoxpert_cli.parallel.world import World
from tests.gpu.distance import distance, gradients_of
from tests.gpu.report import Report
from tests.helpers.batch_effects import train_without_batch_effects
from tests.helpers.tiny_data import tiny_plan, write_tiny_data

_SETTINGS: dict[str, Any] = {"num_experts": 7, "skip_stage1": True, "progressive_unfreeze": False, "device": "cuda"}
_LIMITS = {"fp32": 1e-3, "fp16": 5e-2}
# Low enough for the first step not to overflow.
_SCALE = 1024.0
_SIDE = 64


def check(report: Report) -> None:
    report.require_card()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    data = write_tiny_data(report.folder / "data")
    for precision, limit in _LIMITS.items():
        for checkpointing in (False, True):
            name = f"{precision}{' recomputed' if checkpointing else ''}"
            runs = [
                run_of(data, report.folder / f"{name} {cards}", cards, precision, checkpointing) for cards in (1, 2)
            ]
            # Even parts, uneven ones, and one card without an image.
            for images in (2, 7, 1):
                with report.part(f"{name}, {images} images", seconds=20):
                    one, two = (gradients(run, images) for run in runs)
                    apart = distance(two, one)
                    idle = sum(each is None for each in one)
                    report.number(f"{name}, {images} images: gradients differ by", apart)
                    assert apart <= limit, f"{apart:.2g} of their norm, and {limit:g} is allowed"
                    assert images > 1 or idle, "every expert was used, so nothing was seen of idle ones"


def run_of(data: Path, folder: Path, cards: int, precision: str, checkpointing: bool) -> Run:
    """A run in which no image sees its batch, on a card that is taken so many times."""
    settings = {**_SETTINGS, "precision": precision, "gradient_checkpointing": checkpointing}
    run, _ = prepare(tiny_plan(data, folder, **settings))
    enter_phase(run, run.phases[0])
    train_without_batch_effects(run.state.network)
    run.state.scaler = GradScaler("cuda", init_scale=_SCALE, enabled=precision == "fp16")
    if cards > 1:
        run.strategy = Dp(run.strategy.step, run.state.network, [run.device] * cards, World())
    return run


def gradients(run: Run, images: int) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randint(256, (images, 3, _SIDE, _SIDE), dtype=torch.uint8, generator=generator)
    masks = torch.randint(2, (images, 1, _SIDE, _SIDE), dtype=torch.uint8, generator=generator)
    run.state.network.zero_grad(set_to_none=True)
    _, chosen = backward(run, inputs, masks, 0, images, 1.0)
    run.strategy.reduce_gradients(list(run.state.network.parameters()), chosen)
    return gradients_of(run.state.network.parameters(), run.state.scaler.get_scale())
