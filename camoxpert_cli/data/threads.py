"""Processes many files in parallel. OpenCV, hashing and reading all release the GIL, so threads are enough."""

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
    """Yield `function` of each item, in order, using one thread for each core available to this process.

    At most a few results wait for the caller. After an exception, or when the caller stops iterating, no further item
    is started.
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
    """Limit OpenCV to one thread in this context, because each core already works on its own image."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
