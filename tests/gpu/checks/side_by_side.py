"""Images a second, eager and compiled by `--compile`, of camox and of what a user would pick instead.

That is timm's backbone and the same decoder without mixtures, so it computes less, compiled as a whole, with channels
last and torch's fused AdamW. What no longer fits the time, since compiling takes most of it, is named.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camoxpert_cli.engine.run import Run
from camoxpert_cli.model.backbone import maps_of
from camoxpert_cli.model.camoxpert import CamoXpert
from camoxpert_cli.model.layers import resize
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.precision import build_scaler
from tests.benchmarks.loops import RATE, camox_steps, seconds_of, step_of, steps_on
from tests.gpu.checks.speed import run_of
from tests.gpu.report import Report

_CASES = [(precision, batch) for batch in (24, 12, 48) for precision in ("bf16", "fp16")]
_STEPS = 10
_SECONDS = 200  # after which nothing is begun
_AT_LEAST = 1.3  # of camox's own images/s, by compiling


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
    end = time.monotonic() + _SECONDS
    cases = _CASES if report.on_card else [("fp32", 4)]
    for precision, batch in cases:
        with report.part(f"{precision}, batch {batch}", seconds=60):
            eager(report, precision, batch)
    report.require_card()
    for precision, batch in cases:
        if time.monotonic() > end:
            report.number(f"{precision}, batch {batch}, compiled", "no time left")
            continue
        with report.part(f"{precision}, batch {batch}, compiled", seconds=120):
            ratio = compiled(report, precision, batch)
            assert ratio >= _AT_LEAST, f"compiled, camox makes {ratio:.2f} times its images/s; {_AT_LEAST} are wanted"


def eager(report: Report, precision: str, batch: int) -> None:
    run, images, masks = run_of(report, precision, batch)
    with spread(run.state.network):
        measure(report, f"{precision}, batch {batch}: camox", camox_steps(run, images, masks), batch)
    network = PlainNetwork(run.state.network).train().to(memory_format=torch.channels_last)
    measure(report, f"{precision}, batch {batch}: plain", plain_steps(run, network, images, masks), batch)


def compiled(report: Report, precision: str, batch: int) -> float:
    """How many times as fast camox is compiled."""
    torch.compiler.reset()
    run, images, masks = run_of(report, precision, batch)
    name = f"{precision}, batch {batch}"
    plain = PlainNetwork(run.state.network).train().to(memory_format=torch.channels_last)
    plain.compile(dynamic=False)
    measure(report, f"{name}: plain, compiled", plain_steps(run, plain, images, masks), batch)
    steps = camox_steps(run, images, masks)
    with spread(run.state.network):
        before = measure(report, f"{name}: camox, before it is compiled", steps, batch)
        started = time.perf_counter()
        failure = run.compiling.parts.start(batch, images.shape[-1], run.device)
        if failure:
            raise RuntimeError(failure)
        report.number(f"{name}: seconds to compile backbone and decoder of camox", time.perf_counter() - started)
        return measure(report, f"{name}: camox, compiled", steps, batch) / before


def measure(report: Report, name: str, steps: Iterator[object], batch: int) -> float:
    """Images a second, after three steps that do not count."""
    seconds_of(steps, 3)
    rate = _STEPS * batch / seconds_of(steps, _STEPS)
    report.number(f"{name}: images/s", rate)
    return rate


def plain_steps(run: Run, network: nn.Module, images: Tensor, masks: Tensor) -> Iterator[object]:
    """Steps of the plain network with torch's fused AdamW and one loss."""
    device, dtype = run.device, run.dtype
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, fused=True)

    def loss() -> Tensor:
        pixels = step_of(run).normalize(images.to(device, non_blocking=True))
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = network(pixels.contiguous(memory_format=torch.channels_last))
        return F.binary_cross_entropy_with_logits(logits.float(), masks.to(device, non_blocking=True).float())

    return steps_on(loss, optimizer, build_scaler(dtype, device))
