"""Format the results of `camox benchmark`: JSON for programs, tables and sentences for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from camoxpert_cli import console
from camoxpert_cli.benchmark.benchmark import Benchmark, Row, devices_text, row_name
from camoxpert_cli.benchmark.options import TITLE
from camoxpert_cli.launch.processes import Failure
from camoxpert_cli.launch.trial import Measurement
from camoxpert_cli.parallel.strategy import processes_of

SESSION_HOURS, WEEK_HOURS = 12, 30  # Kaggle's limits
# Shares of the time above which something is reported.
_WAITING = 0.1
_SUMMING = 0.1
_GAIN = 1.05
# Seconds: an epoch that ends exactly with the session counts.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Section:
    """One table of the report: its title, header, rows, and notes below it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def to_json(result: Benchmark) -> dict[str, Any]:
    """Return the results as plain types. Shares are 0..1; what could not be measured is None."""
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
    """Format the report for a terminal, 80 columns wide."""
    parts = [console.filled("\n".join(_head(result)), indent=0)]
    for section in _sections(result):
        table = console.table([section.title, *section.header], section.rows)
        parts.append("\n".join([table, *(console.filled(note, indent=0) for note in section.notes)]))
    return "\n\n".join([*parts, console.filled("\n".join(verdict(result)), indent=0)])


def to_markdown(result: Benchmark) -> str:
    """Format the report as a Markdown page."""
    lines = [TITLE, "", *(f"- {line}" for line in _head(result)), ""]
    for section in _sections(result):
        header = [section.title, *section.header]
        table = [header, ["---", *["---:"] * len(section.header)], *section.rows]
        lines += [*(f"| {' | '.join(row)} |" for row in table), "", *(f"{note}\n" for note in section.notes)]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in verdict(result)), ""])


def verdict(result: Benchmark) -> list[str]:
    """Return sentences about what limits training and what would help."""
    sentences = [
        f"{_name(result, row)} was not measured: {row.outcome.why}."
        for row in result.rows
        if isinstance(row.outcome, Failure)
    ]
    measured = [(row, row.measured) for row in result.rows if row.measured is not None]
    limits = [
        each for row, one in measured for each in (_waiting(result, row, one), _summing(result, row, one)) if each
    ]
    if not limits:
        # The row in which loading comes closest to being the limit.
        row, one = min(measured, key=lambda each: median(each[1].loader) / median(each[1].compute))
        limits = [
            f"Training is compute-bound: in stage {row.stage.number} the loader alone delivers "
            f"{_speed(one.loader)} images/s, and {_count(result, row.gpus)} can consume {_speed(one.compute)}."
        ]
    return [*sentences, *limits, *_gains(result)]


def epochs_within(hours: float, stages: list[tuple[int, float]]) -> int:
    """Return how many epochs fit into `hours`; `stages` are pairs of epochs and seconds per epoch.

    Epochs after the last stage take as long as those of the last stage.
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
    threads = console.counted(machine["threads_per_process"], "thread")
    return [
        f"Machine: {machine['device']}, {devices_text(machine['gpus'], on_cpu=False)}, "
        f"{console.counted(machine['cores'], 'CPU core')}, {threads} per process, torch {machine['torch']}",
        f"Network: {recipe}{model.backbone}, {console.counted(model.num_experts, 'expert')}, {data.img_size} px",
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
        rows.append([_name(result, row), *cells])
    header = ["images/s", "range", "min/epoch", "speedup", "efficiency"]
    note = "Median and range of all repeats, end to end; validation and saving are not included."
    return Section("Training", header, rows, [note])


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
                "n/a" if one.communication is None else f"{1000 * one.communication:.1f} ms",
                f"{one.peak_memory_mib:.0f}",
            ]
        rows.append([_name(result, row), *cells])
    header = ["batch", "loader", "compute", "data wait", "all-reduce", "MiB"]
    note = (
        "batch: global batch size. loader: images/s when only loading. compute: images/s when only computing. data "
        "wait: share of end-to-end time spent waiting for the loader. all-reduce: time to sum the gradients over all "
        "processes while nothing else is computed; in training, it overlaps with the backward pass. n/a if it cannot "
        "be separated from it, as with dp. MiB: peak memory of "
        f"{'a process' if _on_cpu(result) else 'the fullest GPU'}."
    )
    notes = [note]
    if result.config.data.cache == "off":
        notes.append(
            "Without a cache, masks are decoded as well, as in the first epoch of a run; later epochs keep them in "
            "memory."
        )
    return Section("Breakdown", header, rows, notes)


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
        rows.append([f"{strategy}, {_count(result, gpus)}", *cells])
    epochs = " + ".join(str(row.stage.end - row.stage.first) for row in next(iter(_groups(result).values())))
    notes = [f"{epochs} epochs with validation, assuming that the whole backbone trains from the start of stage 2."]
    if result.claim:
        notes.append(f"Claimed, not measured here: {result.claim}.")
    header = ["hours", f"epochs in {SESSION_HOURS} h", f"epochs in {WEEK_HOURS} h"]
    return Section("Full run", header, rows, notes)


def _waiting(result: Benchmark, row: Row, one: Measurement) -> str:
    """A sentence on by how much loading is too slow and what may help; empty if it is not."""
    if one.data_wait is None or one.data_wait < _WAITING:
        return ""
    cores = result.machine["cores"]
    deliver = console.counted(cores, "CPU core delivers", "CPU cores deliver")
    if result.config.data.cache == "off":
        advice = "omit --cache off, so that images are resized only once"
    elif one.workers * processes_of(row.strategy, row.gpus) < cores and not _on_cpu(result):
        advice = "--num-workers auto uses all cores"
    else:
        advice = "more CPU cores would help, more GPUs would not"
    return (
        f"{_name(result, row)}: {deliver} {_speed(one.loader)} images/s, "
        f"{_count(result, row.gpus)} can consume {_speed(one.compute)}, and {one.data_wait:.0%} of the time is spent "
        f"waiting for images: {advice}."
    )


def _summing(result: Benchmark, row: Row, one: Measurement) -> str:
    """A sentence on communication if it takes long, else empty."""
    share = (one.communication or 0.0) * median(one.compute) / row.step_images
    if share < _SUMMING:
        return ""
    return (
        f"{_name(result, row)}: the gradient all-reduce alone takes {share:.0%} of the time of a step, and overlaps "
        "with the backward pass only in part: a larger --batch-size, or "
        f"--accumulation-steps {2 * row.accumulation}, makes it less frequent."
    )


def _gains(result: Benchmark) -> list[str]:
    """Sentences on the speedup of each number of GPUs over the first, in the longest stage."""
    sentences = []
    first = result.rows[0].gpus
    for (gpus, strategy), members in _groups(result).items():
        row = max(members, key=lambda each: (each.stage.end - each.stage.first, each.stage.number))
        if gpus == first or row.speedup is None:
            continue
        what = f"{_count(result, gpus)} with {strategy} are {row.speedup:.2f} times as fast as {first} in stage "
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


def _name(result: Benchmark, row: Row) -> str:
    return row_name(row, _on_cpu(result))


def _on_cpu(result: Benchmark) -> bool:
    return str(result.machine["device"]).startswith("CPU")


def _count(result: Benchmark, count: int) -> str:
    return devices_text(count, _on_cpu(result))


def _speed(repeats: Sequence[float]) -> str:
    """The median of repeats in images/s, with one decimal place below ten, where rounding would lose too much."""
    value = median(repeats)
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
