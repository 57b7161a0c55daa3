"""How long is waited for a check and its parts: the times that they name, times `--patience`."""

from __future__ import annotations

import os

PATIENCE = "CAMOX_GPU_PATIENCE"


def with_patience(seconds: float) -> float:
    return seconds * float(os.environ.get(PATIENCE, "1"))
