"""What `camox benchmark` has to say: JSON for programs, tables and sentences for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.benchmark.benchmark import Benchmark, Row
from camoxpert_cli.benchmark.options import TITLE
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.trial import Measurement
from camoxpert_cli.parallel.strategy import processes_of

SESSION_HOURS, WEEK_HOURS = 12, 30  # Kaggle's limits
# Shares of the time from which on something is worth a sentence.
_WAITING = 0.1
_SUMMING = 0.1
_GAIN = 1.05
# Seconds: an epoch that ends with the session is in it.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Section:
    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def to_json(result: Benchmark) -> dict[str, Any]:
    """Plain types. Shares are 0..1; what could not be measured is None."""
    return {
        "machine": result.machine,
        "results": [
            {
                "gpus": row.gpus,
                "strategy": row.strategy,
                "stage": row.stage.number,
                "images_per_s": _rounded(row.images_per_s),
                "minutes_per_epoch": _rounded(result.minutes(row)),
                "speedup": _rounded(row.speedup),
                "efficiency": _rounded(_efficiency(result, row)),
                "data_wait": None if row.measured is None else _rounded(row.measured.data_wait),
                "peak_memory_mib": None if row.measured is None else _rounded(row.measured.peak_memory_mib),
            }
            for row in result.rows
        ],
    }


def to_text(result: Benchmark) -> str:
    """For a terminal, 80 columns wide."""
    parts = [console.filled("\n".join(_head(result)), indent=0)]
    for section in _sections(result):
        table = console.table([section.title, *section.header], section.rows)
        parts.append("\n".join([table, *(console.filled(note, indent=0) for note in section.notes)]))
    return "\n\n".join([*parts, console.filled("\n".join(verdict(result)), indent=0)])


def to_markdown(result: Benchmark) -> str:
    """The same as a page."""
    lines = [TITLE, "", *(f"- {line}" for line in _head(result)), ""]
    for section in _sections(result):
        header = [section.title, *section.header]
        table = [header, ["---", *["---:"] * len(section.header)], *section.rows]
        lines += [*(f"| {' | '.join(row)} |" for row in table), "", *(f"{note}\n" for note in section.notes)]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in verdict(result)), ""])


def verdict(result: Benchmark) -> list[str]:
    """What limits training, and what would help, a sentence each."""
    sentences = [
        f"{_name(row)} is left out: {row.outcome.why}." for row in result.rows if isinstance(row.outcome, Failure)
    ]
    measured = [(row, row.measured) for row in result.rows if row.measured is not None]
    limits = [each for row, one in measured for each in (_waiting(result, row, one), _summing(row, one)) if each]
    if not limits:
        # Where loading comes closest to being the limit.
        row, one = min(measured, key=lambda each: median(each[1].loader) / median(each[1].compute))
        limits = [
            f"Computing is the limit: in stage {row.stage.number} loading alone would feed "
            f"{_speed(one.loader)} images/s, and {_count(result, row.gpus)} could take {_speed(one.compute)}."
        ]
    return [*sentences, *limits, *_gains(result)]


def epochs_within(hours: float, stages: list[tuple[int, float]]) -> int:
    """Epochs from the first on that `hours` hold, of stages with so many epochs of so many seconds.

    Where all are done, further ones take as long as the last stage's.
    """
    left = 3600 * hours + _ROUNDING
    done = 0
    for epochs, seconds in stages:
        fitting = math.floor(left / seconds)
        if fitting < epochs:
            return done + fitting
        done, left = done + epochs, left - epochs * seconds
    return done + math.floor(left / stages[-1][1])


def _head(result: Benchmark) -> list[str]:
    machine, model, data = result.machine, result.config.model, result.config.data
    recipe = "" if result.preset is None else f"preset {result.preset}, "
    return [
        f"Machine: {machine['device']}, {machine['gpus']} GPUs, {machine['cores']} CPU cores, threads a process "
        f"{machine['threads_a_process']}, torch {machine['torch']}",
        f"Network: {recipe}{model.backbone}, {model.num_experts} experts, {data.img_size} px",
        f"Data: {result.data_source}",
    ]


def _sections(result: Benchmark) -> list[Section]:
    return [_speeds(result), _parts(result), _recipe(result)]


def _speeds(result: Benchmark) -> Section:
    rows = []
    for row in result.rows:
        cells = ["-"] * 5
        if row.measured is not None and row.images_per_s is not None:
            rates = row.measured.end_to_end
            cells = [
                f"{row.images_per_s:.1f}",
                f"{min(rates):.1f}-{max(rates):.1f}",
                f"{result.minutes(row):.2f}",
                _or_dash(row.speedup, ".2f"),
                _or_dash(_efficiency(result, row), ".0%"),
            ]
        rows.append([_name(row), *cells])
    header = ["images/s", "spread", "min/epoch", "speed-up", "efficiency"]
    return Section("Training", header, rows, ["Medians end to end, validation and saving not included."])


def _parts(result: Benchmark) -> Section:
    rows = []
    for row in result.rows:
        one = row.measured
        cells = ["-"] * 6
        if one is not None:
            cells = [
                f"{row.step_images}",
                _speed(one.loader),
                f"{median(one.compute):.1f}",
                _or_dash(one.data_wait, ".0%"),
                "mixed" if one.communication is None else f"{1000 * one.communication:.1f} ms",
                f"{one.peak_memory_mib:.0f}",
            ]
        rows.append([_name(row), *cells])
    header = ["batch", "loader", "compute", "waiting", "gradients", "MiB"]
    note = (
        "batch: pictures of an optimizer step over all GPUs. loader: only reading pictures, images/s. compute: only "
        "computing, images/s. waiting: for pictures, end to end. gradients: their sum over processes. MiB: at most, on "
        f"{'a process' if _on_cpu(result) else 'the fullest GPU'}."
    )
    notes = [note]
    if result.config.data.cache == "off":
        notes.append(
            "Without a cache masks are decoded too, as in a run's first epoch; later epochs have them in memory."
        )
    return Section("Apart", header, rows, notes)


def _recipe(result: Benchmark) -> Section:
    rows = []
    for (gpus, strategy), members in _groups(result).items():
        seconds = [result.epoch_seconds(row) for row in members]
        known = [each for each in seconds if each is not None]
        cells = ["-"] * 3
        if len(known) == len(members):
            stages = [(row.stage.end - row.stage.first, each) for row, each in zip(members, known, strict=True)]
            hours = sum(epochs * each for epochs, each in stages) / 3600
            cells = [
                f"{hours:.2f}" if hours < 10 else f"{hours:.0f}",
                *(str(epochs_within(limit, stages)) for limit in (SESSION_HOURS, WEEK_HOURS)),
            ]
        rows.append([f"{gpus} {strategy}", *cells])
    epochs = " + ".join(str(row.stage.end - row.stage.first) for row in next(iter(_groups(result).values())))
    notes = [f"{epochs} epochs with validation, as if the backbone's stages all trained from the start of stage 2."]
    if result.claim:
        notes.append(f"Claimed, and measured by nobody here: {result.claim}.")
    header = ["hours", f"epochs in {SESSION_HOURS} h", f"epochs in {WEEK_HOURS} h"]
    return Section("Whole recipe", header, rows, notes)


def _waiting(result: Benchmark, row: Row, one: Measurement) -> str:
    """Where images come too slowly: by how much, and what may help."""
    if one.data_wait is None or one.data_wait < _WAITING:
        return ""
    cores = result.machine["cores"]
    if result.config.data.cache == "off":
        advice = "leave out --cache off, so that pictures are resized once"
    elif one.workers * processes_of(row.strategy, row.gpus) < cores and not _on_cpu(result):
        advice = "--num-workers auto takes all cores"
    else:
        advice = "more GPUs would not help, more cores would"
    return (
        f"{_name(row)}: the {cores} CPU cores feed {_speed(one.loader)} images/s, {_count(result, row.gpus)} could "
        f"take {_speed(one.compute)}, and {one.data_wait:.0%} of the time is waiting for pictures: {advice}."
    )


def _summing(row: Row, one: Measurement) -> str:
    """Where communication takes long."""
    share = (one.communication or 0.0) * median(one.compute) / row.step_images
    if share < _SUMMING:
        return ""
    return (
        f"{_name(row)}: summing gradients takes {share:.0%} of a step: a larger --batch-size, or --accumulation-steps "
        f"{2 * row.accumulation}, makes it rarer."
    )


def _gains(result: Benchmark) -> list[str]:
    """What each number of GPUs brings over the first one, in the stage that takes longest."""
    sentences = []
    first = result.rows[0].gpus
    for (gpus, strategy), members in _groups(result).items():
        row = max(members, key=lambda each: (each.stage.end - each.stage.first, each.stage.number))
        if gpus == first or row.speedup is None:
            continue
        what = f"{_count(result, gpus)} by {strategy} are {row.speedup:.2f} times as fast as {first} in stage "
        close = "" if row.speedup >= _GAIN else f": train with --gpus {first}"
        sentences.append(f"{what}{row.stage.number}{close}.")
    return sentences


def _groups(result: Benchmark) -> dict[tuple[int, str], list[Row]]:
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in result.rows:
        groups.setdefault((row.gpus, row.strategy), []).append(row)
    return groups


def _efficiency(result: Benchmark, row: Row) -> float | None:
    return None if row.speedup is None else row.speedup * result.rows[0].gpus / row.gpus


def _name(row: Row) -> str:
    return f"{row.gpus} {row.strategy}, stage {row.stage.number}"


def _on_cpu(result: Benchmark) -> bool:
    return str(result.machine["device"]).startswith("CPU")


def _count(result: Benchmark, count: int) -> str:
    noun, plural = ("process", "processes") if _on_cpu(result) else ("GPU", "GPUs")
    return f"{count} {noun if count == 1 else plural}"


def _speed(repeats: Sequence[float]) -> str:
    """Images a second, the median of repeats: to one place below ten, where the next whole number says too little."""
    value = median(repeats)
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
