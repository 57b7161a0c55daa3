"""Progress of a run as printed while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from camoxpert_cli import console
from camoxpert_cli.console import Report
from camoxpert_cli.engine.epochs import epoch_images, steps_in_epoch
from camoxpert_cli.engine.optimizer import learning_rates
from camoxpert_cli.engine.run import Run
from camoxpert_cli.engine.stages import Phase
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.throughput import Forecast, forecast, roughly
from camoxpert_cli.metrics.image_scores import Scores
from camoxpert_cli.metrics.measures import EACH_EPOCH
from camoxpert_cli.parallel.memory import peak_of_gpus, resident, total_of


def report_step(run: Run, phase: Phase, number: int, losses: LossValues, wait: float) -> Report:
    """Report optimizer step `number` (from 0) of an epoch; `wait` is the share (0..1) of its time spent on data."""
    assert run.state.optimizer is not None
    rates = [f"{name} {rate:.1e}" for name, rate in learning_rates(run.state.optimizer).items()]
    speed = run.reporter.throughput.images_per_s(phase)
    coming = forecast_of(run)
    line = [f"loss {_short(losses.total)}", f"lr {run.state.progress.rate:.1e}"]
    line += [f"{speed:.{0 if speed >= 10 else 1}f} img/s"] if speed else []
    line += [f"data wait {wait:.0%}", *([] if coming is None else [f"ETA {coming.run_left}"])]
    parts = [f"{name} {_short(value)}" for name, value in losses._asdict().items() if name != "total"]
    steps = steps_in_epoch(run.config, phase.stage, run.state.progress.epoch, run.data.images_per_epoch)
    rows = [
        (f"stage {phase.stage.number}", f"step {number + 1} of {steps}, learning rate: {', '.join(rates)}"),
        ("loss", f"{_short(losses.total)}: {', '.join(parts)}"),
        ("speed", f"{f'{speed:.1f} img/s, ' if speed else ''}data wait {wait:.0%}, {_memory(run)}"),
        ("remaining", "not known yet" if coming is None else str(coming)),
    ]
    return Report(_joined(run, line), [f"  {title:<11}{text}" for title, text in rows])


def epoch_line(run: Run, loss: float, scores: Scores, seconds: float, *, better: bool) -> str:
    """Format the line of a completed epoch, at most 80 columns, and one more on false alarms if they were measured."""
    time_taken = f"{seconds:.1f} s" if seconds < 100 else roughly(seconds)
    line = (
        f"Epoch {run.state.progress.epoch}/{run.config.train.epochs}  loss {_short(loss)}  {format_scores(scores)}  "
        f"{time_taken}  data wait {run.reporter.data_wait:.0%}{'  best' if better else ''}"
    )
    if (alarms := scores.measures.get("false_alarms")) is None:
        return line
    area = scores.measures["predicted_area"]
    return f"{line}\n  without an object: false alarms in {alarms:.0%} of the images, {area:.2%} of their pixels"


def format_scores(scores: Scores) -> str:
    """Format the measures of a validation."""
    return "  ".join(f"{each.label} {scores.measures[each.name]:.4f}" for each in EACH_EPOCH if each.epoch_line)


def tell_forecast(run: Run, phase: Phase) -> None:
    """Print the remaining time after the first epoch of `phase`, and when it starts or stops fitting the time limit."""
    coming = forecast_of(run)
    if coming is None:
        return
    told = (phase.kind, coming.stopped_in is None)
    if run.reporter.told != told:
        run.reporter.told = told
        console.say(f"Remaining: {coming}")


def forecast_of(run: Run) -> Forecast | None:
    """Estimate the remaining time from the run's current position; None if the next phase has not been timed."""
    progress, data, reserve = run.state.progress, run.data, run.clock.reserve
    phase = run.next_phase
    speed = 0.0 if phase is None else run.reporter.throughput.images_per_s(phase)
    if speed == 0:
        return None
    scoring = reserve.validation / len(data.validation) if reserve.validation else 1 / speed
    coming = forecast(
        run.phases,
        progress.epoch,
        images_left=epoch_images(run.config, progress.epoch, data.images_per_epoch) - progress.samples,
        images=data.images_per_epoch,
        last_images=epoch_images(run.config, run.config.train.epochs - 1, data.images_per_epoch),
        images_per_s=speed,
        validation=scoring * len(data.validation) + reserve.pause,
        tests=2 * reserve.saving + scoring * sum(map(len, data.tests.values())),
        clock=run.clock.stopping.deadline.left(run.clock.now()) - reserve.to_save,
    )
    # The epochs that are left change with the time that is left.
    return replace(coming, stopped_in=None) if run.ends_in_time else coming


def memory_bytes(run: Run) -> int:
    """Return the peak memory of this process's fullest GPU so far; on the CPU the current size of the process."""
    return peak_of_gpus(run.strategy.devices) if run.device.type == "cuda" else resident()


def _joined(run: Run, parts: Sequence[str]) -> str:
    """Parts of a progress line, closer together if it would exceed 80 columns behind its title and counts."""
    epochs, images = run.config.train.epochs, run.data.images_per_epoch
    line = "  ".join([f"Epoch {epochs}/{epochs}", f"{images}/{images}", *parts])
    return ("  " if len(line) <= 80 else " ").join(parts)


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _memory(run: Run) -> str:
    held = console.in_gib(memory_bytes(run))
    return (
        f"memory {held}" if run.device.type == "cpu" else f"GPU memory {held} of {console.in_gib(total_of(run.device))}"
    )
