"""From readings to the preset, the strategy and the command to train with."""

from __future__ import annotations

from dataclasses import dataclass

from camoxpert_cli.config.load import global_batches, gpu_count, resolve
from camoxpert_cli.engine.doctor.finding import Question
from camoxpert_cli.engine.doctor.machine_findings import shared_memory_too_small
from camoxpert_cli.engine.doctor.readings import Failure, Readings, TeamTrial
from camoxpert_cli.engine.doctor.words import count, in_words

# The recipe that the others vary, and the one for a single card.
_SEVERAL, _ONE = "kaggle-2xT4", "kaggle-1xT4"
# Of a T4, for which these were made, torch sees 14.7 GiB.
_MADE_FOR = 14 * 2**30


@dataclass(frozen=True)
class Recommendation:
    """`command` trains, but for the data; `why` are sentences."""

    preset: str
    strategy: str
    command: str
    why: tuple[str, ...]


def recommend(readings: Readings, question: Question, *, fits: bool) -> Recommendation:
    """The preset that was asked about where it `fits`, else the nearest to this machine."""
    working = readings.working
    if not working or not question.needs_gpu:
        name = question.preset if question.preset is not None and not question.needs_gpu else "quickstart"
        reason = (
            "It trains on the CPU." if not question.needs_gpu else "Without a GPU only generated pictures make sense."
        )
        return Recommendation(name, "single", f"camox train --preset {name}", (reason,))
    strategy, said = _strategy(readings)
    count_used = 1 if strategy == "single" else len(working)
    preset = question.preset if fits else None
    if preset is not None:
        wanted = question.config.run.gpus
        count_used = len(working) if wanted == "all" else gpu_count(question.config)
        strategy = strategy if count_used > 1 else "single"
        flags: list[str] = []
        why = ["It fits this machine."]
    else:
        preset = _ONE if count_used == 1 else _SEVERAL
        flags, why = _adapted(preset, readings, count_used)
    used = working[:count_used]
    if used != tuple(range(count_used)):
        flags += ["--devices", ",".join(map(str, used))]
    if strategy == "dp":
        flags += ["--strategy", "dp"]
    if shared_memory_too_small(readings, question):
        flags += ["--num-workers", "0"]
    command = " ".join(["camox train --preset", preset, *flags, "--dataset-path DATA"])
    if _needs_no_peers(readings) and strategy == "ddp":
        command = f"NCCL_P2P_DISABLE=1 {command}"
    why.append(said if count_used > 1 or len(working) > 1 else "One GPU needs no strategy.")
    return Recommendation(preset, strategy, command, tuple(why))


def _needs_no_peers(readings: Readings) -> bool:
    return isinstance(readings.ddp, Failure) and isinstance(readings.ddp_without_peers, TeamTrial)


def _strategy(readings: Readings) -> tuple[str, str]:
    """Of the cards that work, and why."""
    number = len(readings.working)
    if number == 1:
        return "single", ""
    if isinstance(readings.ddp, TeamTrial):
        return "ddp", f"ddp: a process for each of {number} GPUs; its trial went well."
    if _needs_no_peers(readings):
        return "ddp", "ddp, without direct access between the GPUs: so its trial went well."
    if isinstance(readings.data_parallel, TeamTrial):
        return "dp", "dp: the trial of ddp failed, that of DataParallel went well."
    return "single", "One GPU only: neither ddp nor dp worked here."


def _adapted(preset: str, readings: Readings, used: int) -> tuple[list[str], list[str]]:
    """Flags that fit a preset to so many cards, keeping its pictures a step, and what to say about it."""
    config = resolve(preset, {}).config
    flags: list[str] = []
    why = [f"Made for {count(gpu_count(config), 'GPU')} of 14.7 GiB; the nearest to this machine."]
    if used != gpu_count(config):
        stages = [max(1, round(pictures / used)) for pictures in global_batches(config)]
        flags = ["--gpus", str(used), "--batch-size", str(stages[0]), "--stage2-batch-size", str(stages[1])]
        exact = [size * used for size in stages] == list(global_batches(config))
        why.append(
            f"Its learning rates belong to its pictures a step, which these batches keep{'' if exact else ', nearly'}."
        )
    smallest = min(readings.seen[number].memory for number in readings.working[:used])
    if smallest < _MADE_FOR:
        why.append(f"{in_words(smallest)} may be too little: camox doctor --preset {preset} measures it.")
    return flags, why
