"""Threads that score maps beside the network: all measures of a large image take some ten milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any, TypeVar

from camoxpert_cli.data.threads import one_opencv_thread

Score = TypeVar("Score")

# Maps that wait for each thread: enough that none is idle, and few enough that maps do not fill the memory.
_WAITING = 4


@contextmanager
def score_pool(workers: int) -> Iterator[Callable[..., Future[Any]]]:
    """Yields `submit(function, *arguments)`, which waits while too many are under way; no worker: computed at once.

    Threads are enough, for OpenCV and NumPy let go of the interpreter while they work on an image; processes would
    have to be handed every map. Leaving waits for what was submitted, or after an exception drops it.
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
