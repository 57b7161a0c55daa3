"""One training step in each dtype beside the same step in float64 on the CPU.

Loss and gradients of the whole network, with every expert in use and nothing dropped; in float16 the scale of the loss
has to settle first. A GPU may be twice as far off as the CPU is in the same format.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from camoxpert_cli.engine.build import build_network
from camoxpert_cli.engine.step import TrainingStep, combine
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.precision import build_scaler
from camoxpert_cli.parallel.world import World
from tests.benchmarks.loops import arguments, noise, settings
from tests.gpu.distance import distance, gradients_of
from tests.gpu.report import Report
from tests.helpers.networks import without_dropout

# How far gradients may be from the CPU's in float64, in parts of their norm, also where the CPU's are nearer. ReLUs
# that float32's rounding flips move them by some thousandths, on an H200 by 0.014; float64 shows whether
# it is that alone.
_LIMITS = {torch.float64: 1e-8, None: 3e-2, torch.bfloat16: 5e-2, torch.float16: 5e-2}
_LOSS_LIMIT = 5e-3  # of the loss
# GradScaler begins at 65536 and halves that at each overflow.
_SETTLING_STEPS = 20


def check(report: Report) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    size = ["--backbone", "edgenext_base"] if report.on_card else ["--backbone", "test_resnet", "--img-size", "64"]
    asked = arguments(img_size=128, pairs=0).parse_args([*size, "--batch-size", "7"])
    config = settings(asked).config
    network = build_network(config.model, config.train.seed, weights_follow=True)
    without_dropout(network)
    torch.manual_seed(0)
    images, masks = noise(asked.batch_size, asked.img_size)
    step = TrainingStep(network, config.model.deep_supervision, None).train()
    loss, gradients = step_of(deepcopy(step).double(), images, masks)
    report.number("loss in float64", loss)

    for dtype, limit in _LIMITS.items():
        name = str(dtype or torch.float32).removeprefix("torch.")
        with report.part(name, seconds=25):
            if dtype is not None:
                report.require_card()
            if report.on_card and dtype is not torch.float64:
                # bfloat16 for both half formats: it is the coarser one, and float16 is slow on many CPUs.
                _, on_cpu = step_of(copy_of(step, "cpu", None if dtype is None else torch.bfloat16), images, masks)
                report.number(f"{name}: the CPU's gradients differ by, of their norm", distance(on_cpu, gradients))
                limit = max(limit, 2 * distance(on_cpu, gradients))
            tried = copy_of(step, report.device, dtype)
            scale = settled_scale(tried, images, masks, report) if dtype is torch.float16 else 1.0
            own_loss, own = step_of(tried, images, masks, scale)
            apart = distance(own, gradients)
            report.number(f"{name}: loss differs by", abs(own_loss - loss))
            report.number(f"{name}: gradients differ by, of their norm", apart)
            assert abs(own_loss - loss) <= _LOSS_LIMIT * loss, f"the loss is {own_loss:g} instead of {loss:g}"
            assert apart <= limit, f"gradients differ by {apart:.2g} of their norm, and {limit:.2g} is allowed"


def copy_of(step: TrainingStep, device: str, dtype: torch.dtype | None) -> TrainingStep:
    if dtype is torch.float64:
        return deepcopy(step).double().to(device)
    copy = deepcopy(step).to(device)
    copy.autocast_dtype = dtype
    return copy


def step_of(step: TrainingStep, images: Tensor, masks: Tensor, scale: float = 1.0) -> tuple[float, list[Tensor | None]]:
    """Loss and gradients in float64, where the loss was scaled for the backward pass."""
    step.zero_grad(set_to_none=True)
    loss = backward(step, images, masks, lambda loss: loss * scale)
    return loss.item(), gradients_of(step.parameters(), scale)


def backward(step: TrainingStep, images: Tensor, masks: Tensor, scaled: Callable[[Tensor], Tensor]) -> Tensor:
    """The loss, before it was `scaled` for the backward pass."""
    device = next(step.parameters()).device
    with spread(step.network):
        output = step(images.to(device), masks.to(device))
        loss = combine(output, step.network.top_k, len(images), World()).total
        torch.autograd.backward(scaled(loss))
    return loss


def settled_scale(step: TrainingStep, images: Tensor, masks: Tensor, report: Report) -> float:
    """The scale that GradScaler finds in some steps that move nothing, and keeps over the second half of them."""
    scaler = build_scaler(torch.float16, next(step.parameters()).device)
    optimizer = torch.optim.SGD(step.parameters(), lr=0.0)
    scales = []
    for _ in range(_SETTLING_STEPS):
        optimizer.zero_grad(set_to_none=True)
        backward(step, images, masks, scaler.scale)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    report.number("float16: scale", scales[-1])
    assert len(set(scales[_SETTLING_STEPS // 2 :])) == 1, f"float16's scale did not settle: {scales}"
    return scales[-1]
