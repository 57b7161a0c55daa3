"""Work on many files at once. OpenCV, hashing and reading all leave other threads run, so threads are enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

from camoxpert_cli.data.cores import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in order, on as many threads as this process may use cores.

    After an exception, or where the caller stops asking, nothing new is begun.
    """
    with _one_opencv_thread(), ThreadPoolExecutor(usable_cores()) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """There is a picture for every core already."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
