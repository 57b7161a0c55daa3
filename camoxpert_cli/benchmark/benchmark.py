"""`camox benchmark`: measure the time per epoch for each number of GPUs with trials of the actual training code."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch

from camoxpert_cli import console
from camoxpert_cli.config.diff import keep_preset_batches
from camoxpert_cli.config.presets import read_preset
from camoxpert_cli.config.resolve import Resolved, resolve
from camoxpert_cli.config.schema import Config, DataConfig
from camoxpert_cli.data.cache import open_cache
from camoxpert_cli.data.cores import cores_each, usable_cores
from camoxpert_cli.data.synthetic import PHOTOGRAPH_SIZE, write_photographs
from camoxpert_cli.engine.build import open_data
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.errors import DeviceError, UsageError
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_trial import TrialResult, run_trial
from camoxpert_cli.launch.trial import Measurement, Trial, TrialData
from camoxpert_cli.parallel.device import place
from camoxpert_cli.parallel.strategy import FOR_SEVERAL, STRATEGIES, processes_of
from camoxpert_cli.run_folder import RunFolder, versions
from camoxpert_cli.temporary import temporary_folder

# Training images of COD10K plus CAMO, the usual training set in the literature.
PAPERS_IMAGES = 4040
_GENERATED = 32


@dataclass(frozen=True)
class Row:
    """Result for one stage, number of GPUs and strategy. `speedup` is relative to the first number of GPUs."""

    gpus: int
    strategy: str
    stage: Stage
    accumulation: int
    outcome: TrialResult
    speedup: float | None = None

    @property
    def measured(self) -> Measurement | None:
        """The measurement; None if the trial failed."""
        return None if isinstance(self.outcome, Failure) else self.outcome

    @property
    def images_per_s(self) -> float | None:
        """End-to-end training speed, the median of all repeats."""
        return None if self.measured is None else median(self.measured.end_to_end)

    @property
    def step_images(self) -> int:
        """The global batch size: images per optimizer step over all GPUs and accumulation."""
        return self.stage.batch_size * self.gpus * self.accumulation


@dataclass(frozen=True)
class Benchmark:
    """All results. `train` and `validation` are images per epoch; `data_source` describes where they come from."""

    machine: dict[str, Any]
    config: Config
    preset: str | None
    data_source: str
    train: int
    validation: int
    rows: list[Row]

    @cached_property
    def claim(self) -> str:
        """The speed that a document claims for the preset; empty if none does."""
        return "" if self.preset is None else read_preset(self.preset).claim

    def minutes(self, row: Row) -> float | None:
        """Return the minutes that training takes per epoch, without validation."""
        return None if row.images_per_s is None else self.train / row.images_per_s / 60

    def epoch_seconds(self, row: Row) -> float | None:
        """Return the seconds that training and validation take per epoch."""
        minutes = self.minutes(row)
        if minutes is None or row.measured is None:
            return None
        validation = row.measured.validation
        return 60 * minutes + (0.0 if validation is None else self.validation / validation)


def benchmark(
    preset: str | None,
    flags: Mapping[str, Any],
    counts: Sequence[int] | None,
    strategies: Sequence[str] | None,
    *,
    steps: int | None,
    repeats: int,
    attempt: Callable[[Trial, int], TrialResult] | None = None,
) -> Benchmark:
    """Measure every stage with each number of GPUs in `counts` and each strategy that can use them.

    None means: one GPU and all of them; every strategy; as many steps as fit into a few seconds. `attempt` runs a
    trial with a number of threads per process. Raises CamoxError for unusable settings, images or devices, and if
    nothing could be measured.
    """
    attempt = attempt or (lambda trial, threads: run_trial(trial, threads=threads))
    resolved = resolve(preset, flags)
    if resolved.auto:
        raise UsageError(
            "camox benchmark does not support --batch-size auto",
            "pass the batch sizes to measure as numbers, such as --batch-size 8 --stage2-batch-size 6",
        )
    config = resolved.config
    on_cpu = config.run.device == "cpu" or (config.run.device == "auto" and counts is None and not _gpus())
    if counts is None:
        counts = sorted({1, 1 if on_cpu else max(1, _gpus())})
    for name in strategies or ():
        if on_cpu and STRATEGIES[name].needs_gpus:
            raise UsageError(f"strategy {name} needs GPUs, but this benchmark runs on the CPU", "--strategy ddp")
    if not on_cpu:
        _require_gpus(max(counts))
    device = "cpu" if on_cpu else "cuda"
    whole = _settings(preset, flags, device, max(counts), FOR_SEVERAL[0]).config
    place(whole.run, sync_batchnorm=whole.train.sync_batchnorm)  # raises before images are generated
    plan = [
        (count, strategy, _settings(preset, flags, device, count, strategy))
        for count in counts
        for strategy in _strategies_of(count, strategies, on_cpu)
    ]
    with temporary_folder() as temporary:
        data, images, described, (train, validation) = _trial_data(config, temporary)
        # On the CPU a process stands for a GPU: each has the same number of cores, however many processes there are.
        rows = []
        for count, strategy, each in plan:
            threads = cores_each(max(counts) if on_cpu else processes_of(strategy, count))
            for stage in dict.fromkeys(phase.stage for phase in build_phases(each.config)):
                trial = Trial(replace(each.config, data=data), stage.number, images, steps, repeats)
                outcome = attempt(trial, threads)
                rows.append(Row(count, strategy, stage, each.config.train.accumulation_steps, outcome))
                _report(rows[-1], on_cpu)
    _require_any(rows)
    return Benchmark(_machine(rows), config, preset, described, train, validation, with_speedups(rows))


def with_speedups(rows: Sequence[Row]) -> list[Row]:
    """Return rows with their speedup over the first number of GPUs, same stage and, if measured, same strategy."""
    done = []
    for row in rows:
        first = [
            each
            for each in rows
            if each.gpus == rows[0].gpus and each.stage.number == row.stage.number and each.images_per_s is not None
        ]
        first.sort(key=lambda each: each.strategy != row.strategy)
        speedup = None
        if first and first[0].images_per_s and row.images_per_s is not None:
            speedup = row.images_per_s / first[0].images_per_s
        done.append(replace(row, speedup=speedup))
    return done


def _settings(preset: str | None, flags: Mapping[str, Any], device: str, count: int, strategy: str) -> Resolved:
    """The settings that `camox train` would use for `count` GPUs at the preset's global batch size."""
    run = {"run.device": device, "run.gpus": str(count), "run.strategy": strategy}
    return keep_preset_batches(resolve(preset, {**flags, **run}))


