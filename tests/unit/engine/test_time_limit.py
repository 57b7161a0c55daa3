from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from camoxpert_cli.config.parse import parse_sessions
from camoxpert_cli.engine import time_limit as deadline_module
from camoxpert_cli.engine.stopping import Stopping
from camoxpert_cli.engine.time_limit import (
    SESSION_START,
    SLURM_END,
    Reserve,
    find_deadline,
    process_start,
    session_start,
    slurm_job,
)
from camoxpert_cli.errors import UsageError


def test_a_name_with_brackets(tmp_path: Path) -> None:
    """A process may be called anything; its start is the twenty-second field all the same."""
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks = int((uptime - 100) * os.sysconf("SC_CLK_TCK"))
    (tmp_path / "7").mkdir()
    fields = ["7", "(a ) (b", ")", "S", *["0"] * 18, str(ticks), "0"]
    (tmp_path / "7" / "stat").write_text(" ".join(fields).replace("(b )", "(b)"))

    assert process_start(7, tmp_path) == pytest.approx(time.monotonic() - 100, abs=0.1)


def test_without_proc(tmp_path: Path) -> None:
    """Where the system does not tell, the clock runs from the import of camox, which is never too late."""
    assert process_start(1, tmp_path) == deadline_module._IMPORTED


def test_limits_from_process_and_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier limit counts, and says which it is."""
    now = time.monotonic()
    monkeypatch.setattr(deadline_module, "process_start", lambda pid: now - 60)
    monkeypatch.setenv(SESSION_START, str(time.time() - 3600))
    by_process = find_deadline(600, 2 * 3600)
    by_session = find_deadline(7200, 3660)

    assert (by_process.end, by_process.name) == (now + 540, "the time limit of 10m")
    assert by_session.end == pytest.approx(now - 3600 + 0.99 * 3660, abs=0.1)
    assert by_session.name == "the session limit of 1h1m"
    assert find_deadline(None, None).end == math.inf


@pytest.mark.parametrize(
    ("fit", "limit", "left", "name"),
    [
        ("9h", None, 9 * 3600, "the time limit of 9h (--fit 9h)"),
        ("3x30m", None, 1800, "the time limit of 30m (--fit 3x30m)"),
        ("9h", 3600, 3600, "the time limit of 1h"),
        ("30m", 3600, 1800, "the time limit of 30m (--fit 30m)"),
    ],
)
def test_a_fit_is_a_limit_of_each_session(fit: str, limit: int | None, left: int, name: str) -> None:
    """It counts from the start of camox, and an earlier limit wins."""
    deadline = find_deadline(limit, None, 100.0, parse_sessions(fit))

    assert (deadline.end, deadline.name) == (100.0 + left, name)


def test_session_starts_with_process_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the environment says otherwise, the container's first process began the session."""
    monkeypatch.delenv(SESSION_START, raising=False)

    assert session_start() == pytest.approx(process_start(1), abs=0.1)


@pytest.mark.parametrize("text", ["", "yesterday", "nan", "-5", "1e12", "inf"])
def test_a_session_start_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A wrong variable ends with its value and a command, exit code 2."""
    monkeypatch.setenv(SESSION_START, text)
    with pytest.raises(UsageError, match="expected the session's start in seconds since 1970") as caught:
        find_deadline(None, 3600)

    assert repr(text) in caught.value.message
    assert "export CAMOX_SESSION_START=$(date +%s)" in caught.value.hint


def test_a_machine_that_has_been_up_for_days(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A session limit from a notebook's preset does not end runs on a server at once: it counts from their start."""
    monkeypatch.delenv(SESSION_START, raising=False)
    now = time.monotonic()
    monkeypatch.setattr(deadline_module, "process_start", lambda pid: now - (40 * 86400 if pid == 1 else 10))
    deadline = find_deadline(None, 12 * 3600)

    assert deadline.left(now) == pytest.approx(0.99 * 12 * 3600 - 10, abs=0.1)
    assert (
        "has been up for 960h: the session limit of 12h is counted from the start of camox" in capsys.readouterr().err
    )


def test_a_session_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that was given is believed: no new session's time is counted for a run that begins after its end."""
    monkeypatch.setenv(SESSION_START, str(time.time() - 7200))
    left = find_deadline(None, 3600).left(time.monotonic())

    assert left == pytest.approx(0.99 * 3600 - 7200, abs=0.1)


def test_a_slurm_job_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any option; half a minute is left in which the job's script can requeue the job."""
    monkeypatch.setenv(SLURM_END, str(int(time.time()) + 7200))
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    deadline = find_deadline(None, None)

    assert deadline.left(time.monotonic()) == pytest.approx(7200 - 30, abs=1.5)
    assert deadline.name == "the time limit of Slurm job 123"


