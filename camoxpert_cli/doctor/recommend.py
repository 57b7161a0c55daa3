"""Recommend a preset, a strategy and a training command from the readings."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from camoxpert_cli import console
from camoxpert_cli.config.resolve import resolve
from camoxpert_cli.config.schema import Config
from camoxpert_cli.doctor.check_machine import shared_memory_too_small
from camoxpert_cli.doctor.check_multi_gpu import best_strategy, works_without_peers
from camoxpert_cli.doctor.check_preset import MEMORY, halved_batches
from camoxpert_cli.doctor.finding import Question
from camoxpert_cli.doctor.readings import Readings
from camoxpert_cli.parallel.strategy import FOR_SEVERAL, StrategyName

# The main preset for several GPUs, and the one for a single GPU.
_SEVERAL, _ONE = "kaggle-2xT4", "kaggle-1xT4"
# They were made for a T4, of which torch sees 14.7 GiB.
_MADE_FOR = 14 * 2**30


@dataclass(frozen=True)
class Recommendation:
    """What to train with: `command` is complete except for the path to the data, `why` contains sentences."""

    preset: str
    strategy: str
    command: str
    why: tuple[str, ...]


def recommend(readings: Readings, question: Question, problems: Collection[str]) -> Recommendation:
    """Recommend the preset in question if it fits or only its batches do not, else the closest to this machine.

    `problems` are the names of the findings with status `problem`.
    """
    working = readings.working
    if not working or not question.needs_gpu:
        name, config = "quickstart", question.config
        if question.preset is not None and not question.needs_gpu:
            name = question.preset
        else:
            config = resolve(name, {}).config
        return _on_cpu(name, config)
    strategy = best_strategy(readings)
    flags: list[str] = []
    own = question.preset is not None and set(problems) <= {MEMORY}
    if question.preset is not None and own:
        preset, used = question.preset, question.cards(readings)
        why = ["It fits this machine."]
        if problems:
            flags = halved_batches(question).split()
            why = ["Halves the per-GPU batch size and keeps the global one; whether it fits was not measured."]
    else:
        used = working[:1] if strategy is None else working
        preset = _ONE if len(used) == 1 else _SEVERAL
        flags, why = _adapted(preset, readings, used)
    if used != tuple(range(len(used))) and (not own or question.config.run.devices is None):
        flags += ["--devices", ",".join(map(str, used))]
    if len(used) > 1 and strategy not in (None, FOR_SEVERAL[0]):
        flags += ["--strategy", str(strategy)]
    if shared_memory_too_small(readings, question):
        flags += ["--num-workers", "0"]
    command = " ".join(["camox train --preset", preset, *flags, "--dataset-path DATA"])
    if len(used) > 1 and strategy is not None:
        why.append(_why(readings, used, strategy))
        if works_without_peers(readings):
            command = f"NCCL_P2P_DISABLE=1 {command}"
        return Recommendation(preset, strategy, command, tuple(why))
    if len(working) > 1 and strategy is None:
        why.append("One GPU only: neither ddp nor dp passed its test.")
    return Recommendation(preset, "single", command, tuple(why))


def _why(readings: Readings, used: tuple[int, ...], strategy: StrategyName) -> str:
    if works_without_peers(readings):
        return "ddp passed its test without peer access between the GPUs."
    if strategy == FOR_SEVERAL[0]:
        return f"ddp, with one process for each of the {len(used)} GPUs, passed its test."
    return "ddp failed its test; dp (DataParallel) passed."


def _on_cpu(preset: str, config: Config) -> Recommendation:
    """Recommend a preset that trains on the CPU; `config` is its config."""
    command, data = f"camox train --preset {preset}", config.data
    if data.dataset_path or data.images:
        return Recommendation(preset, "single", command, ("It trains on the CPU.",))
    if data.generated_images > 0:
        return Recommendation(preset, "single", command, ("It trains on the CPU and needs no data.",))
    return Recommendation(preset, "single", f"{command} --dataset-path DATA", ("It trains on the CPU.",))


def _adapted(preset: str, readings: Readings, used: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Flags that adapt a preset to the GPUs `used` at its global batch size, and sentences about them."""
    config = resolve(preset, {}).config
    flags: list[str] = []
    gpus, each = console.counted(config.gpu_count, "GPU"), " each" if config.gpu_count > 1 else ""
    why = [f"The closest preset to this machine; made for {gpus} with 14.7 GiB{each}."]
    number = len(used)
    if number != config.gpu_count:
        stages = [max(1, round(images / number)) for images in config.global_batches]
        flags = ["--gpus", str(number), "--batch-size", str(stages[0]), "--stage2-batch-size", str(stages[1])]
        exact = [size * number for size in stages] == list(config.global_batches)
        why.append(
            f"Its learning rates match its global batch size, which these flags {'' if exact else 'nearly '}keep."
        )
    smallest = min(readings.seen[card].memory for card in used)
    if smallest < _MADE_FOR:
        why.append(
            f"{console.byte_size(smallest)} may not be enough: camox doctor --preset {preset} measures what it needs."
        )
    return flags, why