def _strategies_of(count: int, strategies: Sequence[str] | None, on_cpu: bool) -> Sequence[str]:
    if count == 1:
        return ["single"]
    return strategies or [name for name in FOR_SEVERAL if not (on_cpu and STRATEGIES[name].needs_gpus)]


def _gpus() -> int:
    return torch.cuda.device_count()


def _require_gpus(most: int) -> None:
    available = _gpus()
    if most > available:
        asked = f"{console.counted(most, 'GPU')} {'was' if most == 1 else 'were'}"
        raise DeviceError(
            f"{asked} requested, but this machine has {available or 'none'}",
            f"camox benchmark {f'--gpus {available}' if available else '--device cpu --gpus 1,2 (CPU processes)'}; "
            "on Kaggle, the notebook's accelerator setting determines the number of GPUs",
        )


def _trial_data(config: Config, folder: Path) -> tuple[DataConfig, TrialData, str, tuple[int, int]]:
    """Settings and images for trials, a description of the data, and training and validation images per epoch.

    As in a run, resized images are cached before anything is timed.
    """
    data = config.data
    if data.dataset_path or data.images:
        found = open_data(data, config.train.seed, RunFolder(folder, writes=False))
        files, train, validation = found.all_training, found.train, found.validation
        counts = (found.images_per_epoch, len(validation))
        described = f"{counts[0]} training images per epoch, {counts[1]} for validation: {', '.join(data.dataset_path)}"
    else:
        height, width = PHOTOGRAPH_SIZE
        console.say(f"Data: generating {_GENERATED} images of {width}×{height}, a typical size in COD10K")
        files = tuple(write_photographs(folder / "images", _GENERATED))
        train = validation = list(files)
        counts = (PAPERS_IMAGES, round(PAPERS_IMAGES * data.val_fraction))
        described = (
            f"{counts[0]} training images per epoch, {counts[1]} for validation; no dataset was given, so this is "
            f"extrapolated from {_GENERATED} generated JPEGs of {width}×{height}"
        )
        data = replace(data, cache=str(folder / "cache") if data.cache == "auto" else data.cache)
    open_cache(data.cache, files, data.img_size)
    rows = {pair: row for row, pair in enumerate(files)}
    chosen = TrialData(files, tuple(rows[pair] for pair in train), tuple(rows[pair] for pair in validation))
    return data, chosen, described, counts


def devices_text(count: int, on_cpu: bool) -> str:
    """Return `1 GPU`, `2 GPUs` or, on the CPU, `2 processes`."""
    return console.counted(count, "process", "processes") if on_cpu else console.counted(count, "GPU")


def row_name(row: Row, on_cpu: bool) -> str:
    """Return the label of a row, such as `ddp, 2 GPUs, stage 1`."""
    return f"{row.strategy}, {devices_text(row.gpus, on_cpu)}, stage {row.stage.number}"


def _report(row: Row, on_cpu: bool) -> None:
    name = row_name(row, on_cpu)
    if isinstance(row.outcome, Failure):
        console.warn(f"{name} was not measured: {row.outcome.why}")
    else:
        console.say(f"{name}: {row.images_per_s:.1f} images/s")


def _require_any(rows: Sequence[Row]) -> None:
    """Raise the first trial's error if no trial worked."""
    if any(row.measured is not None for row in rows):
        return
    failure = rows[0].outcome
    assert isinstance(failure, Failure)
    raise failure.error(f"nothing could be measured: {failure.why}")


def _machine(rows: Sequence[Row]) -> dict[str, Any]:
    measured = next(row.measured for row in rows if row.measured is not None)
    known = versions()
    return {
        "device": "CPU" if measured.device.startswith("CPU") else measured.device,
        "gpus": _gpus(),
        "cores": usable_cores(),
        "threads_per_process": measured.threads,
        "memory_mib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20),
        "platform": platform.platform(),
        **{name: known[name] for name in ("python", "torch", "camox")},
    }
