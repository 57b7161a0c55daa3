"""The start of a run: print what it is about to do."""

from __future__ import annotations

import shlex
from collections import Counter

import torch

from camoxpert_cli import console
from camoxpert_cli.config.parse import format_duration
from camoxpert_cli.engine.build import RunData, describe_batches
from camoxpert_cli.engine.choosing import describe_fit
from camoxpert_cli.engine.compile_phase import describe_compiling
from camoxpert_cli.engine.ending import epochs_before_patience
from camoxpert_cli.engine.run import Run
from camoxpert_cli.parallel.memory import total_of


def announce(run: Run) -> None:
    """Print what the run is about to do. Every rank must call this."""
    on_cpu, compiling = run.device.type == "cpu", describe_compiling(run)
    lines = [
        ("Run folder", str(run.folder.path)),
        *zip(("Devices", *[""] * run.placement.count), _devices(run), strict=False),
        ("Strategy", f"{run.strategy.name}: {run.strategy.description}"),
        *([("Algorithms", "deterministic")] if run.config.train.deterministic else []),
        *([("Compile", compiling)] if compiling else []),
        *_synchronised(run),
        *_network(run),
        *_images(run),
        *(describe_batches(run.config, "process", "processes") if on_cpu else describe_batches(run.config)),
        *_limits(run),
    ]
    for title, text in lines:
        console.say(f"{title:<12}{text}")


def _synchronised(run: Run) -> list[tuple[str, str]]:
    if not run.config.train.sync_batchnorm:
        return []
    alone = "nothing to synchronize: one process"
    return [("BatchNorm", alone if run.world.size == 1 else "synchronized: statistics over all processes")]


def _devices(run: Run) -> list[str]:
    """One line per kind of device, over all machines, then the precision and the torch version."""
    computed_with = run.saver.computed_with
    versions = f"{computed_with['precision']}, {computed_with['version']}"
    if run.device.type == "cpu":
        threads = torch.get_num_threads()
        return [f"CPU, {console.counted(threads, 'thread')}, {versions}"]
    own = [f"{torch.cuda.get_device_name(each)}, {console.in_gib(total_of(each))}" for each in run.strategy.devices]
    found = Counter(name for names in run.world.all_gather(own) for name in names)
    return [*(f"{console.counted(count, 'GPU')}: {name}" for name, count in found.items()), versions]


def _network(run: Run) -> list[tuple[str, str]]:
    train, model, network = run.config.train, run.config.model, run.state.network
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    ema = f"validated with EMA weights (decay {train.ema_decay:g})" if train.use_ema else "no EMA"
    return [
        (
            "Network",
            f"{model.backbone}, {console.counted(model.num_experts, 'expert')} per MoE layer, "
            f"top-{network.top_k} routing",
        ),
        ("", f"{parameters:.2f} M parameters, {ema}"),
    ]


def _images(run: Run) -> list[tuple[str, str]]:
    data = run.data
    tests = ", ".join(f"{name} {len(pairs)}" for name, pairs in data.tests.items())
    workers = console.counted(run.feed.workers, "loader worker")
    if run.world.size > 1:
        workers += " per process"
    size, scored = run.config.data.img_size, run.config.data.scored_size
    sizes = f"{size} x {size} pixels" + (f", validated at {scored} x {scored}" if scored != size else "")
    training, validation = data.objects // data.repeats, len(data.validation) - data.validation_negatives
    held_out = "" if data.own_validation else " held out"
    repeated = f" ({data.repeats} times per epoch)" if data.repeats > 1 else ""
    if run.feed.workers == 0:
        workers = "loaded in the training process"
    return [
        (
            "Images",
            f"{training} for training{repeated}, {validation}{held_out} for validation",
        ),
        *_negatives(data),
        ("", f"{sizes}, {workers}"),
        *([("Test sets", tests)] if tests else []),
    ]


def _negatives(data: RunData) -> list[tuple[str, str]]:
    available, per_epoch = data.negatives
    if not available + data.validation_negatives:
        return []
    return [
        (
            "",
            f"without an object: {available} for training, {per_epoch} per epoch "
            f"({per_epoch / data.images_per_epoch:.0%} of each batch), {data.validation_negatives} for validation",
        )
    ]


def _limits(run: Run) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    deadline, run_settings = run.clock.stopping.deadline, run.config.run
    if run.config.train.fit is not None:
        lines += zip(("Fit", ""), describe_fit(run), strict=True)
    if run_settings.target_iou is not None:
        lines.append(("Target", f"validation IoU {run_settings.target_iou:g}"))
    if (patience := run.config.train.patience) is not None:
        first = epochs_before_patience(run.config) + 1
        lines.append(("Patience", f"{console.counted(patience, 'epoch')}, counted from epoch {first}"))
    if deadline.name:
        left = format_duration(max(0.0, deadline.left(run.clock.now())))
        lines.append(("Time limit", f"{left} remaining of {deadline.name}"))
    if run_settings.tensorboard:
        lines.append(("TensorBoard", f"tensorboard --logdir {shlex.quote(str(run.folder.path))}"))
    return lines
