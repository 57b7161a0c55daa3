"""camox: train and evaluate CamoXpert, a network that finds camouflaged animals in images."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camoxpert_cli.api import evaluate, predict, train
    from camoxpert_cli.checkpoints.load import load_model

# OpenCV reads this once, on import, and then refuses images with more pixels before allocating memory for them.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "200000000")

__version__ = "0.2.0"
__all__ = ["__version__", "evaluate", "load_model", "predict", "train"]

_HOMES = {
    "evaluate": "camoxpert_cli.api",
    "load_model": "camoxpert_cli.checkpoints.load",
    "predict": "camoxpert_cli.api",
    "train": "camoxpert_cli.api",
}


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, and `camox --help` must not wait for it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
