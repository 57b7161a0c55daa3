"""Processes that score maps beside the network: all measures of a large picture take some ten milliseconds each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, TypeVar

import cv2

from camoxpert_cli.launch import end_with

Score = TypeVar("Score")

# Maps that wait for each process: enough that none is idle, and few enough that maps do not fill the memory.
_WAITING = 4


@contextmanager
def score_pool(workers: int) -> Iterator[Callable[..., Future[Any]]]:
    """Yields `submit(function, *arguments)`, which waits while too many are under way; no worker: computed at once.

    What is given to it has to be picklable. Leaving waits for what was submitted, or after an exception drops it.
    """
    if workers == 0:
        yield _at_once
        return
    slots = BoundedSemaphore(workers * (1 + _WAITING))
    # A forked copy of a process with CUDA or threads would not be safe to use.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),)
    )

    def submit(function: Callable[..., Score], *arguments: Any) -> Future[Score]:
        slots.acquire()
        future = pool.submit(function, *arguments)
        future.add_done_callback(lambda _: slots.release())
        return future

    try:
        yield submit
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _at_once(function: Callable[..., Score], *arguments: Any) -> Future[Score]:
    future: Future[Score] = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def _start_worker(parent: int) -> None:
    # Ctrl-C reaches every process of a terminal; the main one ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    cv2.setNumThreads(0)
