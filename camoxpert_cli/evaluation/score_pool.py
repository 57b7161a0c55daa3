"""Threads that score predictions while the network runs: all metrics of a large image take tens of milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, TypeVar

from camoxpert_cli.data.threads import one_opencv_thread

Score = TypeVar("Score")

# Predictions queued per thread: enough to keep every thread busy, few enough to limit memory use.
_WAITING = 4


@contextmanager
def score_pool(workers: int) -> Iterator[Callable[..., Future[Any]]]:
    """Yield `submit(function, *arguments)`, which blocks while too many calls are pending; with 0 workers it runs them.

    Threads are enough, because OpenCV and NumPy release the GIL while they process an image; every prediction would
    have to be sent to a process. On exit, pending calls are completed, or canceled after an exception.
    """
    if workers == 0:
        yield _at_once
        return
    slots = BoundedSemaphore(workers * (1 + _WAITING))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="score")

    def submit(function: Callable[..., Score], *arguments: Any) -> Future[Score]:
        slots.acquire()
        future = pool.submit(function, *arguments)
        future.add_done_callback(lambda _: slots.release())
        return future

    with one_opencv_thread():
        try:
            yield submit
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()


def _at_once(function: Callable[..., Score], *arguments: Any) -> Future[Score]:
    future: Future[Score] = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future
