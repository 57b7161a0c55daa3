"""`camox benchmark`: how long an epoch takes with each number of GPUs, measured by trials of the code that trains."""

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
from camoxpert_cli.engine.build import build_phases, open_data
from camoxpert_cli.engine.stages import Stage
from camoxpert_cli.errors import DeviceError, UsageError
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_trial import TrialResult, run_trial
from camoxpert_cli.launch.trial import Measurement, Trial, TrialData
from camoxpert_cli.parallel.device import place
from camoxpert_cli.parallel.strategy import FOR_SEVERAL, STRATEGIES, processes_of
from camoxpert_cli.run_folder import RunFolder, versions
from camoxpert_cli.temporary import temporary_folder

# Training images of COD10K and CAMO together, on which published networks are trained.
PAPERS_IMAGES = 4040
_GENERATED = 32


@dataclass(frozen=True)
class Row:
    """A stage with so many GPUs and a strategy. `speedup` and `efficiency` (1 is all of it) are against the first."""

    gpus: int
    strategy: str
    stage: Stage
    accumulation: int
    outcome: TrialResult
    speedup: float | None = None

    @property
    def measured(self) -> Measurement | None:
        return None if isinstance(self.outcome, Failure) else self.outcome

    @property
    def images_per_s(self) -> float | None:
        """Of training end to end, the median of all repeats."""
        return None if self.measured is None else median(self.measured.end_to_end)

    @property
    def step_images(self) -> int:
        """Images of an optimizer step over all GPUs."""
        return self.stage.batch_size * self.gpus * self.accumulation


@dataclass(frozen=True)
class Benchmark:
    """`train` and `validation` are the images of an epoch, `data_source` says in words where they come from."""

    machine: dict[str, Any]
    config: Config
    preset: str | None
    data_source: str
    train: int
    validation: int
    rows: list[Row]

    @cached_property
    def claim(self) -> str:
        """How fast some document says the preset is; nothing where none does."""
        return "" if self.preset is None else read_preset(self.preset).claim

    def minutes(self, row: Row) -> float | None:
        """For the training of an epoch."""
        return None if row.images_per_s is None else self.train / row.images_per_s / 60

    def epoch_seconds(self, row: Row) -> float | None:
        """For an epoch's training and validation."""
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
    """Measure every stage with each of the `counts` of GPUs and each strategy that can use them.

    None stands for what there is: one GPU and all of them, every strategy; as many steps as some seconds hold.
    `attempt` runs a trial with so many threads for each process. Raises CamoxError for settings, images and devices
    that cannot be used, and where nothing could be measured.
    """
    attempt = attempt or (lambda trial, threads: run_trial(trial, threads=threads))
    resolved = resolve(preset, flags)
    if resolved.auto:
        raise UsageError(
            "--batch-size auto is for camox train, which says what it found",
            "give the batches to measure as numbers",
        )
    config = resolved.config
    on_cpu = config.run.device == "cpu" or (config.run.device == "auto" and counts is None and not _gpus())
    if counts is None:
        counts = sorted({1, 1 if on_cpu else max(1, _gpus())})
    for name in strategies or ():
        if on_cpu and STRATEGIES[name].needs_gpus:
            raise UsageError(f"strategy {name} needs GPUs, and this benchmark is on the CPU", "--strategy ddp")
    if not on_cpu:
        _require_gpus(max(counts))
    device = "cpu" if on_cpu else "cuda"
    whole = _settings(preset, flags, device, max(counts), FOR_SEVERAL[0]).config
    place(whole.run, sync_batchnorm=whole.train.sync_batchnorm)  # refuses before images are made
    plan = [
        (count, strategy, _settings(preset, flags, device, count, strategy))
        for count in counts
        for strategy in _strategies_of(count, strategies, on_cpu)
    ]
    with temporary_folder() as temporary:
        data, images, described, (train, validation) = _trial_data(config, temporary)
        # On the CPU a process stands for a GPU: each has the same cores, however many there are.
        rows = []
        for count, strategy, each in plan:
            threads = cores_each(max(counts) if on_cpu else processes_of(strategy, count))
            for stage in dict.fromkeys(phase.stage for phase in build_phases(each.config)):
                trial = Trial(replace(each.config, data=data), stage.number, images, steps, repeats)
                outcome = attempt(trial, threads)
                rows.append(Row(count, strategy, stage, each.config.train.accumulation_steps, outcome))
                _tell(rows[-1])
    _require_any(rows)
    return Benchmark(_machine(rows), config, preset, described, train, validation, with_speedups(rows))


def with_speedups(rows: Sequence[Row]) -> list[Row]:
    """Rows with their speed-up over the first number of GPUs, in the same stage and, where it has it, strategy."""
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
    """What `camox train` would take for so many GPUs, so that a preset's images of a step stay the same."""
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
        asked = f"{most} GPUs were" if most > 1 else "1 GPU was"
        raise DeviceError(
            f"{asked} asked for, and this machine has {available or 'none'}",
            f"camox benchmark {f'--gpus {available}' if available else '--device cpu --gpus 1,2 measures processes'}; "
            "on Kaggle, the notebook's accelerator setting decides how many there are",
        )


def _trial_data(config: Config, folder: Path) -> tuple[DataConfig, TrialData, str, tuple[int, int]]:
    """Settings and images for trials, where they come from in words, and how many an epoch has to train and validate.

    Resized images are cached before the clock runs, as in a run.
    """
    data = config.data
    if data.dataset_path or data.images:
        found = open_data(data, config.train.seed, RunFolder(folder, writes=False))
        files, train, validation = found.all_training, found.train, found.validation
        counts = (len(train), len(validation))
        described = f"{counts[0]} pictures an epoch, {counts[1]} to validate on: {', '.join(data.dataset_path)}"
    else:
        height, width = PHOTOGRAPH_SIZE
        console.say(f"Data: generating {_GENERATED} pictures of {width}×{height}, the size of COD10K's")
        files = tuple(write_photographs(folder / "pictures", _GENERATED))
        train = validation = list(files)
        counts = (PAPERS_IMAGES, round(PAPERS_IMAGES * data.val_fraction))
        described = (
            f"{counts[0]} pictures an epoch, {counts[1]} to validate on; no data was given: extrapolated from "
            f"{_GENERATED} generated JPEGs of {width}×{height}"
        )
        data = replace(data, cache=str(folder / "cache") if data.cache == "auto" else data.cache)
    open_cache(data.cache, files, data.img_size)
    rows = {pair: row for row, pair in enumerate(files)}
    chosen = TrialData(files, tuple(rows[pair] for pair in train), tuple(rows[pair] for pair in validation))
    return data, chosen, described, counts


def _tell(row: Row) -> None:
    name = f"{row.gpus} {row.strategy}, stage {row.stage.number}"
    if isinstance(row.outcome, Failure):
        console.warn(f"{name} is left out: {row.outcome.why}")
    else:
        console.say(f"{name}: {row.images_per_s:.1f} images/s")


def _require_any(rows: Sequence[Row]) -> None:
    """Raise the first trial's error where no trial worked."""
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
        "threads_a_process": measured.threads,
        "memory_mib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20),
        "platform": platform.platform(),
        **{name: known[name] for name in ("python", "torch", "camox")},
    }
