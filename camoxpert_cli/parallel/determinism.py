"""Deterministic training: bitwise results that do not depend on the order in which a GPU happens to add numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# With any other value, cuBLAS may choose an algorithm by available workspace (its documentation, "Results
# reproducibility").
_REPRODUCIBLE = (":4096:8", ":16:8")


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """If `wanted`, make operations on GPUs deterministic; one without a deterministic form raises RuntimeError.

    Enter it before anything is computed on a GPU, since cuBLAS reads its variable once; processes started inside
    inherit it. On exit, the settings of torch and the environment are restored.
    """
    if not wanted:
        yield
        return
    before, workspace = torch.get_deterministic_debug_mode(), os.environ.get(_WORKSPACE)
    memory: Any = torch.utils.deterministic  # untyped
    filled = memory.fill_uninitialized_memory
    if workspace not in _REPRODUCIBLE:
        os.environ[_WORKSPACE] = _REPRODUCIBLE[0]
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # nothing here reads it, and filling takes time
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        memory.fill_uninitialized_memory = filled
        if workspace is None:
            del os.environ[_WORKSPACE]
        else:
            os.environ[_WORKSPACE] = workspace
