"""What is shown of a run while it trains."""

from __future__ import annotations

import time

from camoxpert_cli import console
from camoxpert_cli.console import Report
from camoxpert_cli.engine.build import steps_per_epoch
from camoxpert_cli.engine.optimizer import learning_rates
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.stages import Phase
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.throughput import Forecast, forecast, roughly
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.metrics.measures import EACH_EPOCH
from camoxpert_cli.parallel.memory import peak_of_gpus, resident, total_of


def report_step(run: Run, phase: Phase, number: int, losses: LossValues, wait: float) -> Report:
    """After optimizer step `number` (from 0) of an epoch, in which the share `wait` of the time went into waiting."""
    assert run.state.optimizer is not None
    rates = [f"{name} {rate:.1e}" for name, rate in learning_rates(run.state.optimizer).items()]
    speed = run.reporter.throughput.images_per_s(phase)
    coming = forecast_of(run)
    line = [f"loss {_short(losses.total)}", f"lr {run.state.progress.rate:.1e}"]
    line += [f"{speed:.{0 if speed >= 10 else 1}f} img/s"] if speed else []
    line += [f"wait {wait:.0%}", *([] if coming is None else [f"left {coming.run_left}"])]
    parts = [f"{name} {_short(value)}" for name, value in losses._asdict().items() if name != "total"]
    steps = steps_per_epoch(run.config, phase.stage, len(run.data.train))
    rows = [
        (f"stage {phase.stage.number}", f"step {number + 1} of {steps}, learning rate: {', '.join(rates)}"),
        ("loss", f"{_short(losses.total)}: {', '.join(parts)}"),
        ("speed", f"{f'{speed:.1f} img/s, ' if speed else ''}data wait {wait:.0%}, {_memory(run)}"),
        ("left", "not known yet" if coming is None else str(coming)),
    ]
    return Report("  ".join(line), [f"  {title:<9}{text}" for title, text in rows])


def epoch_line(run: Run, loss: float, scores: Scores, seconds: float, *, better: bool) -> str:
    """For the epoch that is complete: at most 80 columns."""
    time_taken = f"{seconds:.1f} s" if seconds < 100 else roughly(seconds)
    measured = "  ".join(f"{each.label} {scores.measures[each.name]:.4f}" for each in EACH_EPOCH if each.epoch_line)
    return (
        f"Epoch {run.state.progress.epoch}/{run.config.train.epochs}  loss {_short(loss)}  {measured}  "
        f"{time_taken}  wait {run.reporter.data_wait:.0%}{'  best' if better else ''}"
    )


def tell_forecast(run: Run, phase: Phase) -> None:
    """Say what is left after the first epoch of `phase`, and where the clock turns out too short, or not to be."""
    coming = forecast_of(run)
    if coming is None:
        return
    told = (phase, coming.stopped_in is None)
    if run.reporter.told != told:
        run.reporter.told = told
        console.say(f"Left: {coming}")


def forecast_of(run: Run) -> Forecast | None:
    """What is left of the run where it stands; None where the phase that comes next has not been timed."""
    progress, data, reserve = run.state.progress, run.data, run.clock.reserve
    phase = next((phase for phase in run.phases if phase.end > progress.epoch), None)
    speed = 0.0 if phase is None else run.reporter.throughput.images_per_s(phase)
    if speed == 0:
        return None
    scoring = reserve.validation / len(data.validation) if reserve.validation else 1 / speed
    return forecast(
        run.phases,
        progress.epoch,
        images_left=len(data.train) - progress.samples,
        images=len(data.train),
        images_per_s=speed,
        validation=scoring * len(data.validation) + 2 * reserve.saving,
        tests=scoring * sum(map(len, data.tests.values())),
        clock=run.clock.stopping.deadline.left(time.monotonic()) - reserve.to_save,
    )


def memory_bytes(run: Run) -> int:
    """The most on this process's fullest GPU so far; on the CPU what the process holds now."""
    return peak_of_gpus(run.strategy.devices) if run.device.type == "cuda" else resident()


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _memory(run: Run) -> str:
    held = console.in_gib(memory_bytes(run))
    return (
        f"memory {held}" if run.device.type == "cpu" else f"GPU memory {held} of {console.in_gib(total_of(run.device))}"
    )
