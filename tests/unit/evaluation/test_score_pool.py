from __future__ import annotations

import threading
import time

import pytest

from camoxpert_cli.evaluation.score_pool import score_pool


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_belong_to_their_calls(workers: int) -> None:
    """Each future holds what its own call returned, or raises what it raised."""
    with score_pool(workers) as submit:
        futures = [submit(divmod, 7, divisor) for divisor in (2, 0, 3)]

    assert futures[0].result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        futures[1].result()
    assert futures[2].result() == (2, 1)


def test_few_wait() -> None:
    """`submit` waits while more than a few maps for each thread are under way, and goes on when one is done."""
    gate = threading.Event()
    submitted = []

    def submit_many() -> None:
        with score_pool(1) as submit:
            for number in range(20):
                submit(gate.wait, 60)
                submitted.append(number)

    thread = threading.Thread(target=submit_many)
    thread.start()
    while len(submitted) < 5:
        time.sleep(0.01)
    time.sleep(0.2)
    waiting = len(submitted)
    gate.set()
    thread.join(60)

    assert waiting == 5
    assert len(submitted) == 20


def test_an_exception_drops_what_waits() -> None:
    """Where the caller fails, calls that had not begun never do."""
    gate, begun = threading.Event(), []

    def call(number: int) -> None:
        begun.append(number)
        gate.wait(60)

    with pytest.raises(KeyboardInterrupt), score_pool(1) as submit:  # noqa: PT012
        for number in range(4):
            submit(call, number)
        while not begun:
            time.sleep(0.01)
        threading.Timer(0.1, gate.set).start()
        raise KeyboardInterrupt

    assert begun == [0]
