"""One job beside training, on a thread of its own."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread, current_thread
from typing import Generic, TypeVar

Result = TypeVar("Result")

_running: set[Thread] = set()


class Background(Generic[Result]):
    """Runs at most one job at a time on a thread; the thread that started it fetches its result or its error."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._outcome: Future[Result] = Future()

    @property
    def is_busy(self) -> bool:
        """Whether a job was started whose result has not been fetched."""
        return self._thread is not None

    @property
    def is_done(self) -> bool:
        """Whether a job has ended whose result has not been fetched."""
        return self._thread is not None and self._outcome.done()

    def start(self, job: Callable[[], Result]) -> None:
        """Start `job`; the result of the previous one must have been fetched."""
        assert self._thread is None
        self._outcome = Future()
        self._thread = Thread(target=_run, args=(job, self._outcome), name="camox-background")
        _running.add(self._thread)
        self._thread.start()

    def result(self) -> Result:
        """Wait for the job; return its result, or raise its error."""
        assert self._thread is not None
        try:
            result = self._outcome.result()
        finally:
            # Not if a signal interrupted the wait.
            if self._outcome.done():
                self._thread.join()
                self._thread = None
        return result

    def abandon(self) -> None:
        """End the job, if there is one, at its next instruction in Python, and wait until its thread has ended.

        Threads that are still writing when Python shuts down may crash the process.
        """
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Abandoned))
            thread.join()


class _Abandoned(SystemExit):
    """Ends a thread without a message."""


def _run(job: Callable[[], Result], outcome: Future[Result]) -> None:
    try:
        outcome.set_result(job())
    except BaseException as error:
        outcome.set_exception(error)
    finally:
        _running.discard(current_thread())


def _wait_for_jobs() -> None:
    """Before a fork: the new process would keep the files of a job open, and their disk space occupied.

    A second Ctrl-C ends the wait only, for Python lets no exception leave this function, and prints it instead. After
    the first one, the run stops once its next step is complete.
    """
    for thread in _running - {current_thread()}:
        with suppress(KeyboardInterrupt):
            thread.join()


os.register_at_fork(before=_wait_for_jobs)
