from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import cv2
import pytest

from camoxpert_cli.data.threads import in_threads
from camoxpert_cli.errors import DataError


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads on any machine, and a number of OpenCV's own that differs from the one in `in_threads`."""
    monkeypatch.setattr("camoxpert_cli.data.threads.usable_cores", lambda: 2)
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield
    cv2.setNumThreads(before)


def test_order_is_kept() -> None:
    """Results come in the order of the items, though later ones are ready first."""

    def later_is_sooner(item: int) -> int:
        time.sleep(0.002 * (10 - item))
        return item * item

    assert list(in_threads(later_is_sooner, range(10))) == [item * item for item in range(10)]


def test_items_are_worked_on_at_once() -> None:
    """Two items are under way at the same time: each waits for the other."""
    meeting = threading.Barrier(2, timeout=60)

    assert len(list(in_threads(lambda _: meeting.wait(), range(4)))) == 4


def test_nothing_to_do() -> None:
    """No items give no results."""
    assert list(in_threads(str, [])) == []


def test_error_stops_the_rest() -> None:
    """The exception of an item reaches the caller after the results before it, and most of the others never begin."""
    begun = []

    def failing(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise DataError("broken")
        time.sleep(0.01)
        return item

    results = in_threads(failing, range(300))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="broken"):
        next(results)

    # Those that were under way, with ample room for a busy machine; all of them would take 1.5 s.
    assert len(begun) < 150
    assert cv2.getNumThreads() == 3


def test_caller_stops_asking() -> None:
    """Where the caller leaves the loop, most of the rest never begin, and no thread is left."""
    begun = []

    def slow(item: int) -> int:
        begun.append(item)
        time.sleep(0.01)
        return item

    before = threading.active_count()
    results = in_threads(slow, range(300))
    assert next(results) == 0
    results.close()

    assert len(begun) < 150
    assert threading.active_count() == before
    assert cv2.getNumThreads() == 3


def test_opencv_runs_one_thread_meanwhile() -> None:
    """OpenCV has one thread while items are worked on, and its own number afterwards."""
    assert list(in_threads(lambda _: cv2.getNumThreads(), range(4))) == [1, 1, 1, 1]
    assert cv2.getNumThreads() == 3


def test_few_results_wait() -> None:
    """Where the caller is slow, the threads wait for it instead of filling the memory."""
    begun: list[int] = []
    results = in_threads(begun.append, range(1000))
    next(results)
    time.sleep(0.2)
    results.close()

    assert len(begun) <= 5
