"""Work on many files at once. OpenCV, hashing and reading all leave other threads run, so threads are enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

from camoxpert_cli.data.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """`function` of each item, in order, on as many threads as this process may use cores.

    A few results at most wait for the caller. After an exception, or where the caller stops asking, nothing new is
    begun.
    """
    threads = usable_cores()
    with one_opencv_thread(), ThreadPoolExecutor(threads) as pool:
        running = deque(pool.submit(function, item) for item in items[: 2 * threads])
        try:
            for item in items[2 * threads :]:
                yield running.popleft().result()
                running.append(pool.submit(function, item))
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Within it OpenCV takes no threads of its own: there is an image for every core already."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
