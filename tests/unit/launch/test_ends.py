"""How processes ended: in words, as an error, and which of them the others ended because of."""

from __future__ import annotations

from typing import Any

import pytest

from camoxpert_cli.errors import DeviceError, TrainingError
from camoxpert_cli.launch.processes import ABORTED, BadEnd, Failure, cause_of
from camoxpert_cli.parallel.worker import PEER_LOST

TOLD = {"message": "why", "hint": "", "details": ""}


def end(rank: int, code: int, told_at: float | None = None) -> BadEnd:
    """`told_at` is when it said why; None for one that said nothing."""
    return BadEnd(rank, code, None if told_at is None else TOLD, told_at or 0.0)


@pytest.mark.parametrize(
    ("cause", "other"),
    [
        (end(1, 3, 9.0), end(0, PEER_LOST, 1.0)),  # who lost a partner says so before the partner has said why
        (end(1, -9), end(0, PEER_LOST, 1.0)),
        (end(1, -6), end(0, PEER_LOST, 1.0)),  # NCCL's watchdog aborts whoever waits, and whose GPU failed
        (end(1, 3, 9.0), end(0, -6)),
        (end(1, 143, 9.0), end(0, -6)),
        (end(1, 6, 9.0), end(0, 143, 1.0)),  # who was asked to end, and who could not save then
        (end(0, 143, 9.0), end(1, 143, 1.0)),  # the first rank is the one that saved
        (end(1, 3, 1.0), end(0, 5, 2.0)),  # whoever said it first
        (end(1, -9), end(0, 5, 2.0)),  # what was killed said nothing
        (end(0, 3, 1.0), end(1, 3, 1.0)),
    ],
)
def test_the_cause(cause: BadEnd, other: BadEnd) -> None:
    """The others ended because of it, in whichever order they are looked at."""
    assert cause_of([cause, other]) == cause_of([other, cause]) == cause


def test_no_cause() -> None:
    """Where none ended badly there is none."""
    assert cause_of([]) is None


@pytest.mark.parametrize(
    ("ended", "words", "exit_code"),
    [
        (end(0, -9), "was killed by SIGKILL", 137),
        (end(0, 3), "exited with code 3", 3),
        (end(0, -6), ABORTED, 134),
        (end(0, -6, 1.0), "was killed by SIGABRT", 134),
    ],
)
def test_how_it_ended(ended: BadEnd, words: str, exit_code: int) -> None:
    """In words and as shells have it; a process that told why it aborted was not simply aborted."""
    assert (str(ended), ended.exit_code) == (words, exit_code)


@pytest.mark.parametrize(
    ("failure", "kind", "told"),
    [
        (Failure("no GPU", "--device cpu", 5), DeviceError, ("no GPU", "--device cpu", 5)),
        (Failure("crashed"), TrainingError, ("crashed", "", 6)),
    ],
)
def test_a_failure_as_an_error(failure: Failure, kind: type[Exception], told: tuple[Any, ...]) -> None:
    """It is of the class that its exit code belongs to; training that failed where it has none."""
    error = failure.error(failure.why)

    assert isinstance(error, kind)
    assert (error.message, error.hint, error.exit_code) == told
