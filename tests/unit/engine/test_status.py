"""What is shown of a run: it fits 80 columns, and its numbers are those of the run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from camoxpert_cli.engine.run import Run, enter_phase, prepare
from camoxpert_cli.engine.status import epoch_line, forecast_of, memory_bytes, report_step, tell_forecast
from camoxpert_cli.engine.step import LossValues
from camoxpert_cli.engine.throughput import Throughput
from camoxpert_cli.engine.time_limit import Deadline
from camoxpert_cli.metrics.image_scores import Scores
from tests.helpers.tiny_data import tiny_plan

LOSSES = LossValues(3.25, 0.5, 0.25, 0.125, 1.0, 4.0)


@pytest.fixture
def run(tiny_data: Path, tmp_path: Path) -> Run:
    """In its first phase, of 8 images an epoch at 4 a second, and 3 to validate on."""
    return timed_run(tiny_data, tmp_path, epochs=3, stage1_epochs=2, progressive_unfreeze=False)


def timed_run(data: Path, folder: Path, **settings: Any) -> Run:
    run = prepare(tiny_plan(data, folder / "run", **settings))[0]
    enter_phase(run, run.phases[0])
    for _ in range(2):
        run.reporter.throughput.note_step(run.phases[0], 1.0, 4)
    run.clock.reserve.validation = 6.0
    return run


def test_a_step(run: Run) -> None:
    """A pipe gets the loss, the rate, the speed and what is left; a terminal all parts of it."""
    run.state.progress.samples = 4
    run.state.progress.rate = 1e-3
    report = report_step(run, run.phases[0], 0, LOSSES, wait=0.25)

    # Half of an epoch and two whole ones, three validations and the test set: 1 + 2 * 2 + 3 * 6 + 6.
    assert report.line == "loss 3.250  lr 1.0e-03  4.0 img/s  data wait 25%  ETA >29s"
    assert [" ".join(row.split()) for row in report.rows[:2]] == [
        "stage 1 step 1 of 2, learning rate: network 0.0e+00",
        "loss 3.250: bce 0.500, iou 0.250, edge 0.125, deep 1.000, balance 4.000",
    ]
    assert report.rows[2].startswith("  speed      4.0 img/s, data wait 25%, memory ")
    assert report.rows[3] == "  remaining  15s for stage 1, >29s total"


def test_nothing_is_known_before_a_step_was_timed(run: Run) -> None:
    """The first step promises nothing."""
    run.reporter.throughput = Throughput()
    report = report_step(run, run.phases[0], 0, LOSSES, wait=0.0)

    assert report.line == "loss 3.250  lr 0.0e+00  data wait 0%"
    assert "img/s" not in report.rows[2]
    assert report.rows[3] == "  remaining  not known yet"


def test_all_fits_80_columns(run: Run) -> None:
    """Also in the last of thousands of steps, with a loss that has grown and a clock that stops."""
    run.config = replace(run.config, train=replace(run.config.train, epochs=140))
    run.data.train[:] = run.data.train * 500
    run.state.progress.epoch = 0
    run.state.progress.rate = 6.5e-4
    run.clock.stopping.deadline = Deadline(time.monotonic() + 43000.0, "the time limit of 12h")
    run.reporter.throughput = Throughput()
    for _ in range(2):
        run.reporter.throughput.note_step(run.phases[0], 30.0, 4)
    losses = LossValues(*(each + 90 for each in LOSSES))
    report = report_step(run, run.phases[0], 999, losses, wait=0.99)
    run.state.progress.epoch = 140

    assert "stops in epoch 2" in report.rows[3]
    assert max(map(len, report.rows)) <= 80
    assert len(f"Epoch 140/140  3999/4000  {report.line}") <= 80
    assert len(epoch_line(run, 93.2503, Scores({"iou": 0.72, "dice": 0.8, "mae": 0.03}), 40000.0, better=True)) <= 80


def test_false_alarms_have_a_line_of_their_own(run: Run) -> None:
    """Only if they were measured; the line of the epoch stays as it is."""
    scores = {"iou": 0.72, "dice": 0.8, "mae": 0.03}
    plain = epoch_line(run, 93.2503, Scores(scores), 40000.0, better=True)
    more = epoch_line(run, 93.2503, Scores({**scores, "false_alarms": 1.0, "predicted_area": 0.125}), 4e4, better=True)

    assert more.splitlines() == [
        plain,
        "  without an object: false alarms in 100% of the images, 12.50% of their pixels",
    ]
    assert max(map(len, more.splitlines())) <= 80


def test_the_forecast_is_said_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """After a phase's first epoch it is said, then only where the clock turns out too short, or long enough again."""
    said = []
    for clock in (None, None, 1000.0, 10.0, 9.0, 1000.0):
        if clock is not None:
            run.clock.stopping.deadline = Deadline(time.monotonic() + clock, "the time limit of 1h")
        tell_forecast(run, run.phases[0])
        said.append(capsys.readouterr().err)

    assert said[0] == "Remaining: 16s for stage 1, >30s total\n"
    assert said[1:3] == ["", ""]
    assert "stops in epoch " in said[3]
    assert said[4] == ""
    assert said[5].endswith(" (enough time)\n")


def test_a_phase_that_was_not_timed_has_no_forecast(run: Run) -> None:
    """The next phase trains other layers: its pace is not known from this one's. After the last nothing is left."""
    run.state.progress.epoch = 2
    other = forecast_of(run)
    run.state.progress.epoch = 3

    assert other is None
    assert forecast_of(run) is None


def test_memory_is_that_of_the_process(run: Run) -> None:
    """On the CPU it is what the process holds: hundreds of MiB with torch, and more with a further 64."""
    before = memory_bytes(run)
    more = bytearray(b"1") * (64 * 2**20)
    after = memory_bytes(run)

    assert before > 100 * 2**20
    assert after - before == pytest.approx(len(more), rel=0.15)
