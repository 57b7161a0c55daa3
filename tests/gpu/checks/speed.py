"""Images a second of camox's own loop beside a bare one around the same network, and what a step asks of the device."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from camoxpert_cli.engine.routing import spread
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.world import World
from tests.benchmarks.loops import arguments, bare_steps, camox_run, camox_steps, interleaved, noise, settings
from tests.gpu.report import Report

_BATCHES = (12, 24, 48)
_PROFILED_BATCH = 12
_PROFILED_STEPS = 3
_TOP = 8
_AT_LEAST = 0.97  # of the bare loop's images/s


def check(report: Report) -> None:
    if not report.on_card:
        with report.part("images/s", seconds=60):
            beside_bare_loop(report, "fp32", 4)
        with report.part("profile", seconds=60):
            profiled(report, 4)
        return
    with report.part("profile", seconds=30):
        profiled(report, _PROFILED_BATCH)
    for precision in ("bf16", "fp16"):
        for batch in _BATCHES:
            with report.part(f"{precision}, batch {batch}", seconds=20):
                ratio = beside_bare_loop(report, precision, batch)
                assert ratio >= _AT_LEAST, f"{ratio:.3f} of the bare loop's images/s, and {_AT_LEAST} are wanted"


def run_of(report: Report, precision: str, batch: int) -> tuple[Run, torch.Tensor, torch.Tensor]:
    """A run of `edgenext_base` at 320 pixels, on the CPU of a small network, and a batch for it in pinned memory."""
    size = ["--img-size", "320"] if report.on_card else ["--backbone", "test_resnet", "--img-size", "64"]
    asked = arguments(img_size=320, pairs=0).parse_args([*size, "--batch-size", str(batch)])
    run = camox_run(settings(asked, device=report.device, precision=precision).config, World(), report.folder)
    images, masks = noise(batch, asked.img_size)
    return (run, images.pin_memory(), masks.pin_memory()) if report.on_card else (run, images, masks)


def beside_bare_loop(report: Report, precision: str, batch: int) -> float:
    """The median ratio of images/s, camox to the bare loop."""
    run, images, masks = run_of(report, precision, batch)
    with spread(run.network):
        loops = [loop(run, images, masks) for loop in (camox_steps, bare_steps)]
        pairs = interleaved(loops, rounds=5, steps=5)
    ours, bare = (5 * batch / statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(bare_seconds / own_seconds for own_seconds, bare_seconds in pairs)
    name = f"{precision}, batch {batch}"
    report.number(f"{name}: images/s", ours)
    report.number(f"{name}: bare loop's", bare)
    report.number(f"{name}: ratio", ratio)
    if report.on_card:
        report.number(f"{name}: peak in GiB, of both", torch.cuda.max_memory_reserved() / 2**30)
        torch.cuda.reset_peak_memory_stats()
    return ratio


def is_on_device(event: Any) -> bool:
    return event.device_type.name == "CUDA" and not event.is_user_annotation


def profiled(report: Report, batch: int) -> None:
    """Launches, the GPU's busy share, and what takes longest; on the CPU operators in place of kernels."""
    run, images, masks = run_of(report, "bf16" if report.on_card else "fp32", batch)
    steps = camox_steps(run, images, masks)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if report.on_card else [])]
    with spread(run.network):
        for _ in range(3):
            next(steps)
        with profile(activities=activities) as found:
            for _ in range(_PROFILED_STEPS):
                next(steps)
            if report.on_card:
                torch.cuda.synchronize()
    rows: list[Any] = list(found.key_averages())
    if report.on_card:
        # Kernels and copies, without the names that torch gives to stretches of them.
        on_device = [each for each in found.events() if is_on_device(each)]
        busy = sum(each.time_range.elapsed_us() for each in on_device)
        first, last = min(each.time_range.start for each in on_device), max(each.time_range.end for each in on_device)
        report.number("profile: launches in a step", len(on_device) / _PROFILED_STEPS)
        report.number("profile: share of the time in which the GPU is busy", busy / (last - first))
        rows = sorted(filter(is_on_device, rows), key=lambda each: each.self_device_time_total, reverse=True)
        for row in rows[:_TOP]:
            took = row.self_device_time_total / _PROFILED_STEPS / 1000
            report.number(f"profile: ms a step in {row.key[:50]}", took)
    else:
        report.number("profile: operators in a step", sum(each.count for each in rows) / _PROFILED_STEPS)
        rows.sort(key=lambda each: each.self_cpu_time_total, reverse=True)
        for row in rows[:_TOP]:
            report.number(f"profile: ms a step in {row.key}", row.self_cpu_time_total / _PROFILED_STEPS / 1000)
