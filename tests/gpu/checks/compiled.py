"""Images a second with backbone and decoder compiled by `--compile`, and of what a user would pick instead of camox.

That is timm's backbone and the same decoder without mixtures, compiled as a whole, with channels last, in bfloat16, and
torch's fused AdamW.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from camoxpert_cli.engine.run import Run
from camoxpert_cli.model.backbone import maps_of
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import resize
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.world import World
from tests.benchmarks.loops import (
    RATE,
    arguments,
    camox_run,
    camox_steps,
    noise,
    seconds_of,
    settings,
    step_of,
    steps_on,
)
from tests.gpu.report import Report

_BATCH = 24
_STEPS = 10


class PlainNetwork(nn.Module):
    """Backbone and decoder of a network, copied, with nothing between them."""

    def __init__(self, network: CamoXpert) -> None:
        super().__init__()
        self.backbone = deepcopy(network.backbone)
        self.decoder_blocks = deepcopy(network.decoder_blocks)
        self.final_conv = deepcopy(network.final_conv)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), normalized -> logits (B, 1, H, W)."""
        *skips, x = maps_of(self.backbone, images)
        for block, skip in zip(self.decoder_blocks, [*reversed(skips), None], strict=True):
            x = block(x, skip)
        logits: Tensor = self.final_conv(resize(x, (images.shape[-2], images.shape[-1])))
        return logits


def check(report: Report) -> None:
    report.require_card()
    asked = arguments(img_size=320, pairs=0).parse_args(["--batch-size", str(_BATCH)])
    run = camox_run(settings(asked, device="cuda", precision="bf16").config, World(), report.folder)
    images, masks = (each.pin_memory() for each in noise(_BATCH, asked.img_size))
    with report.part("plain network, compiled", seconds=90):
        measure(report, "plain network, compiled", plain_steps(run, images, masks))
    with spread(run.state.network), report.part("camox, backbone and decoder compiled", seconds=90):
        measure(report, "camox", camox_steps(run, images, masks))
        started = time.perf_counter()
        failure = run.compiling.parts.start(_BATCH, asked.img_size, run.device)
        if failure:
            raise RuntimeError(failure)
        report.number("camox: seconds to compile backbone and decoder", time.perf_counter() - started)
        measure(report, "camox, backbone and decoder compiled", camox_steps(run, images, masks))


def measure(report: Report, name: str, steps: Iterator[object]) -> None:
    report.number(f"{name}: seconds until the third step is done", seconds_of(steps, 3))
    report.number(f"{name}: images/s", _STEPS * _BATCH / seconds_of(steps, _STEPS))


def plain_steps(run: Run, images: Tensor, masks: Tensor) -> Iterator[object]:
    network = PlainNetwork(run.state.network).train()
    network.to(memory_format=torch.channels_last)
    compiled = torch.compile(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=True)

    def loss() -> Tensor:
        pixels = step_of(run).normalize(images.to("cuda", non_blocking=True))
        with torch.autocast("cuda", torch.bfloat16):
            logits = compiled(pixels.contiguous(memory_format=torch.channels_last))
        return F.binary_cross_entropy_with_logits(logits.float(), masks.to("cuda", non_blocking=True).float())

    return steps_on(loss, optimizer, GradScaler("cuda", enabled=False))
