"""What makes a test a unit test: no process, no training, and 0.2 seconds of processor time.

How long the same takes differs from machine to machine and from moment to moment, by a factor of two and more, so that
a test over 0.2 seconds is only named, as a warning at the end. One that takes five times as long fails.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

SECONDS = 0.2
_SECONDS_REFUSED = 5 * SECONDS
_STARTING = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
_ELSEWHERE = "it belongs in tests/behaviour"
_running: str | None = None


def _no_processes(event: str, arguments: tuple[Any, ...]) -> None:
    # A process that was forked before inherits the hook.
    if _running is not None and event in _STARTING and os.getpid() == _PID:
        raise AssertionError(f"a unit test starts no process ({event}); {_ELSEWHERE}")


_PID = os.getpid()
sys.addaudithook(_no_processes)


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from camoxpert_cli.engine import train

    def refuse(*arguments: Any) -> NoReturn:
        raise AssertionError(f"a unit test trains nothing; {_ELSEWHERE}")

    monkeypatch.setattr(train, "train_epoch", refuse)


@pytest.fixture(autouse=True, scope="session")
def _all_loaded(request: pytest.FixtureRequest) -> None:
    """What a first use costs is not charged to the test that happens to come first."""
    if request.config.getoption("--no-time-limit"):
        return
    import albumentations  # noqa: F401
    import cv2  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import torch
    from hypothesis import find
    from hypothesis import strategies as st

    from tests.helpers.networks import random_images, small_network

    small_network(num_experts=2)(random_images(2)).logits.sum().backward()
    torch.zeros(1).numpy()
    find(st.text(), lambda text: True)  # a table of all characters, which takes a second where none is in .hypothesis
    # A full collection takes as long as a test may, and may start at any moment.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    global _running
    _running, before = item.nodeid, time.process_time()
    try:
        yield
    finally:
        _running = None
    taken = time.process_time() - before
    if item.config.getoption("--no-time-limit"):
        return
    message = f"took {taken:.2f} s of processor time, and unit tests have {SECONDS} s; {_ELSEWHERE}"
    if taken > _SECONDS_REFUSED:
        pytest.fail(message)
    if taken > SECONDS:
        item.warn(pytest.PytestWarning(f"{item.nodeid} {message}"))
