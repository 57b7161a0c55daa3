"""`--strategy auto` on two or three GPUs of one machine: use what is faster in a short trial on them.

DataParallel wins if the GPUs cannot access each other directly, one process per GPU otherwise; with some networks and
GPUs either crashes or hangs. With four or more GPUs, and on several machines, auto always uses one process per GPU.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from camoxpert_cli import atomic, console
from camoxpert_cli.config.schema import Config
from camoxpert_cli.data.cache import default_folder
from camoxpert_cli.data.cores import cores_each, usable_cores
from camoxpert_cli.engine.build import find_given
from camoxpert_cli.engine.phases import build_phases
from camoxpert_cli.engine.strategy_choice import Choice
from camoxpert_cli.errors import DeviceError
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.run_trial import TrialResult, run_trial
from camoxpert_cli.launch.trial import Trial
from camoxpert_cli.parallel.device import Placement
from camoxpert_cli.parallel.strategy import FOR_SEVERAL, StrategyName, processes_of
from camoxpert_cli.run_folder import STRATEGY_FILE

# To be chosen over the first, a strategy must be faster by more than two trials of the same one differ: on real images,
# ddp also has one more process to load them.
_MARGIN = 1.02
_SECONDS = 6.0
_REMEMBERED = "strategies.json"


def fastest(outcomes: Mapping[StrategyName, TrialResult], key: str = "") -> Choice:
    """Choose the fastest strategy; the one tried first if they are about equal.

    Raises DeviceError if none works, or the error itself if all fail with the same one, which is about settings.
    """
    speeds = {name: median(each.compute) for name, each in outcomes.items() if not isinstance(each, Failure)}
    failures = {name: each for name, each in outcomes.items() if isinstance(each, Failure)}
    if not speeds:
        first = next(iter(failures.values()))
        if len(failures) > 1 and all(each == first for each in failures.values()):
            raise first.error(first.why)
        # A fix for one also helps the others, if there is one.
        hint = next(
            (each.hint for each in failures.values() if each.hint),
            "--gpus 1, and camox doctor to find the cause; see camox guide troubleshooting",
        )
        causes = "\n".join(f"  {name}: {each.why}" for name, each in failures.items())
        raise DeviceError("no strategy works on these GPUs", hint, causes)
    first_choice, best = next(iter(speeds)), max(speeds, key=lambda name: speeds[name])
    best = best if speeds[best] > _MARGIN * speeds[first_choice] else first_choice
    rounded: dict[str, float] = {name: round(speed, 2) for name, speed in speeds.items()}
    return Choice(best, rounded, {name: each.why for name, each in failures.items()}, key)


def choose(
    config: Config,
    placement: Placement,
    run_folder: Path | None,
    *,
    attempt: Callable[[Trial, int], TrialResult] | None = None,
    candidates: Sequence[StrategyName] = FOR_SEVERAL,
) -> Choice:
    """Return the earlier choice for the same machine, network and sizes, or run trials and choose now.

    A choice is stored in `run_folder` and in the user's cache folder: a notebook service may keep only one of them.
    `attempt` runs a trial with the given number of threads per process. Raises DeviceError if no candidate works,
    DataError if there are no images to train on.
    """
    key = identity(config, placement)
    remembered = _recall(key, run_folder)
    if remembered is not None:
        console.say(f"Strategy: {remembered}, from an earlier trial")
        return remembered
    if config.data.generated_images == 0:
        find_given(config.data)  # report problems there before minutes of trials
    console.say(
        f"Strategy: trying {' and '.join(candidates)} on {placement.count} GPUs; --strategy {candidates[0]} skips this"
    )
    attempt = attempt or (lambda trial, threads: run_trial(trial, threads=threads))
    stage = build_phases(config)[-1].stage.number
    outcomes: dict[StrategyName, TrialResult] = {}
    for name in candidates:
        settings = replace(config.run, strategy=name, gpus=placement.count, resume_from=None)
        trial = Trial(replace(config, run=settings), stage, seconds=_SECONDS)
        processes = processes_of(name, placement.count)
        outcomes[name] = attempt(trial, cores_each(processes))
        if isinstance(failure := outcomes[name], Failure):
            console.warn(f"strategy {name} failed on these GPUs: {failure.why}")
    choice = fastest(outcomes, key)
    console.say(f"Strategy: {choice}")
    _remember(choice)
    return choice


def identity(config: Config, placement: Placement) -> str:
    """Return a digest of everything that the choice depends on: machine, network and sizes."""
    train = config.train
    names = [torch.cuda.get_device_name(each) if each.type == "cuda" else "CPU" for each in placement.devices]
    facts = [
        [torch.__version__, torch.version.cuda, *names, usable_cores()],
        asdict(replace(config.model, backbone_weights=None)),
        [config.data.img_size, train.batch_size, config.stage2_batch_size, train.accumulation_steps],
        [train.precision, train.deterministic, train.use_ema, build_phases(config)[-1].stage.number],
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _recall(key: str, run_folder: Path | None) -> Choice | None:
    if run_folder is not None:
        with suppress(OSError, UnicodeDecodeError):
            kept = Choice.from_text((run_folder / STRATEGY_FILE).read_text(encoding="utf-8"))
            if kept is not None and kept.key == key:
                return kept
    kept = Choice.from_content(_all_remembered().get(key))
    return kept if kept is not None and kept.key == key else None


def _remember(choice: Choice) -> None:
    """Store a choice for later runs, if possible; the run that ran the trials keeps it anyway."""
    with suppress(OSError, RuntimeError):
        path = default_folder() / _REMEMBERED
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps({**_all_remembered(), choice.key: asdict(choice)}, indent=2) + "\n")


def _all_remembered() -> dict[str, Any]:
    with suppress(OSError, RuntimeError, ValueError):
        content = json.loads((default_folder() / _REMEMBERED).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}
