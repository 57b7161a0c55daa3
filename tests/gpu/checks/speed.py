"""Images a second of camox's own loop beside a bare one around the same network, and what a step asks of the device."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from camoxpert_cli.engine.run import Run
from camoxpert_cli.model.routing import spread
from camoxpert_cli.parallel.world import World
from tests.benchmarks.counts import Counting, by_part
from tests.benchmarks.counts import totals as totals_of
from tests.benchmarks.loops import (
    arguments,
    bare_steps,
    camox_run,
    camox_steps,
    interleaved,
    noise,
    seconds_of,
    settings,
)
from tests.gpu.report import Report

_BATCHES = (12, 24, 48)
_PROFILED_BATCH = 12
_STEPS = 3
_TOP = 12
_TOP_CALLS = 3
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
    with spread(run.state.network):
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


def profiled(report: Report, batch: int) -> None:
    """Launches, the GPU's busy share, and what takes longest; on the CPU operators in place of kernels."""
    run, images, masks = run_of(report, "bf16" if report.on_card else "fp32", batch)
    steps = camox_steps(run, images, masks)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if report.on_card else [])]
    with spread(run.state.network):
        for _ in range(3):
            next(steps)
        for threads in dict.fromkeys((torch.get_num_threads(), 2)):  # of the host, which launches kernels with one
            torch.set_num_threads(threads)
            name = f"profile: ms a step without profiler, {threads} threads"
            report.number(name, 1000 * seconds_of(steps, _STEPS) / _STEPS)
        with profile(activities=activities) as traced:
            seconds_of(steps, _STEPS)
    # Without torch's tree of operators, which takes minutes to build of so many.
    events: list[Any] = [each for each in traced.profiler.kineto_results.events() if not each.is_user_annotation()]
    on_device = [each for each in events if each.device_type().name == "CUDA"]
    if report.on_card:
        with spread(run.state.network), Counting() as counted:
            next(steps)
        found = totals_of(by_part(counted))
        report.number(
            "profile: operations that launch kernels, as tests.benchmarks.counts counts them", found["launches"]
        )
        report.number("profile: GB that they move", found["bytes"] / 1e9)
        busy = sum(each.duration_ns() for each in on_device)
        first, last = min(each.start_ns() for each in on_device), max(each.end_ns() for each in on_device)
        report.number("profile: kernels and copies in a step", len(on_device) / _STEPS)
        report.number("profile: ms a step of them", busy / _STEPS / 1e6)
        report.number("profile: share of the time in which the GPU is busy", busy / (last - first))
        # What the host spends on telling the GPU.
        calls = totals(each for each in events if each.name().startswith("cuda"))
        for name, (count, took) in calls[:_TOP_CALLS]:
            report.number(f"profile: {name} in a step", count / _STEPS)
            report.number(f"profile: us in {name}", took / count / 1e3)
    for name, (count, took) in totals(on_device or events)[:_TOP]:
        report.number(f"profile: ms a step in {count / _STEPS:.0f} {name[:60]}", took / _STEPS / 1e6)


def totals(events: Iterable[Any]) -> list[tuple[str, tuple[int, int]]]:
    """Of events of one name, their number and nanoseconds, the longest first."""
    found: dict[str, tuple[int, int]] = {}
    for each in events:
        count, took = found.get(each.name(), (0, 0))
        found[each.name()] = count + 1, took + each.duration_ns()
    return sorted(found.items(), key=lambda row: row[1][1], reverse=True)