def test_the_earliest_of_all_limits_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job may end before or after the limits that a user sets."""
    monkeypatch.setattr(deadline_module, "process_start", lambda pid: time.monotonic() - 10)
    monkeypatch.setenv(SLURM_END, str(time.time() + 3600))

    assert find_deadline(600, 7200).name == "the time limit of 10m"
    assert find_deadline(7200, 600).name == "the session limit of 10m"
    assert find_deadline(7200, 7200).name == "the time limit of Slurm job"


def test_a_slurm_job_in_its_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that starts there stops before its first step, rather than being killed in it."""
    monkeypatch.setenv(SLURM_END, str(time.time() + 20))

    assert find_deadline(None, None).left(time.monotonic()) == pytest.approx(-10, abs=1)


def test_a_slurm_job_that_is_over(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A shell that outlived its job still has the variables: they stop no run, and a warning names them."""
    monkeypatch.setenv(SLURM_END, str(time.time() - 7200))
    monkeypatch.setenv("SLURM_JOB_ID", "123")

    assert find_deadline(None, None).end == math.inf
    warning = capsys.readouterr().err
    assert "SLURM_JOB_END_TIME is 2h ago: the time limit of Slurm job 123 is ignored" in warning
    assert "unset SLURM_JOB_END_TIME" in warning


@pytest.mark.parametrize("text", ["N/A", "2026-11-28T11:41:46", "nan", "inf", "-5", "0"])
def test_an_end_of_a_slurm_job_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A wrong variable ends with its value and a command, exit code 2."""
    monkeypatch.setenv(SLURM_END, text)
    with pytest.raises(UsageError, match="expected the end of the Slurm job in seconds since 1970") as caught:
        find_deadline(None, None)

    assert repr(text) in caught.value.message
    assert caught.value.hint.startswith("unset SLURM_JOB_END_TIME")


def test_an_end_that_could_not_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script whose question to the scheduler fails sets nothing, and the run starts without this limit."""
    monkeypatch.setenv(SLURM_END, "")

    assert slurm_job() is None


@pytest.mark.parametrize("step", [-86400.0, 86400.0])
def test_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """Once a run has begun, whoever sets the machine's clock changes no limit, nor what is left of it."""
    monkeypatch.setenv(SESSION_START, str(time.time() - 600))
    deadlines = [find_deadline(1200, None), find_deadline(None, 3600)]
    monkeypatch.setenv(SLURM_END, str(time.time() + 600))
    deadlines.append(find_deadline(None, None))
    before = [each.left(time.monotonic()) for each in deadlines]
    set_clock = time.time() + step
    monkeypatch.setattr(time, "time", lambda: set_clock)

    assert [each.left(time.monotonic()) for each in deadlines] == pytest.approx(before, abs=1)
    for deadline, left in zip(deadlines, before, strict=True):
        stopping = Stopping(deadline)
        assert stopping.due(left - 60) is None
        assert stopping.due(left + 60) is not None
    assert process_start(os.getpid()) <= time.monotonic()


def test_reserve_is_estimated_then_measured() -> None:
    """Before anything was measured, saving and validation are estimated; then what was measured counts."""
    reserve = Reserve(estimated_saving=10.0, validation_images=40)
    reserve.note_step(60.0, images=16)  # libraries warm up
    reserve.note_step(2.0, images=16)
    estimated = reserve.seconds
    reserve.saving, reserve.validation = 1.0, 3.0
    reserve.note_step(1.0, images=16)

    assert estimated == pytest.approx(1.2 * (2 + 40 * 2 / 16 + 2 * 10))
    assert reserve.seconds == pytest.approx(1.2 * (2 + 3 + 2 * 1))
    assert reserve.to_save == pytest.approx(1.2 * 2)


def test_a_planned_end() -> None:
    """Where the time for validation is planned for, a step like the latest and the saving are all that is reserved."""
    reserve = Reserve(estimated_saving=10.0, validation_images=40, planned=True)
    for seconds in (60.0, 5.0, 2.0):
        reserve.note_step(seconds, images=16)
    reserve.note_validation(30.0)

    assert reserve.seconds == pytest.approx(2 + 1.2 * 2 * 10)


def test_the_slowest_counts() -> None:
    """What a step, a save and a validation took at most is kept for the next; the first step does not count."""
    reserve = Reserve(estimated_saving=10.0, validation_images=40)
    for seconds in (60.0, 2.0, 3.0, 1.0):
        reserve.note_step(seconds, images=4)
        reserve.note_saving(seconds / 10)
        reserve.note_validation(seconds * 10)

    assert (reserve.step, reserve.saving, reserve.validation) == (3.0, 6.0, 600.0)
    assert reserve.per_image == 1.0 / 4
    reserve = Reserve(estimated_saving=10.0, validation_images=40)
    for seconds in (1.0, 2.0):
        reserve.note_saving(seconds)
        reserve.note_validation(seconds)
    assert (reserve.saving, reserve.validation) == (2.0, 2.0)
