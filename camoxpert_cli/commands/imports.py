"""Import the libraries of training and prediction: thousands of modules, which take seconds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Collect no garbage while modules are imported, nor examine later what they made: it all stays.

    Python would go through it many times, which takes a fifth of the import's time.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    if len(sys.modules) > before:  # not in a process that runs many commands
        gc.freeze()
